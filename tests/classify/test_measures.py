"""Measures against what can be counted by hand, and intervals against what they promise."""

import numpy as np
import pytest

from bb3x_ray.classify.measures import auroc, balanced_accuracy, calibration_error, interval, members


def test_auroc_counts_pairs_in_order() -> None:
    assert auroc(np.array([0.9, 0.8, 0.1]), np.array([1, 0, 0])) == 1.0
    assert auroc(np.array([0.5, 0.5]), np.array([1, 0])) == 0.5
    assert auroc(np.array([0.1, 0.9]), np.array([1, 0])) == 0.0
    assert auroc(np.array([0.1, 0.9]), np.array([1, 1])) == 0.5


def test_auroc_by_ranks_is_auroc_by_pairs() -> None:
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 9, 200) / 9, random.integers(0, 2, 200)
    up, down = scores[labels == 1][:, None], scores[labels == 0][None, :]
    assert auroc(scores, labels) == pytest.approx((up > down).mean() + (up == down).mean() / 2)


def test_balanced_accuracy_gives_both_classes_one_half() -> None:
    assert balanced_accuracy(np.array([0.9, 0.9, 0.9, 0.1]), np.array([1, 1, 0, 0])) == pytest.approx(0.75)


def test_calibration_error_is_the_gap_between_promise_and_share() -> None:
    labels = np.tile([1.0, 0.0], 500)
    assert calibration_error(np.full(1000, 0.8), labels) == pytest.approx(0.3)
    assert calibration_error(np.full(1000, 0.5), labels) == pytest.approx(0.0)


def test_a_model_that_means_what_it_says_has_a_small_calibration_error() -> None:
    random = np.random.default_rng(0)
    errors = []
    for _ in range(20):
        p = random.beta(4, 2, 1400)
        errors.append(calibration_error(p, (random.random(1400) < p).astype(float)))
    assert 0.02 < np.mean(errors) < 0.04


def test_groups_stay_together() -> None:
    own = members(["b", "a", "b"])
    assert [index.tolist() for index in own] == [[1], [0, 2]]


def test_examples_of_few_people_make_wide_intervals() -> None:
    random = np.random.default_rng(0)
    values = np.repeat(random.normal(size=20), 50)
    people = np.repeat([f"p{i}" for i in range(20)], 50).tolist()
    alone = [f"e{i}" for i in range(len(values))]
    wide = interval(lambda index: float(values[index].mean()), people, seed=0)
    narrow = interval(lambda index: float(values[index].mean()), alone, seed=0)
    assert wide.value == narrow.value and wide.low < wide.value < wide.high
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_a_difference_is_measured_on_the_same_people() -> None:
    random = np.random.default_rng(0)
    worse = random.normal(size=300)
    people = [f"p{i}" for i in range(300)]
    gain = interval(lambda index: float((worse[index] + 0.1).mean() - worse[index].mean()), people, seed=0)
    assert gain.low == pytest.approx(0.1) and gain.high == pytest.approx(0.1)
