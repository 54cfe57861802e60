"""One classifier of feature rows with and without hindsight: logistic regression, then small trees.

The regression sees everything; the trees see the plain numbers, not the embeddings, and what the regression
left. Every example is learned from twice where its next message is known, each time with half its weight: as
it looks with hindsight and as it looked before.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bb3x_ray.classify.bag_of_words import one_thread
from bb3x_ray.classify.boosted_trees import BoostedTrees
from bb3x_ray.classify.pair_features import AFTER_WIDTH, REPLY_WIDTH

_SMALLEST_SPREAD = 0.05  # of a number: what hardly varies is not blown up
# What a unit of a standardised number and of an embedding's entry count for: with these, a penalty of 0.3 to
# 1 is right for a hundred labels and for thousands, and a thousand entries do not drown sixty numbers.
_NUMBER, _ENTRY = 0.1, 0.3
_HAIR = 0.5e-2  # penalty on an intercept: with one class only it would run away


def has_hindsight(x: np.ndarray) -> np.ndarray:
    """bool [N] of feature rows (see pair_features)."""
    return x[:, _reply_part(x)] > 0


def without_hindsight(x: np.ndarray) -> np.ndarray:
    """The rows as if nobody knew yet what came next."""
    before = x.copy()
    before[:, _reply_part(x) :] = 0
    return before


@dataclass(frozen=True, slots=True)
class TwoViews:
    """
    tensors   weights [D] of the regression in units of the rows, `late` [REPLY_WIDTH] what is added to the
              weights of a reply's numbers with hindsight, and the trees
    """

    tensors: dict[str, np.ndarray]

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> "TwoViews":
        """x float32 [N, D] of pair_features, labels y [N] in 0..1, weights w [N] >= 0.

        The same input gives the same model. Raises ValueError for no weight at all.
        """
        if not w.sum() > 0:
            raise ValueError("a classifier needs at least one example with weight")
        y, w = np.asarray(y, np.float64), np.asarray(w, np.float64)
        late = has_hindsight(x)
        linear = _fit_linear(x, y, w, late, l2)
        before = without_hindsight(x[late])
        trees = BoostedTrees.fit(
            np.vstack([_numbers(x), _numbers(before)]),
            np.concatenate([y, y[late]]),
            np.concatenate([np.where(late, w / 2, w), w[late] / 2]),
            np.concatenate([_linear(x, linear), _linear(before, linear)]),
        )
        parts = {"columns": trees.columns, "thresholds": trees.thresholds, "leaves": trees.leaves}
        return cls({**linear, **parts})

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Log odds, float64 [N], of rows with and without hindsight."""
        trees = BoostedTrees(*(self.tensors[name] for name in ("columns", "thresholds", "leaves")))
        return np.asarray(_linear(x, self.tensors) + trees.logits(_numbers(x)), np.float64)


def _linear(x: np.ndarray, of: dict[str, np.ndarray]) -> np.ndarray:
    more = x[:, :REPLY_WIDTH] @ of["late"] + of["intercepts"][1]
    return np.asarray(x @ of["weights"] + of["intercepts"][0] + has_hindsight(x) * more)


def _reply_part(x: np.ndarray) -> int:
    """Where hindsight begins in a row: after a reply's numbers and two embeddings of three."""
    return REPLY_WIDTH + (x.shape[1] - REPLY_WIDTH - AFTER_WIDTH) // 3 * 2


def _numbers(x: np.ndarray) -> np.ndarray:
    at = _reply_part(x)
    return np.hstack([x[:, :REPLY_WIDTH], x[:, at : at + AFTER_WIDTH]])


def _fit_linear(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, late: np.ndarray, l2: float
) -> dict[str, np.ndarray]:
    at = _reply_part(x)
    mean, scale = _scaling(x, late)
    rows = x * scale  # the one copy: a row is 5 KB, and there may be a hundred thousand
    rows[:, :at] -= (mean * scale)[:at]
    first, target, weight = torch.from_numpy(rows[:, :at]), torch.from_numpy(y), torch.from_numpy(w)
    second, known = torch.from_numpy(rows[late, at:] - (mean * scale)[at:]), torch.from_numpy(late)
    numbers = first[known, :REPLY_WIDTH]
    beta = torch.zeros(x.shape[1] + REPLY_WIDTH, dtype=torch.float64, requires_grad=True)
    intercepts = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([beta, intercepts], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        narrow = beta.float()
        before = (first @ narrow[:at]).double() + intercepts[0]
        seen = numbers @ narrow[x.shape[1] :] + second @ narrow[at : x.shape[1]]
        after = before[known] + seen.double() + intercepts[1]
        value = _cross_entropy(before, target, torch.where(known, weight / 2, weight))
        value = value + _cross_entropy(after, target[known], weight[known] / 2)
        value = value + l2 / 2 * (beta @ beta) + _HAIR * (intercepts @ intercepts)
        value.backward()
        return value

    with one_thread():
        solver.step(loss)
    found, (start, step) = beta.detach().numpy(), intercepts.detach().numpy()
    weights, extra = found[: x.shape[1]] * scale, found[x.shape[1] :] * scale[:REPLY_WIDTH]
    start = start - mean[:at] @ weights[:at]
    step = step - mean[at:] @ weights[at:] - mean[:REPLY_WIDTH] @ extra
    return {"weights": weights, "late": extra, "intercepts": np.array([start, step])}


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum")


def _scaling(x: np.ndarray, late: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean [D], scale [D]): numbers are standardised, embeddings are left as they are but for a factor."""
    at = _reply_part(x)
    mean, scale = np.zeros(x.shape[1], np.float32), np.full(x.shape[1], _ENTRY, np.float32)
    seen = x[late, at : at + AFTER_WIDTH] if late.any() else np.zeros((1, AFTER_WIDTH), np.float32)
    for place, columns in ((slice(0, REPLY_WIDTH), x[:, :REPLY_WIDTH]), (slice(at, at + AFTER_WIDTH), seen)):
        mean[place] = columns.mean(0)
        scale[place] = _NUMBER / (columns.std(0) + _SMALLEST_SPREAD)
    return mean, scale
