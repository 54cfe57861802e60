import numpy as np
import pytest

from bb3x_ray.evaluate.compare import Floats, Judged, draws, mean_interval, paired_difference
from bb3x_ray.schemas.learning import Interval

KINDS = np.array(["standard"] * 8 + ["adversarial"] * 4)


def test_equal_sides_give_a_difference_of_zero_width() -> None:
    side = np.array([1.0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1])
    assert paired_difference(side, side, KINDS, 500, 0) == Interval(0.0, 0.0, 0.0)
    assert mean_interval(np.ones(12), KINDS, 500, 0) == Interval(1.0, 1.0, 1.0)


def test_strata_keep_their_size() -> None:
    # Every standard prompt gains, no adversarial one does: only the fixed sizes of the strata matter.
    gain = (KINDS == "standard").astype(float)
    third = 8 / 12
    interval = mean_interval(gain, KINDS, 500, 0)
    assert (interval.value, interval.low, interval.high) == pytest.approx((third, third, third))
    unstratified = mean_interval(gain, np.full(12, "all"), 500, 0)
    assert unstratified.low < 0.5 < third < unstratified.high


def test_pairs_are_drawn_together() -> None:
    # a is always one above b, whatever prompts are drawn; unpaired draws would spread.
    b = np.arange(12.0)
    assert paired_difference(b + 1, b, KINDS, 500, 0) == Interval(1.0, 1.0, 1.0)


def test_two_values_by_hand() -> None:
    # Means of two draws from {0, 1}: 0 with 1/4, 1/2 with 1/2, 1 with 1/4, so the bounds are 0 and 1.
    assert mean_interval(np.array([0.0, 1.0]), np.array(["x", "x"]), 4000, 0) == Interval(0.5, 0.0, 1.0)
    means = np.array([0.0, 1.0])[draws(np.array(["x", "x"]), 4000, np.random.default_rng(0))].mean(axis=1)
    assert np.mean(means == 0.5) == pytest.approx(0.5, abs=0.03)


def test_draws_stay_in_their_stratum() -> None:
    drawn = draws(KINDS, 50, np.random.default_rng(0))
    assert drawn.shape == (50, 12)
    assert (drawn[:, :4] >= 8).all() and (drawn[:, 4:] < 8).all()


def test_the_seed_decides() -> None:
    values = np.random.default_rng(3).random(12)
    assert mean_interval(values, KINDS, 300, 1) == mean_interval(values, KINDS, 300, 1)
    assert mean_interval(values, KINDS, 300, 1) != mean_interval(values, KINDS, 300, 2)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    kinds = np.array(["standard"] * 80 + ["adversarial"] * 40)
    a_good, b_good = np.where(kinds == "standard", 0.6, 0.3), np.where(kinds == "standard", 0.4, 0.25)
    truth = float((a_good - b_good).mean())
    covered = 0
    for trial in range(300):
        a = (rng.random(120) < a_good).astype(float)
        b = (rng.random(120) < b_good).astype(float)
        interval = paired_difference(a, b, kinds, 300, trial)
        covered += interval.low <= truth <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def judged(good: Floats) -> Judged:
    n = len(good)
    return Judged(good, np.zeros(n), np.zeros(n, bool), np.ones(n, np.int64))


def test_flags_and_checks() -> None:
    assert judged(np.array([0.49, 0.5, 1.0])).is_good.tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="not a number"):
        judged(np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match="one length"):
        Judged(np.zeros(2), np.zeros(3), np.zeros(2, bool), np.ones(2, np.int64))
    with pytest.raises(ValueError, match="same prompts"):
        paired_difference(np.zeros(2), np.zeros(3), np.array(["x", "x"]), 100, 0)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval(np.zeros(0), np.zeros(0, np.str_), 100, 0)
