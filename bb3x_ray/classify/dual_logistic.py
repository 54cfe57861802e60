"""Logistic regression with fewer rows than features, solved in its rows.

The minimum is bag_of_words.Logistic's; with 200 rows of 400 features it is found some ten times sooner, and
trust asks for thousands of fits.
"""

import numpy as np

from bb3x_ray.classify.bag_of_words import Logistic

STEPS, TOLERANCE = 50, 1e-8
_INTERCEPT = 0.5e-2  # its penalty, as in bag_of_words.Logistic


class DualLogistic:
    """P(label = 1) = σ(Σ_i a_i · (x_i · x) + intercept), with an L2 penalty on all but the intercept."""

    def __init__(self, weights: np.ndarray, intercept: float) -> None:
        self.weights, self.intercept = weights, intercept

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> "DualLogistic":
        """x [N, D], labels y [N] in 0..1, weights w [N] >= 0. The loss is Σ w·cross-entropy + l2/2·|β|².

        Newton's method on the rows' logits; rows without weight take no part. Raises ValueError for no
        weight at all.
        """
        if not w.sum() > 0:
            raise ValueError("logistic regression needs at least one example with weight")
        own = w > 0
        x, y, w = np.asarray(x[own], np.float64), y[own].astype(np.float64), w[own].astype(np.float64)
        # The intercept is one more feature, of a size that gives it its small penalty.
        kernel = x @ x.T / l2 + 1 / (2 * _INTERCEPT)
        a = np.zeros(len(x))  # β = Σ a_i x_i / l2: minus the gradient of each row's loss at the minimum
        f = kernel @ a
        value = _loss(f, a, y, w)
        for _ in range(STEPS):
            p = 1 / (1 + np.exp(-f))
            curve = np.maximum(w * p * (1 - p), 1e-10)
            root = np.sqrt(curve)
            # (K + C⁻¹) a' = f + C⁻¹ w (y − p), written so that the matrix is well conditioned
            target = curve * f + w * (y - p)
            inner = np.eye(len(x)) + root[:, None] * kernel * root[None]
            step = target - root * np.linalg.solve(inner, root * (kernel @ target)) - a
            size = 1.0
            while size > 1e-6:
                tried = a + size * step
                f = kernel @ tried
                new = _loss(f, tried, y, w)
                if new <= value + 1e-12:
                    break
                size /= 2
            a, gain, value = tried, value - new, new
            if gain < TOLERANCE * (1 + abs(value)):
                break
        return cls(a @ x / l2, float(a.sum() / (2 * _INTERCEPT)))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """P(label = 1), float64 [N]."""
        return 1 / (1 + np.exp(-(np.asarray(x, np.float64) @ self.weights + self.intercept)))


def fit_logistic(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> DualLogistic | Logistic:
    """The same minimum, found in whichever is fewer, rows or features. Raises ValueError for no weight."""
    return (DualLogistic if (w > 0).sum() <= x.shape[1] else Logistic).fit(x, y, w, l2)


def _loss(f: np.ndarray, a: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """The loss at logits f = K a."""
    return float((w * (np.logaddexp(0, f) - y * f)).sum() + a @ f / 2)
