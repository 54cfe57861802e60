"""From evidence to P(good): by hand without data, and learned where annotations say how often thumbs err."""

import random

import numpy as np
import pytest

from bb3x_ray.reward.evidence import Evidence
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.reward.signal_model import START, THUMB, SignalModel, fit_signals
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import Trust


def evidence(number: int = 0, **about: object) -> Evidence:
    return Evidence("c", f"m{number}", f"p{number}", "Hi", "Hello", "", **about)  # type: ignore[arg-type]


def test_a_thumb_alone_is_right_in_85_of_100_cases() -> None:
    up, down = evidence(thumb=1), evidence(thumb=-1)
    assert SignalModel().good([up, down], Reliability()) == pytest.approx([0.85, 0.15])


def test_who_is_not_reliable_says_nothing_and_who_is_half_so_half_as_much() -> None:
    down = [evidence(n, thumb=-1, reasons=("rude",), explained=True, correction="No.") for n in range(3)]
    none, half, whole = SignalModel().log_odds(down, Reliability({"p0": 0.0, "p1": 0.5}, {}))
    assert none == 0 and half == pytest.approx(whole / 2)
    weighed = SignalModel().log_odds(down[2:], Reliability({}, {"m2": 0.25}))
    assert weighed == pytest.approx(whole / 4)
    assert whole == pytest.approx(-THUMB - 0.3 - 1.0)


def test_annotators_outweigh_a_thumb_and_can_be_left_out() -> None:
    one = evidence(thumb=1, annotations=("nonsensical", "nonsensical"))
    assert SignalModel().good([one], Reliability()) < 0.2
    assert SignalModel().good([one], Reliability(), annotations=False) == pytest.approx(0.85)


def test_reactions_can_be_left_out() -> None:
    one = evidence(thumb=1, reactions=frozenset({"complains"}))
    model = SignalModel()
    assert model.log_odds([one], Reliability(), reactions=False) == pytest.approx(THUMB)
    assert model.log_odds([one], Reliability()) == pytest.approx(THUMB + START["complains"])


def test_with_little_to_learn_from_it_stays_as_it_starts() -> None:
    assert fit_signals([evidence(thumb=1)] * 5, Reliability()).weights == pytest.approx(START)


def annotated(count: int, seed: int) -> list[Evidence]:
    """Replies of which 80 % are good; a thumb up is right 90 % of the time and down for `spam` half of it."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        good = rng.random() < 0.8
        spam = rng.random() < 0.3
        thumb = rng.choice([1, -1]) if spam else (1 if good == (rng.random() < 0.9) else -1)
        label = "good" if good else "other"
        reasons = ("spam",) if spam and thumb < 0 else ()
        found.append(evidence(number, thumb=thumb, reasons=reasons, annotations=(label,)))
    return found


def test_annotations_teach_how_often_thumbs_err_reason_by_reason() -> None:
    model = fit_signals(annotated(6000, 0), Reliability())
    assert model.counts == {"annotated": 6000, "thumbs": 6000}
    assert model.weights["down, spam"] > 0.8  # a thumb down for spam says much less
    held_out = annotated(6000, 1)
    p = model.good(held_out, Reliability(), annotations=False)
    good = np.array([e.share_good for e in held_out])
    for low, high in ((0.0, 0.5), (0.5, 0.8), (0.8, 1.0)):  # what it calls 70 % likely is so in 70 %
        inside = (p >= low) & (p < high)
        assert abs(p[inside].mean() - good[inside].mean()) < 0.05


def test_reactions_are_learned_from_thumbs() -> None:
    complaint = frozenset({"complains"})
    bad = [evidence(n, thumb=-1, reactions=complaint) for n in range(100)]
    fine = [evidence(100 + n, thumb=1) for n in range(100)]
    model = fit_signals([*bad, *fine], Reliability())
    assert model.weights["complains"] < START["complains"]
    assert model.weights["up"] == START["up"] and model.bias == 0


def test_it_survives_json() -> None:
    model = fit_signals(annotated(200, 0), Reliability())
    assert SignalModel.from_dict(model.to_dict()) == model


def test_trust_becomes_reliability() -> None:
    signals = [Signal("c", f"m{n}", f"p{n}", "Hi", "Hello", 1) for n in range(4)]
    trust = Trust(
        {"p0": 0.9, "p1": 0.9, "p2": 0.45, "p3": 0.1},
        frozenset({"p3"}),
        0.7,
        {},
        weights={"m1": 0.25},
        labels={"m2": 0.0},
    )
    reliability = Reliability.of(trust, signals)
    assert reliability("p0", "m0") == reliability("somebody", "new") == 1
    assert reliability("p1", "m1") == 0.25 and reliability("p3", "m3") == reliability("p3", "new") == 0
    assert reliability("p2", "new") == 0.5  # beside the typical person
    assert reliability("p2", "m2") < 0  # taken for the opposite of what was pressed
    assert SignalModel().good([evidence(2, thumb=1)], reliability) < 0.5


def test_who_is_doubted_is_discounted_once() -> None:
    signals = [Signal("c", f"m{n}", f"p{n}", "Hi", "Hello", 1) for n in range(3)]
    trust = Trust({"p0": 0.95, "p1": 0.95, "p2": 0.4}, frozenset(), 0.7, {}, weights={"m2": 0.4})
    assert Reliability.of(trust, signals)("p2", "m2") == pytest.approx(0.4)


def test_accounts_of_a_group_have_a_part_of_one_person_in_thumbs_and_in_all_else() -> None:
    group = frozenset({"p0", "p1", "p2", "p3"})
    signals = [Signal("c", f"m{n}", f"p{n}", "Hi", "Hello", 1) for n in range(5)]
    weights = {f"m{n}": 0.25 for n in range(4)}
    trust = Trust({f"p{n}": 0.9 for n in range(5)}, frozenset(), 0.7, {}, weights=weights, groups=(group,))
    reliability = Reliability.of(trust, signals)
    assert reliability("p0", "m0") == reliability("p0", "no thumb") == 0.25
    assert reliability("p4", "m4") == 1


def test_trolls_do_not_tell_what_is_typical() -> None:
    people = {"p0": 0.9, "p1": 0.9, "p2": 0.45, **{f"troll-{n}": 0.01 for n in range(9)}}
    trust = Trust(people, frozenset(p for p in people if p.startswith("troll")), 0.7, {})
    reliability = Reliability.of(trust, [])
    assert [reliability(f"p{n}", "m") for n in range(3)] == pytest.approx([1, 1, 0.5])
    assert Reliability.of(Trust({"p0": 0.0}, frozenset({"p0"}), 0.7, {}), [])("p0", "m") == 0
