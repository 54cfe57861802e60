"""The main job: bootstrap, serve, then rounds of talk and learning, a control, and the report."""

import os
from contextlib import ExitStack

from bb3x_ray.config import Config
from bb3x_ray.metrics import Metrics
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.console import Speaker
from bb3x_ray.rounds.control import judge_control
from bb3x_ray.rounds.erasure import ErasedMeanwhile, carry_out
from bb3x_ray.rounds.ledger import only_run
from bb3x_ray.rounds.material import Material, first_version, load_material, prompts_note
from bb3x_ray.rounds.on_ray import connected, start_server
from bb3x_ray.rounds.people import let_people_talk
from bb3x_ray.rounds.report import write_report
from bb3x_ray.rounds.round import RoundPlan, run_round
from bb3x_ray.rounds.steps import RoundSteps
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.serve.on_ray import require_free_port
from bb3x_ray.storage import Storage

BASE_SEED = 1000  # round n of a run with seed s has seed 1000·s + n


def run(config: Config, say: Speaker, control: bool = True) -> list[Verdict]:
    """Carry out the rounds that are not done yet; the same command resumes a run that was killed.

    control   judge a candidate without any learning as well, and write the report
    """
    storage = Storage(config.storage.root)
    models = Registry(storage, "models")
    with ExitStack() as stack:
        stack.enter_context(only_run(storage))
        storage.clear_aside()
        if config.talk.people == "simulated" and not (config.ray.address or os.environ.get("RAY_ADDRESS")):
            require_free_port(config.serve.host, config.serve.port)  # a sentence now, not after a minute
        if not models.versions():
            say(f"importing {config.model.source} as v0001 (converted once)")
        champion = first_version(models, config.model.source)
        say(f"champion: {champion}{prompts_note(models, champion)}")
        stack.enter_context(connected(config.ray))
        server = None
        if config.talk.people == "simulated":
            server = start_server(storage, config, say)
            stack.callback(server.stop)
            say(f"chat with {champion} at {server.url}")
        material = load_material(storage, config.evaluate, config.seed)
        metrics = Metrics(storage.path("metrics"), config.metrics, config.name)
        stack.callback(metrics.finish)
        steps = RoundSteps(storage, config, material, metrics, server, say)
        verdicts = [
            _one_round(number, steps, material, config, say) for number in range(1, config.rounds + 1)
        ]
        carry_out(storage, steps.inbox)
        if not control:
            say.stop()
            return verdicts
        report = write_report(steps, verdicts, judge_control(steps))
        metrics.picture("rounds", report.picture)
        for name, values in report.numbers.items():
            metrics.log(name, values)
    say.stop()
    say.console.print(report.table)
    say.console.print(report.words)
    return verdicts


def _one_round(number: int, steps: RoundSteps, material: Material, config: Config, say: Speaker) -> Verdict:
    if not steps.ledger.is_done(f"rounds/{number:04d}", "plan"):
        steps.look_at_canary()  # now, because the round would be in vain if the champion moved later
    plan = steps.ledger.plan(number, lambda: _make_plan(number, steps, config))
    say(f"round {number}: champion {plan.champion}, candidate {plan.candidate}")
    if steps.server is not None and not steps.ledger.is_done(plan.name, "collect"):
        let_people_talk(steps.server.url, plan, material, steps.storage, config, say)
    while True:
        try:
            return run_round(plan, steps)
        except ErasedMeanwhile as erased:
            say(f"{plan.name} goes on from curate: {erased}")


def _make_plan(number: int, steps: RoundSteps, config: Config) -> RoundPlan:
    after = 0
    if number > 1:
        after = int(steps.storage.manifest(f"rounds/{number - 1:04d}/collect")["upto_seq"])
    return RoundPlan(
        number,
        BASE_SEED * config.seed + number,
        steps.models.champion,
        steps.models.reserve(),
        after,
        steps.rewards.reserve(),
    )
