"""When is it enough? A group-sequential test that promotes a canary, rolls it back, or goes on.

The difference between the arms (`compare.py`), times the information about it, moves as a Brownian motion:
its variance is the information I. Two questions are asked of it, each in a fast and in a slow stage, each
with a flat boundary (O'Brien and Fleming's: strict while little is known):

    rollback   is it worse than the champion?                S ≤ −c·√H
    promotion  is it less than `margin` worse?               S + margin·I ≥ c·√H

Until information H, that is crossed by chance with probability 2·(1 − Φ(c)), by the reflection principle,
however often one looks; so c = z(α/2). Looks are countable, so the boundary lies 0.583·√(information of a
look) nearer (Siegmund's correction of that probability for them).

Why not a sequential probability ratio test or an e-process, which need no horizon? 750 independent thumbs an
arm show 60 % against 50 % with a drift of 0.10 / √(0.24/750 + 0.25/750) = 3.9 standard deviations. With
α = 2 %, a Wald test then ends in time with 91 %, a normal mixture with about 87 %, this one with
Φ(3.9 − 2.33) + exp(2·3.9·2.33)·Φ(−3.9 − 2.33) = 96 %; a single look at the end would have 97 %.

`fast` is the information at which a canary that is `worse` by that much is found with `power`; `slow` is
where rollback and promotion meet, so that there is always an end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from statistics import NormalDist
from typing import Literal

import numpy as np

from bb3x_ray.serve.canary.compare import Answers, Sums

Decision = Literal["promote", "rollback", "go on"]
GO_ON, ROLLBACK, PROMOTE = 0, 1, 2
DECISIONS: tuple[Decision, ...] = ("go on", "rollback", "promote")

_NORMAL = NormalDist()
_SIEGMUND = 0.583
_LATE = 1.1  # the look that comes just after the fast stage still belongs to it


@dataclass(frozen=True, slots=True)
class Rule:
    """What is to be found, and how often it may err.

    worse      a canary that is so much worse is to be found soon (0.10: ten points)
    margin     a canary is promoted when it is not worse by this much
    rollback   chance of rolling back a canary that is no worse: (fast, slow)
    promotion  chance of promoting one that is `margin` worse: (fast, slow)
    power      chance of finding one that is `worse` before the fast stage ends
    every      answers between two looks, over both arms; more as they grow many
    fewest     people in each arm before anything is decided
    """

    worse: float = 0.10
    margin: float = 0.05
    rollback: tuple[float, float] = (0.017, 0.003)
    promotion: tuple[float, float] = (0.04, 0.01)
    power: float = 0.955
    every: int = 100
    fewest: int = 30

    @property
    def fast(self) -> float:
        return (drift(self.rollback[0], self.power) / self.worse) ** 2

    @property
    def slow(self) -> float:
        return max(self.fast, ((_z(self.rollback[1]) + _z(self.promotion[1])) / self.margin) ** 2)


def _z(alpha: float) -> float:
    return _NORMAL.inv_cdf(1 - alpha / 2)


def crossed(drift: float, c: float) -> float:
    """Chance that a Brownian motion with this drift is at c once before time 1."""
    return _NORMAL.cdf(drift - c) + exp(2 * drift * c) * _NORMAL.cdf(-drift - c)


def drift(alpha: float, power: float) -> float:
    """The drift with which the boundary of `alpha` is crossed with `power`."""
    low, high = 0.0, 20.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if crossed(middle, _z(alpha)) < power else (low, middle)
    return high


def looks(size: int, every: int) -> list[int]:
    """After how many answers one looks: the same however often somebody asks, so that two who ask about the
    same answers decide the same."""
    found, at = [], every
    while at <= size:
        found.append(at)
        at += max(every, at // 20)
    return found


@dataclass(frozen=True, slots=True)
class Looks:
    """What was seen at each look: answers [L], and [R, L] the difference, its information, DECISIONS."""

    answers: Sequence[int]
    difference: np.ndarray
    information: np.ndarray
    decision: np.ndarray

    def first(self) -> tuple[np.ndarray, np.ndarray]:
        """([R] the decision that was made, [R] after how many answers; those of the last look at GO_ON)."""
        made = self.decision != GO_ON
        at = np.where(made.any(1), made.argmax(1), self.decision.shape[1] - 1)
        return self.decision[np.arange(len(at)), at], np.asarray(self.answers)[at]


def look_through(answers: Answers, rule: Rule) -> Looks:
    """All looks at the answers, in the order in which they came."""
    places = looks(answers.size, rule.every)
    runs = len(answers.value)
    difference, information = np.zeros((runs, len(places))), np.zeros((runs, len(places)))
    sums = Sums(answers)
    for number, place in enumerate(places):
        sums.take(place)
        difference[:, number], information[:, number] = sums.difference(rule.fewest)
    return Looks(places, difference, information, decide(difference, information, rule))


def decide(difference: np.ndarray, information: np.ndarray, rule: Rule) -> np.ndarray:
    """[R, L] what each look says by itself."""
    below, above = _boundaries(information, rule)
    moved = difference * information
    decision = np.where(moved <= below, ROLLBACK, np.where(moved >= above, PROMOTE, GO_ON))
    return np.where(information > 0, decision, GO_ON)


def _boundaries(information: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """[R, L] of difference · information: roll back at or below, promote at or above."""
    nearer = _SIEGMUND * np.sqrt(information / np.arange(1, information.shape[1] + 1))
    fast, slow = rule.fast, rule.slow

    def flat(alphas: tuple[float, float]) -> np.ndarray:
        soon = np.where(
            information <= _LATE * fast, _z(alphas[0]) * np.sqrt(np.maximum(information, fast)), np.inf
        )
        late = _z(alphas[1]) * np.sqrt(np.maximum(information, slow))
        return np.minimum(soon, late) - nearer

    below = -flat(rule.rollback)
    above = flat(rule.promotion) - rule.margin * information
    # From `slow` on the two have met: what is not rolled back is promoted.
    return below, np.where(information >= slow, np.nextafter(below, np.inf), above)


def limits(looks: Looks, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """[R, L] the differences at which a look would roll back, and promote; infinite where it would not."""
    below, above = _boundaries(looks.information, rule)
    with np.errstate(divide="ignore", invalid="ignore"):
        known = looks.information > 0
        return (
            np.where(known, below / looks.information, -np.inf),
            np.where(known, above / looks.information, np.inf),
        )
