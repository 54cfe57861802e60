"""From held-out logits to probabilities that mean what they say: a temperature and a shift."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

_STEPS = 50
_SPREAD = 0.5  # how far log temperature and shift go before they need evidence: few labels move them little


@dataclass(frozen=True, slots=True)
class Calibration:
    """p = σ(logit / temperature + shift)"""

    temperature: float = 1.0
    shift: float = 0.0

    @classmethod
    def fit(cls, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> "Calibration":
        """The likeliest one for held-out logits [N], labels [N] in 0..1 and weights [N], by Newton's method;
        none of it without examples. Temperature and shift start at 1 and 0 with a prior."""
        slope, shift = 1.0, 0.0
        for _ in range(_STEPS if len(logits) else 0):
            p = 1 / (1 + np.exp(-(slope * logits + shift)))
            miss, bend = weights * (p - labels), weights * p * (1 - p)
            # In slope rather than in its logarithm, the prior about 1 is the same to first order.
            gradient = np.array(
                [(miss * logits).sum() + (slope - 1) / _SPREAD**2, miss.sum() + shift / _SPREAD**2]
            )
            cross = (bend * logits).sum()
            hessian = (
                np.array([[(bend * logits**2).sum(), cross], [cross, bend.sum()]]) + np.eye(2) / _SPREAD**2
            )
            step = np.linalg.solve(hessian, gradient)
            slope, shift = float(np.clip(slope - step[0], 0.05, 20)), shift - float(step[1])
            if np.abs(step).max() < 1e-9:
                break
        return cls(1 / slope, shift)

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """float64 [N] in 0..1"""
        return np.asarray(1 / (1 + np.exp(-(logits / self.temperature + self.shift))), np.float64)


@dataclass(frozen=True, slots=True)
class Calibrations:
    """One for each kind of input."""

    hindsight: Calibration = field(default_factory=Calibration)
    fresh: Calibration = field(default_factory=Calibration)

    def __call__(self, logits: np.ndarray, late: np.ndarray) -> np.ndarray:
        """logits [N], late bool [N]: which of them had hindsight -> p [N]"""
        return np.where(late, self.hindsight(logits), self.fresh(logits))

    @classmethod
    def from_dict(cls, row: Mapping[str, Mapping[str, float]]) -> "Calibrations":
        return cls(**{name: Calibration(**one) for name, one in row.items()})
