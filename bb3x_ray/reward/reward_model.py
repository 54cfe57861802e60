"""The reward model: P(a trusted person likes this reply), learned from the thumbs of trusted people."""

import hashlib
from collections.abc import Sequence

import numpy as np

from bb3x_ray.classify.bag_of_words import BagOfWords
from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pair_logistic import Calibrations, PairLogistic, calibrate, cross_fit, features
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.reward_report import measured
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import Trust
from bb3x_ray.schemas.errors import UserError

MIN_THUMBS = 8
FOLDS = 4


def train_reward(
    signals: Sequence[Signal],
    trust: Trust,
    encoder: Encoder,
    config: RewardConfig,
    seed: int,
    weak: Sequence[Pair] = (),
) -> tuple[PairLogistic, dict[str, float]]:
    """A classifier of trusted thumbs, with hindsight and without, and a report on people whom its fold models
    did not see (see reward_report).

    Thumbs on replies that the length limit broke off are left out where there are enough others: they say
    that nobody likes half a sentence, and of what the model said, nothing.

    weak   pairs of little weight to learn from as well (see signals.weak_pairs); never validated on

    Raises UserError for fewer than 8 trusted thumbs, or when they all point one way.
    """
    trusted = _whole([s for s in signals if s.person not in trust.distrusted])
    _check(trusted)
    pairs = [Pair(s.context, s.reply, float(s.label), after=s.after) for s in trusted] + list(weak)
    x = features(pairs, encoder)  # once: embedding costs far more than fitting
    report, calibrations = _validate(trusted, pairs, x, config.l2, seed)
    model = PairLogistic.fit_rows(x, pairs, encoder, config.l2)
    model.calibrations, model.report = calibrations, report
    return model, report


def _whole(trusted: list[Signal]) -> list[Signal]:
    whole = [s for s in trusted if not s.cut_off]
    up = sum(s.label for s in whole)
    return whole if len(whole) >= MIN_THUMBS and 0 < up < len(whole) else trusted


def _check(trusted: Sequence[Signal]) -> None:
    up = sum(s.label for s in trusted)
    if len(trusted) < MIN_THUMBS:
        raise UserError(
            f"only {len(trusted)} thumbs of trusted people, {MIN_THUMBS} are needed to train a reward model: "
            "let more people talk (talk.helpers, talk.thumb_rate), or ingest rated conversations."
        )
    if up in (0, len(trusted)):
        raise UserError(
            f"all {len(trusted)} thumbs of trusted people point {'up' if up else 'down'}, so there is "
            "nothing to tell apart: let more people talk (talk.helpers), or ingest rated conversations."
        )


def _validate(
    signals: Sequence[Signal], pairs: Sequence[Pair], x: np.ndarray, l2: float, seed: int
) -> tuple[dict[str, float], Calibrations]:
    """(report, calibrations) by folds over people: every thumb is predicted by a model that never saw its
    person. The first of `pairs` are the signals', the others are weak."""
    count = len(signals)
    fold = np.full(len(pairs), -1)
    fold[:count] = _person_folds(signals, seed)
    labels, weights = np.array([pair.label for pair in pairs]), np.array([pair.weight for pair in pairs])
    late, fresh = (logits[:count] for logits in cross_fit(x, labels, weights, fold, l2))
    labels, weights = labels[:count], weights[:count]
    calibrations = calibrate(late, fresh, labels, weights)
    views = {"": calibrations.hindsight(late), "_fresh": calibrations.fresh(fresh)}
    report = measured(signals, views, _words(pairs, fold)[:count], seed)
    report["weak_pairs"] = float(len(pairs) - count)
    for name, one in (("hindsight", calibrations.hindsight), ("fresh", calibrations.fresh)):
        report |= {f"temperature_{name}": one.temperature, f"shift_{name}": one.shift}
    return report, calibrations


def _words(pairs: Sequence[Pair], fold: np.ndarray) -> np.ndarray:
    """p [N] of a bag of words on the same folds: what a better model must beat."""
    p = np.full(len(pairs), np.nan)
    for held_out in np.unique(fold[fold >= 0]):
        test, rest = np.flatnonzero(fold == held_out).tolist(), np.flatnonzero(fold != held_out).tolist()
        if any(fold[rest] >= 0):
            p[test] = BagOfWords.fit([pairs[i] for i in rest]).predict([pairs[i] for i in test])
    return p


def _person_folds(signals: Sequence[Signal], seed: int) -> np.ndarray:
    """[N] fold of each signal; a person is in one fold, and folds have about equally many people."""
    people = sorted(
        {s.person for s in signals}, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest()
    )
    home = {person: place % FOLDS for place, person in enumerate(people)}
    return np.array([home[s.person] for s in signals])
