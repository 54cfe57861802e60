"""The canary's benchmark simulates what it says, and its cases are in order."""

import numpy as np
import pytest

from benchmarks.canary import CASES, Trolls, interval, simulate


def share_up(answers, candidate: bool) -> float:  # type: ignore[no-untyped-def]
    arm = np.take_along_axis(answers.candidate, answers.unit, 1) == candidate
    return float(answers.value[arm].mean())


def test_helpers_press_up_as_often_as_is_said() -> None:
    answers = simulate(20, 0.10, None, 2, 750, seed=1)
    assert answers.value.shape == (20, 1500)
    assert share_up(answers, False) == pytest.approx(0.60, abs=0.02)
    assert share_up(answers, True) == pytest.approx(0.50, abs=0.02)
    thumbs = np.bincount(answers.unit[0])
    assert 1.7 < thumbs[thumbs > 0].mean() < 2.3


def test_a_fifth_of_the_thumbs_are_the_candidates() -> None:
    answers = simulate(3, 0.0, None, 5, 100, seed=1)
    arm = np.take_along_axis(answers.candidate, answers.unit, 1)
    assert (arm.sum(1) == 100).all() and arm.shape == (3, 500)


def test_trolls_who_were_seen_to_troll_are_trusted_less() -> None:
    trolls = Trolls("always down", "honest", "always down", (0.0, 1.0))
    answers = simulate(5, 0.0, trolls, 2, 200, seed=1)
    given = np.zeros_like(answers.candidate)
    np.put_along_axis(given, answers.unit, True, 1)
    trust = [answers.weight[given & (answers.candidate == arm)].mean() for arm in (False, True)]
    assert trust[0] > 0.75 and trust[1] < 0.2
    assert share_up(answers, True) == 0 and share_up(answers, False) > 0.5


def test_new_accounts_do_not_count() -> None:
    answers = simulate(3, 0.0, Trolls("", "honest", "always down", (0.0, 1.0)), 2, 100, seed=1)
    given = np.zeros_like(answers.candidate)
    np.put_along_axis(given, answers.unit, True, 1)
    assert (answers.weight[given & answers.candidate] == 0).all()


def test_the_goals_of_the_issue_are_among_the_cases() -> None:
    goals = [case.goal for case in CASES if case.goal is not None]
    assert goals[:2] == [0.95, -0.025] and set(goals[2:]) == {-0.04}
    low, high = interval(0.025, 1000)
    assert low < 0.025 < high and high - low < 0.025
