"""How good a detector of unsafe texts is: recall at a rate of false alarms, calibration, intervals."""

import math

import numpy as np

from bb3x_ray.classify.safety import half_each, threshold_at
from bb3x_ray.schemas.learning import Interval

BINS = 10
RESAMPLES = 500


def share(flags: np.ndarray) -> Interval:
    """Of texts that are flagged, with Wilson's 95 % interval."""
    n, z = len(flags), 1.96
    if not n:
        return Interval(math.nan, 0.0, 1.0)
    p = float(np.mean(flags))
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))


def recall_at(
    unsafe: np.ndarray, ordinary: np.ndarray, false_alarms: float, groups: np.ndarray, seed: int = 0
) -> Interval:
    """Share of unsafe texts above the threshold that `false_alarms` of the ordinary ones are above.

    The interval is a bootstrap over `groups` of the unsafe texts (conversations) and over ordinary texts,
    whose threshold is drawn anew each time.
    """
    random = np.random.default_rng(seed)
    own = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    drawn = []
    for _ in range(RESAMPLES):
        some = np.concatenate([own[i] for i in random.integers(len(own), size=len(own))])
        limit = threshold_at(random.choice(ordinary, len(ordinary)), false_alarms)
        drawn.append(float(np.mean(unsafe[some] > limit)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = float(np.mean(unsafe > threshold_at(ordinary, false_alarms)))
    return Interval(value, float(low), float(high))


def balanced_calibration_error(p: np.ndarray, unsafe: np.ndarray) -> float:
    """Mean distance of what was said from what was true, over `BINS` equal stretches of P(unsafe), on a mix
    of which half is unsafe: each kind weighs the same, however many there are.

    measures.calibration_error takes examples as they come, in bins of equally many."""
    weights, bins = half_each(unsafe > 0.5), np.minimum((p * BINS).astype(int), BINS - 1)
    apart = [abs(float((weights * (p - unsafe))[bins == b].sum())) for b in range(BINS)]
    return sum(apart) / float(weights.sum())
