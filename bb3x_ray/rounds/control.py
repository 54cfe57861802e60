"""The control of a run: a candidate without any learning must not get past the gate."""

from bb3x_ray.rounds.steps import RoundSteps
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.storage import read_json, write_json
from bb3x_ray.train.shuffle import shuffle_weights

NAME = "rounds/control"


def judge_control(steps: RoundSteps) -> Verdict:
    """The verdict on the champion with its weights shuffled. It can never be handed over."""
    if not steps.storage.is_published(NAME):
        champion = steps.models.champion
        version = _shuffled(steps, champion)
        steps.say(f"control: {version} is {champion} with shuffled weights; the gate must reject it")
        verdict = steps.judging.verdict(version, champion, steps.config.seed, [])
        with steps.storage.publish(NAME, passed=verdict.passed) as folder:
            write_json(folder / "verdict.json", verdict.to_dict())
    verdict = Verdict.from_dict(read_json(steps.storage.verify(NAME) / "verdict.json"))
    steps.say(f"control: {'PASSED, which it must not' if verdict.passed else 'rejected'}. {verdict.words}")
    return verdict


def _shuffled(steps: RoundSteps, champion: str) -> str:
    known = [v for v in steps.models.versions() if steps.models.lineage(v).get("control")]
    if known:
        return known[-1]
    version = steps.models.reserve()
    card = f"# {version}\n\nA control: {champion} with its weights shuffled. Of no use for anything.\n"
    lineage = {"parent": champion, "control": "shuffled weights"}
    with steps.models.publish(version, lineage, card) as folder:
        shuffle_weights(steps.models.folder(champion), folder, steps.config.seed)
    return version
