"""The reward model: P(a trusted person likes this reply), from what trusted people said of replies."""

import hashlib
from collections.abc import Sequence

import numpy as np

from bb3x_ray.classify.bag_of_words import BagOfWords
from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pair_logistic import PairLogistic, calibrate, cross_fit, features
from bb3x_ray.classify.pair_model import PairModel
from bb3x_ray.classify.pair_transformer import PairTransformer, Schedule, Share
from bb3x_ray.classify.pairs import without_hindsight
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.examples import Example
from bb3x_ray.reward.reward_report import measured
from bb3x_ray.schemas.errors import UserError

MIN_LABELS = 8
FOLDS = 4
# Examples that the bag of words, which is only there to be beaten, learns from: its rows are dense.
_MOST_WORDS = 20_000


def train_reward(
    examples: Sequence[Example],
    config: RewardConfig,
    seed: int,
    encoder: Encoder | None = None,
    share: Share | None = None,
) -> tuple[PairModel, dict[str, float]]:
    """A classifier of replies, with hindsight and without, and a report on people whom the measured models
    did not see (see reward_report): a head is measured in folds, a whole backbone on a quarter left out.

    encoder   of the head; None where the whole backbone learns (config.learn)
    share     this worker's, where several learn the whole backbone together

    Replies that the length limit broke off are left out where there are enough others: what is said of them
    says that nobody likes half a sentence, and of what the model said, nothing.

    Raises UserError for fewer than 8 labels, or when they all point one way.
    """
    chosen = _whole(examples)
    check(chosen)
    fold = _person_folds(chosen, seed)
    if encoder is None:
        return _whole_backbone(chosen, fold, config, seed, share or Share())
    return _head(chosen, fold, config, seed, encoder)


def check(examples: Sequence[Example]) -> None:
    """Raises UserError for examples that nothing can be learned from, with the cure."""
    labels = [e.label for e in examples if e.label is not None]
    cure = "let more people talk (talk.helpers, talk.thumb_rate), or ingest rated conversations."
    if len(labels) < MIN_LABELS:
        raise UserError(
            f"only {len(labels)} replies were rated by trusted people or annotated, {MIN_LABELS} are needed "
            f"to train a reward model: {cure}"
        )
    if sum(labels) in (0, len(labels)):
        raise UserError(
            f"all {len(labels)} labels of trusted people and annotators point "
            f"{'up' if labels[0] else 'down'}, so there is nothing to tell apart: {cure}"
        )


def _head(
    examples: Sequence[Example], fold: np.ndarray, config: RewardConfig, seed: int, encoder: Encoder
) -> tuple[PairModel, dict[str, float]]:
    pairs = [e.pair for e in examples]
    x = features(pairs, encoder)  # once: embedding costs far more than fitting
    labels = np.array([pair.label for pair in pairs])
    weights = np.array([e.pair.weight * e.teaches for e in examples])
    late, fresh = cross_fit(x, labels, weights, fold, config.l2)
    rows = np.flatnonzero(weights > 0)
    model = PairLogistic.fit_rows(x[rows], [pairs[i] for i in rows.tolist()], encoder, config.l2)
    return model, _report(model, examples, late, fresh, fold, np.unique(fold[fold >= 0]), seed)


def _whole_backbone(
    examples: Sequence[Example], fold: np.ndarray, config: RewardConfig, seed: int, share: Share
) -> tuple[PairModel, dict[str, float]]:
    """Folds would cost as many trainings: one of them is left out, and that is all that is measured."""
    model = PairTransformer.start(config.encoder, config.max_tokens, seed)
    schedule = Schedule(config.epochs, config.lr, config.batch, seed)
    model.learn(
        [e.pair for e, f in zip(examples, fold, strict=True) if f != 0 and e.teaches], schedule, share
    )
    late, fresh = np.full(len(examples), np.nan), np.full(len(examples), np.nan)
    held = np.flatnonzero(fold == 0)
    pairs = [examples[i].pair for i in held.tolist()]
    late[held], fresh[held] = model.logits(pairs), model.logits([without_hindsight(pair) for pair in pairs])
    return model, _report(model, examples, late, fresh, fold, np.array([0]), seed)


def _report(
    model: PairModel,
    examples: Sequence[Example],
    late: np.ndarray,
    fresh: np.ndarray,
    fold: np.ndarray,
    held: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Calibrate `model` by held-out logits, and tell how good these are."""
    rows = np.flatnonzero([e.label is not None for e in examples])
    own = [examples[i] for i in rows.tolist()]
    labels = np.array([e.label for e in own], np.float64)
    model.calibrations = calibrate(late[rows], fresh[rows], labels, np.ones(len(rows)))
    views = _calibrated_by_others(late[rows], fresh[rows], labels, fold[rows], own)
    report = measured(own, views, seed, _words(examples, fold, held)[rows])
    report["examples"] = float(sum(e.teaches for e in examples))
    calibrations = model.calibrations
    for name, one in (("hindsight", calibrations.hindsight), ("fresh", calibrations.fresh)):
        report |= {f"temperature_{name}": one.temperature, f"shift_{name}": one.shift}
    model.report = report
    return report


def _calibrated_by_others(
    late: np.ndarray, fresh: np.ndarray, labels: np.ndarray, fold: np.ndarray, examples: Sequence[Example]
) -> dict[str, np.ndarray]:
    """P(good) as reward_report wants it, each calibrated by people of other folds, or a calibration error
    would be of what it was fitted to. Where one fold was held out, halves of its people stand for folds."""
    if len(np.unique(fold[~np.isnan(late)])) < 2:
        fold = np.array([hashlib.sha256(e.person.encode()).digest()[0] % 2 for e in examples])
    views = {"": np.full(len(late), np.nan), "_fresh": np.full(len(late), np.nan)}
    for one in np.unique(fold):
        test = fold == one
        others = calibrate(late[~test], fresh[~test], labels[~test], np.ones(int((~test).sum())))
        views[""][test], views["_fresh"][test] = others.hindsight(late[test]), others.fresh(fresh[test])
    return views


def _words(examples: Sequence[Example], fold: np.ndarray, held: np.ndarray) -> np.ndarray:
    """p [N] of a bag of words, learned from what the folds beside each of `held` teach: to be beaten."""
    p = np.full(len(examples), np.nan)
    teaches = np.array([e.teaches and e.pair.weight > 0 for e in examples])
    for one in held.tolist():
        test, rest = np.flatnonzero(fold == one).tolist(), np.flatnonzero((fold != one) & teaches)
        if len(rest):
            every = -(-len(rest) // _MOST_WORDS)
            model = BagOfWords.fit([examples[i].pair for i in rest[::every].tolist()])
            p[test] = model.predict([examples[i].pair for i in test])
    return p


def _whole(examples: Sequence[Example]) -> list[Example]:
    whole = [e for e in examples if not e.cut_off]
    labels = [e.label for e in whole if e.label is not None]
    return whole if len(labels) >= MIN_LABELS and 0 < sum(labels) < len(labels) else list(examples)


def _person_folds(examples: Sequence[Example], seed: int) -> np.ndarray:
    """[N] fold of each example, −1 of people who are not measured; a person is in one fold, and folds have
    about equally many people."""
    measured_people = {e.person for e in examples if e.label is not None}
    people = sorted(measured_people, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest())
    home = {person: place % FOLDS for place, person in enumerate(people)}
    return np.array([home.get(e.person, -1) for e in examples])
