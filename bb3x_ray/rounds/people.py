"""Simulated people come and talk before a round."""

from collections.abc import Callable, Sequence
from dataclasses import fields

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.config import Config
from bb3x_ray.data.slices import Slice
from bb3x_ray.evaluate.adversarial import adversarial
from bb3x_ray.rounds.material import Material
from bb3x_ray.rounds.round import RoundPlan
from bb3x_ray.simulate.people import cast
from bb3x_ray.simulate.preference import Exchange, Opinion, judge_exchanges
from bb3x_ray.simulate.talk import talk
from bb3x_ray.storage import Storage, read_json, write_json


def let_people_talk(
    url: str,
    plan: RoundPlan,
    material: Material,
    storage: Storage,
    config: Config,
    say: Callable[[str], None],
) -> None:
    """Let this round's people talk over HTTP, once: a resumed run does not call them again.

    Who was of which kind, and what they truly liked, is written beside the round; nothing of it reaches
    the log or what learns from it.
    """
    path = storage.path(plan.name, "talk.json")
    if path.is_file():
        return
    embed = load_encoder(config.reward.encoder).embed

    def opinions(exchanges: Sequence[Exchange]) -> list[Opinion]:
        return judge_exchanges(exchanges, embed)

    openers = [tuple(c.turns) for c in material.parts["talk"]]
    people = cast(config.talk, openers, [p.text for p in adversarial("talk")], config.seed, plan.number)
    say(f"talk: {len(people)} SIMULATED PEOPLE talk to {plan.champion} at {url}; you may join them there")
    report = talk(url, people, opinions, config.talk, _progress(say))
    # Not asdict: it makes a Counter of a Counter's items.
    write_json(path, {f.name: getattr(report, f.name) for f in fields(report)})
    say(
        f"talk: {report.replies} replies, {report.thumbs_up} thumbs up, {report.thumbs_down} down, "
        f"{report.failures} failed requests, {report.seconds:.0f} s"
    )


def truth_about(storage: Storage, round_: str, slice_: Slice) -> dict[str, str]:
    """person in the log -> the kind they were cast as; empty where nobody was simulated.

    The server may log another pseudonym than it was given, so people are known by the replies they got.
    """
    path = storage.path(round_, "talk.json")
    if not path.is_file():
        return {}
    report = read_json(path)
    return {
        c.person: report["kinds"][report["said_to"][m.message_id]]
        for c in slice_.conversations()
        for m in c.messages
        if m.message_id in report["said_to"]
    }


def _progress(say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Say how far they are about every quarter."""
    said = 0

    def progress(done: int, of: int) -> None:
        nonlocal said
        if of and done * 4 // of > said:
            said = done * 4 // of
            say(f"talk: {done} of {of} replies")

    return progress
