"""The published methods do what their formulas say, on numbers made by hand."""

import numpy as np
import pytest

from bb3x_ray.config import TrustConfig
from bb3x_ray.reward.trust.confusion import Population, beyond_chance, level_of, observe
from bb3x_ray.reward.trust.folds import Thumbs
from bb3x_ray.reward.trust.methods import METHODS, Cleaned, by_errors, clean, three_stage

# Three people. ada is right twice, bob wrong twice, eve wrong once in three.
LABEL = np.array([1, 0, 1, 0, 1, 1, 0])
PERSON = np.array([0, 0, 1, 1, 2, 2, 2])
P = np.array([0.9, 0.2, 0.1, 0.8, 0.7, 0.4, 0.1])  # e = .1 .2 | .9 .8 | .3 .6 .1
THUMBS = Thumbs(LABEL, PERSON, np.array([0, 1, 2, 0, 1, 2, 0]), 3)


def config(method: str, **more: float) -> TrustConfig:
    return TrustConfig().model_copy(update={"method": method, **more})


def by(method: str, **more: float) -> Cleaned:
    return by_errors(THUMBS, P, config(method, **more))


def test_removal_flip_and_purr_by_hand() -> None:
    assert by("example_removal").weight.tolist() == [1, 1, 0, 0, 1, 0, 1]
    flipped = by("example_flip")
    assert flipped.weight.tolist() == [1] * 7 and flipped.label.tolist() == [1, 0, 0, 1, 1, 0, 0]
    assert by("user_removal").weight.tolist() == [1, 1, 0, 0, 1, 1, 1]
    assert by("user_removal").distrusted.tolist() == [False, True, False]
    assert by("user_example").weight.tolist() == [1, 1, 0, 0, 1, 0, 1]
    assert by("purr").weight.tolist() == [1, 1, 0, 0, 1, 1, 1]
    # With τ = .3, eve (mean .33) is distrusted: PURR drops her one bad thumb, user removal all three.
    assert by("purr", threshold=0.7).weight.tolist() == [1, 1, 0, 0, 1, 0, 1]
    assert by("user_removal", threshold=0.7).weight.tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_soft_purr_adds_a_persons_other_errors() -> None:
    # eve's second thumb: (.6 + .5 · (.3 + .1)) / (1 + .5 · 2) = .4; alone it would be dropped.
    kept = by("soft_purr")
    assert kept.weight.tolist() == [1, 1, 0, 0, 1, 1, 1]
    soft = by("soft_purr_weights").weight
    np.testing.assert_allclose(soft[5], 1 - 0.4 / 0.5)
    np.testing.assert_allclose(soft[0], 1 - (0.1 + 0.5 * 0.2) / 1.5 / 0.5)
    assert soft[2] == soft[3] == 0
    np.testing.assert_array_equal(by("soft_purr", alpha=0.0).weight, by("example_removal").weight)


def test_few_thumbs_and_the_past_are_counted() -> None:
    assert not by("user_removal", min_thumbs=3).distrusted.any()
    bobs_past = np.zeros((3, 24))
    bobs_past[1, 12 + level_of(np.array([0.98]))[0]] = 6  # six thumbs up that the models called good
    found = by_errors(THUMBS, P, config("user_removal"), bobs_past)
    assert not found.distrusted.any() and found.trust[1] > by("user_removal").trust[1]


def knows(train: np.ndarray, labels: np.ndarray, weights: np.ndarray, test: np.ndarray) -> np.ndarray:
    return np.concatenate([P, [0.9, 0.9, 0.1]])[test]


