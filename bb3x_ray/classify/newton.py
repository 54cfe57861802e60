"""Logistic regression by Newton's method, in whichever is fewer, rows or features.

The minimum is bag_of_words.Logistic's, found some ten times sooner; trust asks for dozens of fits a round.
"""

from collections.abc import Callable

import numpy as np

STEPS, TOLERANCE = 50, 1e-8
_INTERCEPT = 0.5e-2  # half its penalty, as in bag_of_words.Logistic

# (where it is, P(label = 1) there) -> the step to take
_Step = Callable[[np.ndarray, np.ndarray], np.ndarray]


class NewtonLogistic:
    """P(label = 1) = σ(x · weights + intercept)."""

    def __init__(self, weights: np.ndarray, intercept: float) -> None:
        self.weights, self.intercept = weights, intercept

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> "NewtonLogistic":
        """x [N, D], labels y [N] in 0..1, weights w [N] >= 0. The loss is Σ w·cross-entropy + l2/2·|β|².

        Rows without weight take no part. Raises ValueError for no weight at all.
        """
        if not w.sum() > 0:
            raise ValueError("logistic regression needs at least one example with weight")
        own = w > 0
        # The intercept is one more feature, of a size that gives it its small penalty.
        one = np.full((int(own.sum()), 1), np.sqrt(l2 / (2 * _INTERCEPT)))
        x = np.hstack([np.asarray(x[own], np.float64), one])
        y, w = y[own].astype(np.float64), w[own].astype(np.float64)
        beta = (_in_rows if len(x) <= x.shape[1] else _in_features)(x, y, w, l2)
        return cls(beta[:-1], float(beta[-1] * one[0, 0]))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """P(label = 1), float64 [N]."""
        return 1 / (1 + np.exp(-(np.asarray(x, np.float64) @ self.weights + self.intercept)))


def _in_features(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> np.ndarray:
    ridge = l2 * np.eye(x.shape[1])

    def step(beta: np.ndarray, p: np.ndarray) -> np.ndarray:
        curve = np.maximum(w * p * (1 - p), 1e-10)
        return np.linalg.solve((x * curve[:, None]).T @ x + ridge, x.T @ (w * (y - p)) - l2 * beta)

    return _descend(np.zeros(x.shape[1]), lambda beta: x @ beta, lambda beta, _: l2 * beta @ beta, step, y, w)


def _in_rows(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> np.ndarray:
    """β = Σ a_i x_i / l2, found by a."""
    kernel = x @ x.T / l2

    def step(a: np.ndarray, p: np.ndarray) -> np.ndarray:
        # (K + C⁻¹) a' = K a + C⁻¹ w (y − p), written so that the matrix is well conditioned
        curve = np.maximum(w * p * (1 - p), 1e-10)
        root = np.sqrt(curve)
        target = curve * (kernel @ a) + w * (y - p)
        inner = np.eye(len(x)) + root[:, None] * kernel * root[None]
        return np.asarray(target - root * np.linalg.solve(inner, root * (kernel @ target)) - a)

    a = _descend(np.zeros(len(x)), lambda a: kernel @ a, lambda a, z: a @ z, step, y, w)
    return np.asarray(a @ x / l2)


def _descend(
    at: np.ndarray,
    logits: Callable[[np.ndarray], np.ndarray],
    penalty: Callable[[np.ndarray, np.ndarray], float],
    step: _Step,
    y: np.ndarray,
    w: np.ndarray,
) -> np.ndarray:
    """Newton's steps, halved until each makes the loss smaller."""

    def loss(at: np.ndarray, z: np.ndarray) -> float:
        return float((w * (np.logaddexp(0, z) - y * z)).sum() + penalty(at, z) / 2)

    z = logits(at)
    value = loss(at, z)
    for _ in range(STEPS):
        direction, size = step(at, 1 / (1 + np.exp(-z))), 1.0
        while True:
            tried = at + size * direction
            z = logits(tried)
            new = loss(tried, z)
            if new <= value + 1e-12 or size < 1e-6:
                break
            size /= 2
        gain, at, value = value - new, tried, new
        if gain < TOLERANCE * (1 + abs(value)):
            break
    return at
