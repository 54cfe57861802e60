"""The methods of arXiv 2208.03295, and the one name by which a config asks for any.

e is the error of a thumb, T(u) the mean of a person's. τ = 1 − `trust.threshold`.

    example_removal   drop a thumb with e > τ
    example_flip      turn it round instead
    user_removal      drop all thumbs of people with T > τ
    user_example      drop what either of them drops
    purr              drop thumbs with e > τ of people with T > τ
    soft_purr         s = e + α · Σ of e over the person's other thumbs, per thumb; drop those with s > τ
    soft_purr_weights weigh them by it instead: 1 at s = 0, nothing at s = τ or more
    three_stage       user_example on the training set; its model cleans the validation set likewise;
                      models of both judge the training set again
    confusion         ours, see confusion.py; confusion_relabel also reads what everybody's thumbs mean
    none              every thumb counts
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np

from bb3x_ray.config import TrustConfig, TrustMethod
from bb3x_ray.reward.trust.confusion import LEVELS, Population, observe, settle
from bb3x_ray.reward.trust.folds import Judge, Thumbs, errors_of, fold_predictions

METHODS: tuple[TrustMethod, ...] = get_args(TrustMethod)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a method makes of N thumbs of P people.

    label        [N] 0 to 1: what to learn, the thumb itself unless the method turned it round
    weight       [N] 0 to 1: how much it counts, 0 is dropped
    p            [N] what the models of the other folds said
    trust        [P] 0 to 1
    distrusted   [P]
    right        [P, 2] how often the person is right about good replies, and about bad ones
    """

    label: np.ndarray
    weight: np.ndarray
    p: np.ndarray
    trust: np.ndarray
    distrusted: np.ndarray
    right: np.ndarray


def clean(thumbs: Thumbs, judge: Judge, config: TrustConfig, past: np.ndarray | None = None) -> Cleaned:
    """Thumbs cleaned by `config.method`. Without a validation set, three_stage is user_example.

    past   [P, 2 · levels] what people did in earlier rounds, as of confusion.observe

    Raises ValueError for no thumbs and no past.
    """
    if not len(thumbs) and past is None:
        raise ValueError("there are no thumbs to clean")
    past = np.zeros((thumbs.people, 2 * len(LEVELS))) if past is None else past
    if config.method in ("confusion", "confusion_relabel"):
        return _confusion(thumbs, judge, config, past)
    if config.method == "none":
        everybody = np.ones(thumbs.people)
        return Cleaned(
            thumbs.label.astype(np.float64),
            np.ones(len(thumbs)),
            np.full(len(thumbs), 0.5),
            everybody,
            everybody < 0,
            np.ones((thumbs.people, 2)),
        )
    return by_errors(thumbs, fold_predictions(thumbs, judge), config, past)


def by_errors(thumbs: Thumbs, p: np.ndarray, config: TrustConfig, past: np.ndarray | None = None) -> Cleaned:
    """The published methods, given what the fold models say."""
    tau = 1 - config.threshold
    e = errors_of(thumbs.label, p)
    counts = observe(thumbs, p) + (0 if past is None else past)
    given, wrong = counts.sum(1), counts @ level_errors()
    new = thumbs.new
    # This round's errors are exact, those of earlier rounds as exact as their levels.
    wrong += np.bincount(thumbs.person[new], e[new], thumbs.people) - observe(thumbs, p) @ level_errors()
    of_person = wrong / np.maximum(given, 1e-9)
    person_is_bad = (of_person > tau) & (given >= config.min_thumbs)
    bad, badly = e > tau, person_is_bad[thumbs.person]
    label: np.ndarray = thumbs.label.astype(np.float64)
    keep: np.ndarray = np.ones(len(thumbs))
    match config.method:
        case "example_removal":
            person_is_bad, keep = np.zeros(thumbs.people, bool), 1.0 - bad
        case "example_flip":
            person_is_bad, label = np.zeros(thumbs.people, bool), np.where(bad, 1 - label, label)
        case "user_removal":
            keep = 1.0 - badly
        case "user_example" | "three_stage":
            keep = 1.0 - (badly | bad)
        case "purr":
            keep = 1.0 - (badly & bad)
        case "soft_purr":
            keep = 1.0 - (_soft_errors(thumbs, e, config.alpha) > tau)
        case "soft_purr_weights":
            keep = np.clip(1 - _soft_errors(thumbs, e, config.alpha) / tau, 0, 1)
    # A person begins with some thumbs of the mean person's.
    mean, strength = wrong.sum() / max(given.sum(), 1e-9), config.prior_strength
    trust = 1 - (wrong + strength * mean) / (given + strength)
    return Cleaned(label, keep, p, trust, person_is_bad, np.stack([trust, trust], 1))


def level_errors() -> np.ndarray:
    """[2 · levels] the error of a thumb down, then of one up, at each level."""
    return np.concatenate([LEVELS, 1 - LEVELS])


def _soft_errors(thumbs: Thumbs, e: np.ndarray, alpha: float) -> np.ndarray:
    """e_i + α · Σ_{j≠i} e_j, divided by what it would be if all were 1: a person with more thumbs is no
    worse for that, and τ means the same for everybody."""
    count = np.bincount(thumbs.person, minlength=thumbs.people)
    others = np.bincount(thumbs.person, e, thumbs.people)[thumbs.person] - e
    return (e + alpha * others) / (1 + alpha * (count[thumbs.person] - 1))


def three_stage(
    train: Thumbs, valid: Thumbs, judge: Judge, config: TrustConfig
) -> tuple[Cleaned, np.ndarray]:
    """(the training set cleaned, weights [M] of the validation set cleaned)"""
    config = config.model_copy(update={"method": "user_example"})
    first = by_errors(train, fold_predictions(train, judge), config)
    rows = np.flatnonzero(first.weight > 0)
    valid_rows = len(train) + np.arange(len(valid))
    if not len(rows):
        return first, np.ones(len(valid))
    p = judge(rows, first.label[rows], first.weight[rows], valid_rows)
    validation = by_errors(valid, p, config)
    kept = valid_rows[validation.weight > 0]

    def with_validation(
        of: np.ndarray, label: np.ndarray, weight: np.ndarray, test: np.ndarray
    ) -> np.ndarray:
        more = valid.label[kept - len(train)].astype(np.float64)
        joined = np.concatenate([of, kept]), np.concatenate([label, more])
        return judge(*joined, np.concatenate([weight, np.ones(len(kept))]), test)

    again = fold_predictions(train, with_validation, first.label, first.weight)
    return by_errors(train, again, config), validation.weight


def _confusion(thumbs: Thumbs, judge: Judge, config: TrustConfig, past: np.ndarray) -> Cleaned:
    p = settle(thumbs, judge, past)
    found = Population.of(past + observe(thumbs, p), config.threshold, config.min_thumbs, config.evidence)
    # Who is likelier to be no helper, by evidence that is not enough for distrust, counts by that much less.
    doubted = np.where(found.trust < config.threshold, found.trust, 1.0)
    weight = np.where(found.distrusted, 0.0, doubted)[thumbs.person]
    label = thumbs.label.astype(np.float64)
    if config.method == "confusion_relabel":
        meant = found.meant(thumbs, p)
        label, weight = (meant > 0.5).astype(np.float64), np.abs(2 * meant - 1)
    return Cleaned(label, weight, p, found.trust, found.distrusted, found.right)
