"""Trees find what no sum of columns says, respect weights, and ask for enough evidence."""

import numpy as np
import pytest

from bb3x_ray.classify.boosted_trees import BoostedTrees
from bb3x_ray.classify.measures import auroc


def either_or(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).random((n, 5)).astype(np.float32)
    return x, ((x[:, 0] > 0.5) != (x[:, 3] > 0.5)).astype(float)


def test_they_learn_an_either_or_that_no_sum_can() -> None:
    (x, y), (x_new, y_new) = either_or(600, 0), either_or(300, 1)
    trees = BoostedTrees.fit(x, y, np.ones(600), np.zeros(600), trees=80)
    assert auroc(trees.logits(x_new), y_new) > 0.95


def test_they_start_from_what_is_known_already() -> None:
    x, y = either_or(400, 0)
    known = (2 * y - 1) * 8
    trees = BoostedTrees.fit(x, y, np.ones(400), known)
    assert np.abs(trees.logits(x)).max() < 0.2


def test_an_example_of_weight_two_is_two_examples() -> None:
    x, y = either_or(200, 0)
    w = np.where(np.arange(200) < 100, 2.0, 1.0)
    twice = np.concatenate([np.arange(200), np.arange(100)])
    # Few values a column: where to split does not depend on how often a row is there.
    x = np.round(x, 1)
    heavy = BoostedTrees.fit(x, y, w, np.zeros(200))
    double = BoostedTrees.fit(x[twice], y[twice], np.ones(300), np.zeros(300))
    np.testing.assert_allclose(heavy.logits(x), double.logits(x), atol=1e-9)


def test_few_examples_ask_no_questions() -> None:
    x, y = either_or(30, 0)
    trees = BoostedTrees.fit(x, y, np.ones(30), np.zeros(30))
    assert np.isinf(trees.thresholds).all()
    assert np.ptp(trees.logits(x)) == 0


def test_the_same_input_gives_the_same_trees() -> None:
    x, y = either_or(300, 0)
    one, two = (BoostedTrees.fit(x, y, np.ones(300), np.zeros(300)) for _ in range(2))
    np.testing.assert_array_equal(one.logits(x), two.logits(x))


def test_no_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        BoostedTrees.fit(np.ones((3, 1), np.float32), np.ones(3), np.zeros(3), np.zeros(3))
