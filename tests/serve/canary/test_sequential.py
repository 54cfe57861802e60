"""Boundaries with known error, decisions that do not depend on who looks when, and people, not thumbs."""

import dataclasses

import numpy as np
import pytest

from bb3x_ray.serve.canary.compare import Answers, Sums
from bb3x_ray.serve.canary.sequential import (
    GO_ON,
    PROMOTE,
    ROLLBACK,
    Rule,
    crossed,
    decide,
    drift,
    look_through,
    looks,
)

RULE = Rule()


def answers(
    up: tuple[float, float], size: int = 3000, runs: int = 200, seed: int = 0, each: int = 1
) -> Answers:
    """Half of the thumbs on each arm; every person gives `each`, all of them alike."""
    random = np.random.default_rng(seed)
    units = size // each
    candidate = np.broadcast_to(np.arange(units) % 2 == 1, (runs, units))
    opinion = random.random((runs, units)) < np.where(candidate, up[1], up[0])
    unit = np.broadcast_to(np.arange(size) // each, (runs, size))
    value = np.take_along_axis(opinion, unit, 1).astype(float)
    return Answers(unit, value, np.zeros((runs, size, 0)), np.ones((runs, units)), candidate)


def test_the_arithmetic_of_the_docstring() -> None:
    assert crossed(3.9, 2.326) == pytest.approx(0.96, abs=0.005)
    assert crossed(drift(0.02, 0.96), 2.326348) == pytest.approx(0.96, abs=1e-6)
    assert crossed(0, 2.326348) == pytest.approx(0.02, abs=1e-5)
    # 750 thumbs an arm, 60 % against 50 %, are what the fast stage takes
    assert RULE.fast == pytest.approx(1 / (0.24 / 750 + 0.25 / 750), rel=0.02)


def test_a_brownian_motion_crosses_as_often_as_is_said() -> None:
    """The boundaries against what they are derived for: no thumbs, no estimated variance."""
    random = np.random.default_rng(0)
    steps = 30
    information = np.tile(np.linspace(RULE.fast / steps, RULE.fast, steps), (20_000, 1))
    noise = random.normal(0, np.sqrt(RULE.fast / steps), information.shape).cumsum(1)
    for worse, low, high in ((0.0, 0.013, 0.020), (0.10, 0.945, 0.98)):
        made = decide(noise / information - worse, information, RULE)
        first = made[np.arange(len(made)), np.where((made > 0).any(1), (made > 0).argmax(1), 0)]
        assert low < (first == ROLLBACK).mean() < high


def test_a_worse_canary_is_rolled_back_a_better_one_promoted() -> None:
    for up, expected in (((0.6, 0.4), ROLLBACK), ((0.5, 0.7), PROMOTE)):
        decision, after = look_through(answers(up), RULE).first()
        assert (decision == expected).mean() > 0.99 and np.median(after) < 1000


def test_it_always_comes_to_an_end() -> None:
    information = np.full((1, 1), RULE.slow)
    for difference in np.linspace(-0.2, 0.2, 401):
        assert decide(np.array([[difference]]), information, RULE)[0, 0] != GO_ON


def test_nothing_is_decided_by_few_people() -> None:
    few = answers((1.0, 0.0), size=58, runs=1)
    assert look_through(few, dataclasses.replace(RULE, every=2)).decision.max() == GO_ON


def test_a_hundred_thumbs_of_one_person_are_no_hundred_people() -> None:
    """Prolific people who all agree: as many thumbs, a tenth of the information."""
    many, few = (Sums(a) for a in (answers((0.6, 0.5)), answers((0.6, 0.5), each=30)))
    for sums in (many, few):
        sums.take(3000)
    information = [sums.difference(30)[1].mean() for sums in (many, few)]
    assert information[0] / information[1] == pytest.approx(30, rel=0.15)


def test_one_prolific_person_moves_little() -> None:
    calm = answers((0.6, 0.6), size=1000, runs=1)
    unit = np.concatenate([calm.unit, np.full((1, 500), 1)], 1)  # person 1 presses down 500 times more
    angry = dataclasses.replace(
        calm,
        unit=unit,
        value=np.concatenate([calm.value, np.zeros((1, 500))], 1),
        controls=np.zeros((1, 1500, 0)),
    )
    found = []
    for a in (calm, angry):
        sums = Sums(a)
        sums.take(a.size)
        found.append(sums.difference(30)[0][0])
    assert abs(found[1] - found[0]) < 0.02


def test_distrusted_people_have_no_part_in_it() -> None:
    calm = answers((0.6, 0.6), size=1000, runs=1)
    trolls = np.arange(1000) % 10 == 1
    value = np.where(trolls[calm.unit], 0.0, calm.value)
    pressed = dataclasses.replace(calm, value=value)
    ignored = dataclasses.replace(pressed, weight=np.where(trolls, 0.0, 1.0)[None])
    differences = []
    for a in (calm, pressed, ignored):
        sums = Sums(a)
        sums.take(1000)
        differences.append(sums.difference(30)[0][0])
    assert differences[1] < differences[0] - 0.08 and abs(differences[2] - differences[0]) < 0.04


def test_a_control_makes_the_difference_sharper_and_does_not_move_it() -> None:
    random = np.random.default_rng(1)
    plain = answers((0.6, 0.5), runs=300, size=1500)
    noise = random.normal(0, 0.3, plain.value.shape)
    expected = np.where(plain.candidate[:, plain.unit[0]], 0.5, 0.6)
    known = dataclasses.replace(plain, controls=(plain.value - expected + noise)[:, :, None])
    found = []
    for a in (plain, known):
        sums = Sums(a)
        sums.take(1500)
        found.append(sums.difference(30))
    assert found[1][1].mean() > 2 * found[0][1].mean()
    assert found[1][0].mean() == pytest.approx(-0.1, abs=0.01)


def test_whoever_asks_later_gets_the_decision_that_was_made_then() -> None:
    whole = answers((0.6, 0.45), runs=1)
    (decision,), (after,) = look_through(whole, RULE).first()
    assert decision == ROLLBACK and after < whole.size
    for size in (after - 1, after, after + 37, whole.size):
        part = dataclasses.replace(
            whole, unit=whole.unit[:, :size], value=whole.value[:, :size], controls=whole.controls[:, :size]
        )
        (now,), (when,) = look_through(part, RULE).first()
        assert (now, when) == ((ROLLBACK, after) if size >= after else (GO_ON, when))


def test_looks_are_the_same_whoever_looks() -> None:
    assert looks(99, 100) == [] and looks(250, 100) == [100, 200]
    assert looks(10_000, 100)[: len(looks(5000, 100))] == looks(5000, 100)
    assert len(looks(100_000, 100)) < 150


def test_no_thumbs_no_look() -> None:
    nothing = look_through(answers((0.5, 0.5), size=0, runs=1), RULE)
    assert nothing.decision.shape == (1, 0)
