"""The difference between two arms, and how much is known about it, from people who gave several answers each.

One estimator for thumbs, reward scores and unsafe replies. Everything is an array with runs in front, [R, …],
so that a thousand simulated canaries cost little more than one.
"""

from dataclasses import dataclass

import numpy as np

_ALIKE = 0.1  # assumed correlation of one person's answers: nobody counts as more than 1 / 0.1 answers
_RIDGE = 0.5  # answers' worth of doubt that a control says anything


@dataclass(frozen=True, slots=True)
class Answers:
    """N answers (thumbs, or replies that were scored) of U units, a person in an arm each.

    unit       int [R, N], which of the units gave it
    value      float [R, N], 0 to 1
    controls   float [R, N, C], what was known of the value without asking, centred where the arms' own means
               of it are known; it may make the difference sharper and never moves it
    weight     float [R, U], 0 to 1, how much the unit's person is trusted
    candidate  bool [R, U], whether the unit talked to the candidate
    """

    unit: np.ndarray
    value: np.ndarray
    controls: np.ndarray
    weight: np.ndarray
    candidate: np.ndarray

    @property
    def size(self) -> int:
        return int(self.value.shape[1])


class Sums:
    """What answers add up to per unit; the next answers are added to those before."""

    def __init__(self, answers: Answers) -> None:
        self._all = answers
        self._taken = 0
        runs, units = answers.weight.shape
        self.given = np.zeros((runs, units))
        self.total = np.zeros((runs, units))
        self.controls = np.zeros((runs, units, answers.controls.shape[2]))

    def take(self, upto: int) -> None:
        """Add the answers before place `upto`."""
        part = slice(self._taken, upto)
        runs, units = self.given.shape
        places = (np.arange(runs)[:, None] * units + self._all.unit[:, part]).ravel()

        def summed(values: np.ndarray | None) -> np.ndarray:
            weights = None if values is None else values.ravel()
            return np.bincount(places, weights, runs * units).reshape(runs, units)

        self.given += summed(None)
        self.total += summed(self._all.value[:, part])
        for control in range(self.controls.shape[2]):
            self.controls[:, :, control] += summed(self._all.controls[:, part, control])
        self._taken = upto

    def difference(self, fewest: int) -> tuple[np.ndarray, np.ndarray]:
        """([R] candidate − champion, [R] information: 1 / its variance; 0 with fewer people in an arm).

        A person is one draw, for answers of one are alike. Each counts n / (1 + 0.1·(n − 1)) times its trust,
        which is ten answers at most, and the variance is that of people about their arm's mean.
        """
        given = np.maximum(self.given, 1)
        weight = self._all.weight * self.given / (1 + _ALIKE * (given - 1))
        arms = [weight * ~self._all.candidate, weight * self._all.candidate]
        value, controls = self.total / given, self.controls / given[:, :, None]
        value = value - (controls @ _slopes(arms, value, controls)[:, :, None])[:, :, 0]
        means, variances = zip(*(_mean(arm, value) for arm in arms), strict=True)
        enough = np.minimum(*((arm > 0).sum(1) for arm in arms)) >= fewest
        difference = np.where(enough, means[1] - means[0], 0.0)
        return difference, np.where(enough, 1 / (variances[0] + variances[1]), 0.0)


def _slopes(arms: list[np.ndarray], value: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """[R, C] of the value on the controls within the arms: their difference has no part in it."""
    runs, _, width = controls.shape
    square = np.tile(_RIDGE * np.eye(width), (runs, 1, 1))
    product = np.zeros((runs, width))
    for weight in arms:
        total = np.maximum(weight.sum(1), 1e-9)
        off = value - ((weight * value).sum(1) / total)[:, None]
        moved = controls - ((weight[:, :, None] * controls).sum(1) / total[:, None])[:, None, :]
        heavy = np.swapaxes(weight[:, :, None] * moved, 1, 2)  # [R, C, U]
        square += heavy @ moved
        product += (heavy @ off[:, :, None])[:, :, 0]
    return np.linalg.solve(square, product[:, :, None])[:, :, 0]


def _mean(weight: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([R] weighted mean over people, [R] its variance, as if one more had said 0 and one more 1).

    The two more keep thirty people who agree from looking like certainty.
    """
    total = np.maximum(weight.sum(1), 1e-9)
    mean = (weight * value).sum(1) / total
    squares = weight**2
    people = np.maximum((weight > 0).sum(1), 1)
    spread = (squares * (value - mean[:, None]) ** 2).sum(1) + 0.5 * squares.sum(1) / people
    return mean, spread * people / np.maximum(people - 1, 1) / total**2
