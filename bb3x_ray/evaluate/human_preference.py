"""Which version people prefer, from their blind comparisons: net preference with an interval over people."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bb3x_ray.schemas.comparison import HumanChoice
from bb3x_ray.schemas.learning import Interval

DRAWS = 2000
# Fewer people than this say too little for an interval by bootstrap, which is too narrow then.
FEWEST_PEOPLE = 10


@dataclass(frozen=True, slots=True)
class Preference:
    """How people chose between `newer` and `older` (by name).

    net   share that prefers the newer one minus share that prefers the older one, from -1 to 1; its 95 %
          interval is a bootstrap over people, since one person's choices are not independent
    """

    newer: str
    older: str
    choices: int
    people: int
    for_newer: int
    for_older: int
    both: int
    neither: int
    net: Interval

    @property
    def is_clear(self) -> bool:
        """Whether the interval says who is preferred, and enough people were asked to believe it."""
        return self.people >= FEWEST_PEOPLE and not self.net.low <= 0 <= self.net.high

    def to_dict(self) -> dict[str, Any]:
        net = {"value": self.net.value, "low": self.net.low, "high": self.net.high}
        counts = {
            name: getattr(self, name)
            for name in ("newer", "older", "choices", "people", "for_newer", "for_older", "both", "neither")
        }
        return {**counts, "net": net, "clear": self.is_clear}


def human_preferences(
    choices: Iterable[HumanChoice], seed: int = 0, weight: Callable[[str], float] = lambda person: 1.0
) -> list[Preference]:
    """One for each pair of versions that people compared, the newest pair first.

    weight   what a person's choices count in `net`, 0 to 1: their trust; the counts are of all choices
    """
    pairs: dict[tuple[str, str], list[HumanChoice]] = defaultdict(list)
    for choice in choices:
        older, newer = sorted((choice.version_a, choice.version_b), key=_age)
        pairs[newer, older].append(choice)
    found = [_preference(*pair, said, seed, weight) for pair, said in pairs.items()]
    return sorted(found, key=lambda one: (_age(one.newer), _age(one.older)), reverse=True)


def _age(version: str) -> tuple[int, str]:
    """v0010 is newer than v0009, and than v9."""
    digits = version.removeprefix("v")
    return (int(digits) if digits.isdigit() else -1, version)


def _preference(
    newer: str, older: str, said: Sequence[HumanChoice], seed: int, weight: Callable[[str], float]
) -> Preference:
    signs = [choice.for_version(newer) for choice in said]
    of_person: dict[str, list[int]] = defaultdict(list)
    for choice, sign in zip(said, signs, strict=True):
        of_person[choice.person].append(sign)
    return Preference(
        newer=newer,
        older=older,
        choices=len(said),
        people=len(of_person),
        for_newer=signs.count(1),
        for_older=signs.count(-1),
        both=sum(choice.choice == "both" for choice in said),
        neither=sum(choice.choice == "neither" for choice in said),
        net=_net(of_person, seed, weight),
    )


def _net(of_person: dict[str, list[int]], seed: int, weight: Callable[[str], float]) -> Interval:
    """Weighted mean of all choices; people are drawn whole. Nobody of any weight: anything from -1 to 1."""
    weights = np.array([weight(person) for person in of_person])
    sums = weights * np.array([sum(signs) for signs in of_person.values()])
    counts = weights * np.array([len(signs) for signs in of_person.values()])
    if counts.sum() == 0:
        return Interval(0.0, -1.0, 1.0)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sums), (DRAWS, len(sums)))
    totals = counts[drawn].sum(axis=1)
    means = sums[drawn].sum(axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))
