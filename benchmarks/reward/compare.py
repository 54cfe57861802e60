"""From predictions to measures: means over splits, with intervals from a bootstrap over people.

The bootstrap draws people and takes, for each draw, the mean over all splits: so splits, which share their
data, do not count as so many experiments, and a difference is always of both arms on the same people and
folds. What it leaves out is how much the training people matter; the corrected resampled t interval (Nadeau
and Bengio) of the differences in folds has that in it, and stands beside.
"""

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np

from bb3x_ray.classify.measures import Interval, auroc, interval
from bb3x_ray.classify.pairs import Pair

# (scores [M], indices [M] of examples) -> measure
Measure = Callable[[np.ndarray, np.ndarray], float]
_LONG = 30  # words: longer replies are of one length
_T_99 = 1.984  # 97.5 % of Student's t with about 100 degrees of freedom


def ranked(labels: np.ndarray) -> Measure:
    """AUROC: how often a thumb up stands above a thumb down."""
    return lambda scores, index: auroc(scores, labels[index])


def ranked_at_length(pairs: Sequence[Pair], labels: np.ndarray) -> Measure:
    """AUROC among replies of as many words only."""
    words = np.array([min(len(pair.reply.split()), _LONG) for pair in pairs])

    def measure(scores: np.ndarray, index: np.ndarray) -> float:
        above = whole = 0.0
        for length in np.unique(words[index]):
            own = words[index] == length
            ups = float(labels[index][own].sum())
            both = ups * (float(own.sum()) - ups)
            above, whole = above + both * auroc(scores[own], labels[index][own]), whole + both
        return above / whole if whole else 0.5

    return measure


def preferred(labels: np.ndarray) -> Measure:
    """How often the chosen reply of a pair scores above the rejected one beside it; ties count half. Indices
    come in twos."""

    def measure(scores: np.ndarray, index: np.ndarray) -> float:
        gap = scores[0::2] - scores[1::2]
        gap = np.where(labels[index[0::2]] > labels[index[1::2]], gap, -gap)
        return float((gap > 0).mean() + (gap == 0).mean() / 2)

    return measure


def preferred_at_length(pairs: Sequence[Pair], labels: np.ndarray) -> Measure:
    """The same among pairs whose replies differ by a tenth of their words at most."""
    words = np.array([len(pair.reply.split()) for pair in pairs])
    of_all = preferred(labels)

    def measure(scores: np.ndarray, index: np.ndarray) -> float:
        two = words[index].reshape(-1, 2)
        near = np.repeat(np.abs(two[:, 0] - two[:, 1]) <= 0.1 * two.max(1), 2)
        return of_all(scores[near], index[near]) if near.any() else 0.5

    return measure


def mean_over_splits(scores: np.ndarray, measure: Measure, index: np.ndarray) -> float:
    """scores [splits, N]"""
    return float(np.mean([measure(own[index], index) for own in scores]))


def with_interval(scores: np.ndarray, measure: Measure, groups: Sequence[str], seed: int) -> Interval:
    return interval(lambda index: mean_over_splits(scores, measure, index), groups, seed)


def difference(
    ours: np.ndarray, other: np.ndarray, measure: Measure, groups: Sequence[str], seed: int
) -> Interval:
    """Ours minus the other, both [splits, N] on the same folds."""
    return interval(
        lambda index: mean_over_splits(ours, measure, index) - mean_over_splits(other, measure, index),
        groups,
        seed,
    )


def corrected_t(ours: np.ndarray, other: np.ndarray, measure: Measure, fold: np.ndarray) -> Interval:
    """The same difference, from folds: its variance with the share that overlapping training sets hide."""
    gains = []
    for mine, theirs, places in zip(ours, other, fold, strict=True):
        for place in np.unique(places):
            index = np.flatnonzero(places == place)
            gains.append(measure(mine[index], index) - measure(theirs[index], index))
    folds = len(np.unique(fold))
    wide = _T_99 * sqrt(np.var(gains, ddof=1) * (1 / len(gains) + 1 / (folds - 1)))
    mean = float(np.mean(gains))
    return Interval(mean, mean - wide, mean + wide)
