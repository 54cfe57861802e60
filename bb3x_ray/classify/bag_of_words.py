"""The baseline that a better classifier must beat: hashed words, and logistic regression on them.

Also holds the logistic regression itself, which trust's fold judges use on features of their own.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch import nn

from bb3x_ray.classify.pairs import Pair

BUCKETS = 2048
_WORD = re.compile(r"[a-z']+|[?!]")


class Logistic:
    """Weighted logistic regression with an L2 penalty on everything but the intercept."""

    def __init__(self, weights: np.ndarray, intercept: float) -> None:
        self.weights, self.intercept = weights, intercept

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> "Logistic":
        """x [N, D], labels y [N] in 0..1, weights w [N] >= 0. The loss is Σ w·cross-entropy + l2/2·|β|².

        Raises ValueError for no weight at all.
        """
        if not w.sum() > 0:
            raise ValueError("logistic regression needs at least one example with weight")
        features, target, weight = (torch.from_numpy(np.asarray(a, np.float64)) for a in (x, y, w))
        beta = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
        intercept = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        solver = torch.optim.LBFGS([beta, intercept], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            solver.zero_grad()
            fit = nn.functional.binary_cross_entropy_with_logits(
                features @ beta + intercept, target, weight=weight, reduction="sum"
            )
            # A hair of penalty on the intercept: with one class only it would run away.
            value = fit + l2 / 2 * (beta @ beta) + 0.5e-2 * (intercept @ intercept)
            value.backward()
            return value

        with one_thread():
            solver.step(loss)
        return cls(beta.detach().numpy(), float(intercept.detach()))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """P(label = 1), float64 [N]."""
        return 1 / (1 + np.exp(-self.logits(x)))

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Log odds of label 1, float64 [N]."""
        return np.asarray(np.asarray(x, np.float64) @ self.weights + self.intercept)


@contextmanager
def one_thread() -> Iterator[None]:
    """The matrices are so small that threads mostly wait for each other: 15 times slower on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class BagOfWords:
    """P(class | context, reply) from hashed words of the reply and those it shares with its context."""

    def __init__(self, model: Logistic) -> None:
        self._model = model

    @classmethod
    def fit(cls, pairs: Sequence[Pair], l2: float = 4.0) -> "BagOfWords":
        """Raises ValueError for pairs without any weight."""
        labels, weights = np.array([p.label for p in pairs]), np.array([p.weight for p in pairs])
        return cls(Logistic.fit(hashed_words(pairs), labels, weights, l2))

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float64 [N]"""
        return self._model.predict(hashed_words(pairs)) if pairs else np.zeros(0)


def hashed_words(pairs: Sequence[Pair]) -> np.ndarray:
    """float32 [N, BUCKETS]: which words the reply has, which of them were in the context, and its length."""
    rows = np.zeros((len(pairs), BUCKETS), np.float32)
    for row, pair in zip(rows, pairs, strict=True):
        said, heard = _WORD.findall(pair.reply.lower()), set(_WORD.findall(pair.context.lower()))
        row[[_bucket(word) for word in said]] = 1
        row[[_bucket(f"again {word}") for word in said if word in heard]] = 1
        row[_bucket(f"words {min(len(said), 40) // 4}")] = 1
    return rows


@cache
def _bucket(word: str) -> int:
    """Python's own hash differs from process to process."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % BUCKETS
