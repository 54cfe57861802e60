"""The cast: who comes, what they say, and which thumbs they press."""

import random

import pytest

from bb3x_ray.config import TalkConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.simulate.people import TROLLS, Kind, SimulatedPerson, cast, thumb

RECORDED = [[f"talk {i} turn {j} here" for j in range(8)] for i in range(60)]
ADVERSARIAL = [f"adversarial {i}" for i in range(40)]
CONFIG = TalkConfig()


def ratings(kind: Kind, likes: bool, n: int = 2000, **config: float) -> float:
    """Share of thumbs up that a person of this kind gives."""
    someone, rng = SimulatedPerson("x", kind, (), 0), random.Random(0)
    thumbs = [thumb(someone, likes, CONFIG.model_copy(update=config), rng) for _ in range(n)]
    given = [t for t in thumbs if t is not None]
    return sum(t.rating == 1 for t in given) / len(given)


def test_the_same_seed_casts_the_same_people_and_another_seed_others() -> None:
    assert cast(CONFIG, RECORDED, ADVERSARIAL, 1) == cast(CONFIG, RECORDED, ADVERSARIAL, 1)
    first, second = (cast(CONFIG, RECORDED, ADVERSARIAL, seed) for seed in (1, 2))
    assert not {p.name for p in first} & {p.name for p in second}


def test_the_same_people_come_back_with_other_things_to_say() -> None:
    first, second = (cast(CONFIG, RECORDED * 2, ADVERSARIAL, 1, visit) for visit in (0, 1))
    assert {p.name: p.kind for p in first} == {p.name: p.kind for p in second}
    unlike = [cast(TalkConfig(helpers=20, trolls=0), RECORDED, [], 1, visit) for visit in (0, 1)]
    assert not {p.talks for p in unlike[0]} & {p.talks for p in unlike[1]}
    assert not {p.seed for p in first} & {p.seed for p in second}


def test_every_kind_of_troll_comes_and_no_name_tells() -> None:
    people = cast(CONFIG, RECORDED, ADVERSARIAL, 0)
    kinds = [p.kind for p in people]
    assert kinds.count("helper") == CONFIG.helpers and set(TROLLS) <= set(kinds)
    assert len(people) == CONFIG.helpers + CONFIG.trolls == len({p.name for p in people})
    assert not any(kind in p.name for p in people for kind in kinds)


def test_people_say_consecutive_messages_of_one_speaker() -> None:
    for someone in cast(CONFIG, RECORDED, ADVERSARIAL, 0):
        if someone.kind in ("helper", "troll", "lazy"):
            [lines] = someone.talks
            conversation = next(talk for talk in RECORDED if talk[0] == lines[0].text)
            assert [line.text for line in lines] == conversation[0:6:2]


def test_who_says_adversarial_messages() -> None:
    share: dict[str, list[bool]] = {}
    for someone in cast(TalkConfig(trolls=36, helpers=6), RECORDED, ADVERSARIAL, 0):
        said = [line for talk in someone.talks for line in talk]
        assert all(line.adversarial == line.text.startswith("adversarial") for line in said)
        share.setdefault(someone.kind, []).extend(line.adversarial for line in said)
    assert all(share["master"]) and all(share["gaslight"])
    assert not any(share["helper"] + share["troll"] + share["lazy"])
    assert any(share["safe"]) and not all(share["safe"]) and any(share["unsafe"]) and not all(share["unsafe"])


def test_helpers_err_at_the_stated_rate() -> None:
    assert ratings("helper", True) == pytest.approx(0.9, abs=0.03)
    assert ratings("helper", False, noise=0.0) == 0


def test_trolls_follow_their_kind_in_the_stated_share() -> None:
    flippers: tuple[Kind, ...] = ("troll", "master")
    for kind in flippers:
        assert ratings(kind, True, noise=0.0) == pytest.approx(0.2, abs=0.03)
    for kind in TROLLS[3:6:2]:  # safe, gaslight
        assert ratings(kind, False, noise=0.0) == pytest.approx(0.8, abs=0.03)
    assert ratings("unsafe", True, noise=0.0) == pytest.approx(0.2, abs=0.03)
    assert ratings("lazy", True, noise=0.0) == pytest.approx(0.2 + 0.8 / 2, abs=0.04)
    assert ratings("safe", False, corrupted=1.0) == 1


def test_thumbs_are_given_at_the_stated_rate() -> None:
    someone, rng = SimulatedPerson("x", "helper", (), 0), random.Random(0)
    given = [thumb(someone, True, TalkConfig(thumb_rate=0.25), rng) for _ in range(2000)]
    assert sum(t is not None for t in given) / 2000 == pytest.approx(0.25, abs=0.03)


def test_short_openers_are_skipped_and_nothing_to_say_is_an_error() -> None:
    greeting = [["hi", "hello", "how is the weather", "fine", "do you like rain", "no", "why is that", "so"]]
    people = cast(TalkConfig(helpers=1, trolls=0), greeting, [], 0)
    assert people[0].talks[0][0].text == "how is the weather"
    with pytest.raises(UserError, match="turns_per_conversation"):
        cast(TalkConfig(turns_per_conversation=9), greeting, [], 0)


def test_more_people_than_recorded_conversations_share_them() -> None:
    people = cast(TalkConfig(helpers=10, trolls=0), RECORDED[:3], [], 0)
    assert len({p.talks for p in people}) == 3 and len(people) == 10
