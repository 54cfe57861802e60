"""How well probabilities tell two classes apart, and how sure one can be of that.

Intervals come from a bootstrap over groups (people, conversations): what belongs together is drawn together,
since a person's thumbs are not independent. For a comparison, give the difference as the measure: both sides
then see the same people in every draw.
"""

from collections.abc import Callable, Sequence

import numpy as np

from bb3x_ray.schemas.learning import Interval

BINS = 10
RESAMPLES = 400


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a positive scores above a negative; 0.5 where one of them is missing.

    scores [N], labels [N]: above 0.5 is positive. By ranks, N log N; ties count half.
    """
    positive = np.asarray(labels) > 0.5
    ups = int(positive.sum())
    downs = len(positive) - ups
    if not ups or not downs:
        return 0.5
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[positive].sum() - ups * (ups + 1) / 2) / (ups * downs))


def balanced_accuracy(scores: np.ndarray, labels: np.ndarray, at: float = 0.5) -> float:
    """Mean of the accuracies on both classes, deciding at `at`.

    Of probabilities that mean what they say, the share of positives is the best place to decide at: at 0.5 a
    rare class is hardly ever found, however well it is told apart.
    """
    sides = [(scores[labels > 0.5] > at), (scores[labels <= 0.5] <= at)]
    return float(np.mean([side.mean() for side in sides if len(side)]))


def calibration_error(p: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: |mean probability − share of positives|, over bins of equal mass.

    p [N] in 0..1, labels [N]. Bins hold equally many examples each, in order of p, so that none is empty;
    with few examples a bin's share is noisy and so is the error: a perfect model is at about 0.03 with 1,400.
    """
    order = np.argsort(p, kind="stable")
    gaps = [
        len(own) * abs(p[own].mean() - labels[own].mean()) for own in np.array_split(order, bins) if len(own)
    ]
    return float(sum(gaps) / max(1, len(p)))


def members(groups: Sequence[str]) -> list[np.ndarray]:
    """The indices of each group, in the order of the groups' names."""
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(place, kind="stable")
    return np.split(order, np.cumsum(np.bincount(place))[:-1])


def interval(
    measure: Callable[[np.ndarray], float], groups: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> Interval:
    """`measure` of everything, with its 95 % interval from as many people drawn with replacement.

    measure   takes the indices [M] of the examples to measure, some of them more than once
    groups    whose each example is, [N]
    """
    own, random = members(groups), np.random.default_rng(seed)
    drawn = [
        measure(np.concatenate([own[i] for i in random.integers(len(own), size=len(own))]))
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(measure(np.arange(len(groups))), float(low), float(high))
