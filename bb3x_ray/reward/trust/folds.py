"""Every thumb judged by a model that has seen neither it nor another thumb on the same text."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bb3x_ray.reward.signals import Signal

# (rows to learn from, their labels 0..1, their weights, rows to judge) -> P(label = 1) of the latter.
# Any classifier will do: rows are numbers of examples, which only the judge needs to look up.
Judge = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Thumbs:
    """N thumbs of P people.

    label    [N] 0 or 1
    person   [N] the number of the person, 0 to P − 1
    fold     [N] the fold of the text
    people   P
    judged   [N] False for thumbs of earlier rounds: models learn from them, and what people did is not
             counted again by them
    """

    label: np.ndarray
    person: np.ndarray
    fold: np.ndarray
    people: int
    judged: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def new(self) -> np.ndarray:
        """[N] which thumbs are counted now."""
        return np.ones(len(self), bool) if self.judged is None else self.judged


def fold_of_text(text: str, folds: int) -> int:
    """sha256(text)[0] mod k: the same text is always in one fold."""
    return hashlib.sha256(text.encode()).digest()[0] % folds


def fold_of(signal: Signal, folds: int) -> int:
    """By the reply and the last two turns: the same exchange is the same at any place of a talk."""
    before = "\n".join(signal.context.split("\n")[:2])
    return fold_of_text(f"{before}\n{signal.reply}", folds)


def thumbs_of_people(labels: Sequence[int], people: Sequence[str], folds: Sequence[int]) -> Thumbs:
    """People are numbered in the order of their names."""
    number = {name: i for i, name in enumerate(sorted(set(people)))}
    label, fold = np.array(labels, np.int64), np.array(folds, np.int64)
    return Thumbs(label, np.array([number[p] for p in people], np.int64), fold, len(number))


def fold_predictions(
    thumbs: Thumbs, judge: Judge, labels: np.ndarray | None = None, weights: np.ndarray | None = None
) -> np.ndarray:
    """p [N]: P(label = 1) of every thumb, those of earlier rounds too, by the model of the other folds; 0.5
    where they hold nothing.

    labels, weights   what the models learn; the thumbs themselves, all alike, where not given
    """
    labels = thumbs.label.astype(np.float64) if labels is None else labels
    weights = np.ones(len(thumbs)) if weights is None else weights
    p = np.full(len(thumbs), 0.5)
    for held_out in np.unique(thumbs.fold):
        test = np.flatnonzero(thumbs.fold == held_out)
        train = np.flatnonzero((thumbs.fold != held_out) & (weights > 0))
        if len(train) and len(test):
            p[test] = judge(train, labels[train], weights[train], test)
    return p


def errors_of(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """e = 1 − the probability of each thumb's own label."""
    return np.abs(labels - p)
