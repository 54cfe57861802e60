"""Helpers are told from those who flip their thumbs, and few thumbs decide nothing."""

from collections.abc import Sequence

import numpy as np
import pytest

from bb3x_ray.classify.pairs import auroc
from bb3x_ray.config import TrustConfig
from bb3x_ray.reward.fold_judge import EncoderFoldJudge
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import estimate_trust, fold_errors, fold_of, thumb_weight
from tests.reward.make import LetterEncoder, crowd

CONFIG = TrustConfig()


def knowing(train: Sequence[Signal], weights: np.ndarray, test: Sequence[Signal]) -> np.ndarray:
    """A judge that knows what is good in `crowd`."""
    return np.array([0.9 if s.reply.startswith("I ") else 0.1 for s in test])


def clueless(train: Sequence[Signal], weights: np.ndarray, test: Sequence[Signal]) -> np.ndarray:
    return np.array([1.0 - s.label for s in test]) * 0.6 + 0.2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trust_separates_helpers_from_flippers_given_enough_thumbs(seed: int) -> None:
    signals = crowd(20, 6, thumbs=8, seed=seed)
    trust = estimate_trust(signals, EncoderFoldJudge(LetterEncoder(), signals), CONFIG)
    values = np.array(list(trust.trust.values()))
    helps = np.array([float(p.startswith("helper")) for p in trust.trust])
    assert auroc(values, helps) > 0.95
    assert sum(p.startswith("flipper") for p in trust.distrusted) >= 5
    assert sum(p.startswith("helper") for p in trust.distrusted) <= 1


def test_no_thumb_is_judged_by_a_model_that_saw_its_text() -> None:
    signals = crowd(6, 2, thumbs=4, seed=0) * 2  # every text twice: both copies are in one fold
    seen: list[bool] = []

    def spy(train: Sequence[Signal], weights: np.ndarray, test: Sequence[Signal]) -> np.ndarray:
        seen.append(bool({s.reply for s in train} & {s.reply for s in test}))
        assert len(weights) == len(train)
        return np.full(len(test), 0.5)

    fold_errors(signals, np.ones(len(signals)), spy, folds=3)
    assert seen and not any(seen)
    assert {fold_of(s, 3) for s in signals} == {0, 1, 2}


def test_people_with_one_thumb_have_the_mean_and_are_not_distrusted() -> None:
    signals = [*crowd(10, 0, thumbs=5, seed=1), *crowd(0, 3, thumbs=1, seed=2)]
    signals += [Signal("x", "x", "once", "What about it?", "I like my x.", 0)]
    trust = estimate_trust(signals, knowing, CONFIG)
    assert "once" not in trust.distrusted
    assert trust.trust["once"] == pytest.approx(trust.agreement)


def test_few_thumbs_are_shrunk_to_the_mean_and_many_are_not() -> None:
    helpers = crowd(10, 0, 5, seed=1, noise=0.0)
    few = estimate_trust([*helpers, *crowd(0, 1, 2, seed=2, noise=0.0)], knowing, CONFIG)
    many = estimate_trust([*helpers, *crowd(0, 1, 20, seed=2, noise=0.0)], knowing, CONFIG)
    assert 0.1 < many.trust["flipper-0"] < 0.2 < 0.4 < few.trust["flipper-0"] < few.agreement


def test_nobody_is_distrusted_when_the_fold_models_know_nothing() -> None:
    trust = estimate_trust(crowd(10, 3, thumbs=5, seed=3), clueless, CONFIG)
    assert trust.agreement < 0.5 and trust.distrusted == frozenset()


def test_the_second_pass_hears_trolls_softly() -> None:
    heard: list[dict[str, float]] = []

    def listening(train: Sequence[Signal], weights: np.ndarray, test: Sequence[Signal]) -> np.ndarray:
        heard.append(dict(zip((s.person for s in train), weights, strict=True)))
        return knowing(train, weights, test)

    estimate_trust(crowd(10, 3, thumbs=8, seed=4), listening, CONFIG)
    assert set(heard[0].values()) == {1.0}
    helpers = [w for who, w in heard[-1].items() if who.startswith("helper")]
    flippers = [w for who, w in heard[-1].items() if who.startswith("flipper")]
    assert min(helpers) > max(flippers)
    assert thumb_weight(0.2) > 0


def test_no_thumbs_no_trust() -> None:
    trust = estimate_trust([], knowing, CONFIG)
    assert trust.trust == {} and trust.metrics()["people"] == 0


def test_metrics_count_what_was_left_out() -> None:
    metrics = estimate_trust(crowd(10, 3, thumbs=8, seed=4), knowing, CONFIG).metrics()
    assert metrics["people_distrusted"] == 3 and metrics["thumbs_left_out"] == 24 and metrics["thumbs"] == 104