def test_three_stages_clean_the_validation_set_too() -> None:
    valid = Thumbs(np.array([1, 0, 0]), np.array([0, 1, 1]), np.array([0, 1, 2]), 2)
    cleaned, kept = three_stage(THUMBS, valid, knows, config("three_stage"))
    assert kept.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(cleaned.weight, by("user_example").weight)

    asked: list[list[int]] = []

    def spy(train: np.ndarray, labels: np.ndarray, weights: np.ndarray, test: np.ndarray) -> np.ndarray:
        asked.append(train.tolist())
        return knows(train, labels, weights, test)

    three_stage(THUMBS, valid, spy, config("three_stage"))
    # Folds of all thumbs; what is left of them; folds of that with what is left of the validation set.
    assert asked[3] == [0, 1, 4, 6] and all({7, 9} <= set(train) and 8 not in train for train in asked[4:])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_back_weights_labels_and_trust(method: str) -> None:
    found = clean(THUMBS, knows, config(method))
    assert found.weight.shape == found.label.shape == found.p.shape == (7,)
    assert found.trust.shape == found.distrusted.shape == (3,) and found.right.shape == (3, 2)
    for values in (found.weight, found.label, found.trust, found.right):
        assert ((values >= 0) & (values <= 1)).all()
    with pytest.raises(ValueError, match="no thumbs"):
        clean(Thumbs(LABEL[:0], PERSON[:0], PERSON[:0], 0), knows, config(method))


def test_agreement_beyond_chance_is_nothing_for_one_thumb_and_less_for_turned_ones() -> None:
    rng = np.random.default_rng(0)
    good = rng.random(400) < 0.5
    person = np.repeat(np.arange(4), 100)
    label = np.select([person == 0, person == 1, person == 2], [good, ~good, True], rng.random(400) < 0.5)
    thumbs = Thumbs(label.astype(int), person, person, 4)
    helper, turned, always, coin = beyond_chance(observe(thumbs, np.where(good, 0.85, 0.15)))
    assert helper == 1 and turned == always < coin + 0.2 and coin < 0.3


def test_what_an_ordinary_helper_is_like_is_learned_from_the_people() -> None:
    """Who errs in a quarter of thumbs is distrusted among people who never err, not among the like."""
    rng = np.random.default_rng(1)

    def crowd(errs: np.ndarray) -> np.ndarray:
        person = np.repeat(np.arange(len(errs)), 30)
        good = rng.random(len(person)) < 0.5
        label = good ^ (rng.random(len(person)) < errs[person])
        return observe(Thumbs(label.astype(int), person, person, len(errs)), np.where(good, 0.97, 0.03))

    assert Population.of(crowd(np.full(60, 0.25))).distrusted.mean() < 0.05
    among_the_careful = Population.of(crowd(np.repeat([0.02, 0.45], [54, 6])))
    assert among_the_careful.distrusted.tolist() == [False] * 54 + [True] * 6


def test_three_thumbs_down_are_no_evidence_where_most_thumbs_are_down() -> None:
    """The prior that people teach may make many of them doubtful; distrust takes what they did themselves."""
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(72), 3)
    good = rng.random(len(person)) < 0.25
    label = good ^ (rng.random(len(person)) < 0.1)
    weak = np.clip(np.where(good, 0.6, 0.3) + rng.normal(0, 0.3, len(person)), 0.02, 0.98)
    counts = observe(Thumbs(label.astype(int), person, person, 72), weak)
    assert Population.of(counts).distrusted.sum() > 5
    assert not Population.of(counts, evidence=10).distrusted.any()
    turned = observe(Thumbs((~good).astype(int), person, person, 72), np.where(good, 0.97, 0.03))[:5]
    helpers = observe(Thumbs(good.astype(int), person, person, 72), np.where(good, 0.97, 0.03))[5:]
    found = Population.of(np.concatenate([turned, helpers]), evidence=10)
    assert found.distrusted.tolist() == [True] * 5 + [False] * 67


def test_one_counts_matrix_gives_the_same_trust_in_any_order() -> None:
    counts = np.random.default_rng(0).poisson(0.5, (50, 24)).astype(float)
    order = np.random.default_rng(1).permutation(50)
    whole, mixed = Population.of(counts), Population.of(counts[order])
    np.testing.assert_allclose(mixed.trust, whole.trust[order])
