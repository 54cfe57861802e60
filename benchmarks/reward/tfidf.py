"""The baseline: logistic regression on tf-idf of words and pairs of words.

As people write it with scikit-learn (TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True) of each text,
then LogisticRegression(C=0.3)), and with the same AUROC to the third digit, but without the dependency. Of C
= 0.3, 1 and 3 the first is the best on both files, so the baseline is seen at its best.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from bb3x_ray.classify.pairs import Pair

C = 0.3
_WORD = re.compile(r"(?u)\b\w\w+\b")  # scikit-learn's


class Words:
    """Counts of words and of pairs of words, once for all splits: only what they are worth differs."""

    def __init__(self, texts: Sequence[str]) -> None:
        known: dict[str, int] = {}
        rows: list[int] = []
        columns: list[int] = []
        counts: list[int] = []
        for row, text in enumerate(texts):
            words = _WORD.findall(text.lower())
            found: dict[int, int] = {}
            for term in (*words, *map(" ".join, pairwise(words))):
                column = known.setdefault(term, len(known))
                found[column] = found.get(column, 0) + 1
            rows += [row] * len(found)
            columns += found.keys()
            counts += found.values()
        self.size = len(texts), len(known)
        self.rows, self.columns = np.array(rows, np.int64), np.array(columns, np.int64)
        self.value = 1 + np.log(np.array(counts, np.float64))

    def weighed(self, train: np.ndarray) -> np.ndarray:
        """tf-idf of every entry, by what is rare in the rows of `train` (bool [N]); rows have length 1, terms
        that `train` does not have count nothing."""
        own = train[self.rows]
        seen = np.bincount(self.columns[own], minlength=self.size[1])
        idf = np.where(seen, np.log((1 + train.sum()) / (1 + seen)) + 1, 0)
        value = self.value * idf[self.columns]
        length = np.sqrt(np.bincount(self.rows, value**2, self.size[0]))
        return value / np.maximum(length, 1e-12)[self.rows]


class TfIdf:
    """Logits of held-out pairs from what they say: the reply, the two turns before it and, with hindsight,
    the next message, each a bag of its own."""

    def __init__(self, pairs: Sequence[Pair], hindsight: bool) -> None:
        texts = [[pair.reply for pair in pairs], ["\n".join(pair.context.split("\n")[:2]) for pair in pairs]]
        if hindsight:
            texts.append([pair.after or "" for pair in pairs])
        self._bags = [Words(own) for own in texts]

    def logits(self, labels: np.ndarray, train: np.ndarray) -> np.ndarray:
        """[N], learned from the rows of `train` (bool [N])."""
        shift = np.cumsum([0, *(bag.size[1] for bag in self._bags)])
        rows = np.concatenate([bag.rows for bag in self._bags])
        columns = np.concatenate([bag.columns + by for bag, by in zip(self._bags, shift, strict=False)])
        values = np.concatenate([bag.weighed(train) for bag in self._bags])
        keep = values > 0
        at = torch.from_numpy(np.stack([rows[keep], columns[keep]]))
        size = (len(train), int(shift[-1]))
        x = torch.sparse_coo_tensor(at, torch.from_numpy(values[keep]), size, check_invariants=True)
        return _regression(x.coalesce(), torch.from_numpy(labels), torch.from_numpy(train)).numpy()


def _regression(x: torch.Tensor, labels: torch.Tensor, train: torch.Tensor) -> torch.Tensor:
    beta = torch.zeros(x.shape[1], 1, dtype=torch.float64, requires_grad=True)
    intercept = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([beta, intercept], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        logits = torch.sparse.mm(x, beta)[:, 0] + intercept
        fit = nn.functional.binary_cross_entropy_with_logits(logits[train], labels[train], reduction="sum")
        value = fit + (beta * beta).sum() / (2 * C)
        value.backward()
        return value

    solver.step(loss)
    return (torch.sparse.mm(x, beta)[:, 0] + intercept).detach()
