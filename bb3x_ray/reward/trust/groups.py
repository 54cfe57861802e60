"""Accounts that do the same far more often than chance has it.

A deed is a thumb of one kind on near-same words, the same in any order. If people chose deeds independently
of each other, each as often as everybody does it, two accounts with n and m deeds would share n · m · Σ q² of
them, q the share of each among all deeds: rarely more than one, and where many say "hello", that is in q.
Shared deeds are counted once by what was said to the bot and once by what it said; and, so that hellos do
not hide what is rare, four times in each: among all deeds and among those that are ever rarer. Pairs that
share at least two, and so many that a Poisson count does it with a chance below `false_alarms` ÷ (number of
pairs · 8), are linked, and what is linked is a group. In a round where nobody is coordinated, the chance that
any group is found is thus at most `false_alarms` (Bonferroni).

What people share because the same page or lesson told them what to say is a group as well: that is why
a group is not distrusted for being one. It counts as one person, and is trusted as that person would be.
It stays one in later rounds, in which new accounts may join it.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from bb3x_ray.reward.signals import Signal

_WORD = re.compile(r"\w+")
_LEAST_WORDS = 3  # "hi" and "oh really" are everybody's
_LEAST_SHARED = 2
_NEIGHBOURS = 32  # of a deed that more accounts did, each is compared with so many next to it
_TERMS = 40
_RARE = (1.0, 0.05, 0.01, 0.002)  # largest share of all deeds


def deeds_of(signals: Sequence[Signal]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(which signal [M], which deed [M]), by what was said to the bot and by what it said."""
    found = []
    for of_bot in (False, True):
        number: dict[tuple[int, frozenset[str]], int] = {}
        rows: list[tuple[int, int]] = []
        for row, signal in enumerate(signals):
            text = signal.reply if of_bot else signal.context.partition("\n")[0]
            words = frozenset(_WORD.findall(text.lower()))
            if len(words) >= _LEAST_WORDS:
                rows.append((row, number.setdefault((signal.label, words), len(number))))
        columns = np.array(rows, np.int64).reshape(-1, 2)
        found.append((columns[:, 0], columns[:, 1]))
    return found


def find_groups(
    deeds: Sequence[tuple[np.ndarray, np.ndarray]], candidates: np.ndarray, false_alarms: float, least: int
) -> list[np.ndarray]:
    """Groups of at least `least` people, each an array of their numbers, the largest first.

    deeds        for each way of looking at deeds: (person [M], deed [M]), who did what; again counts once
    candidates   [P] bool: who may belong to a group, such as new accounts
    """
    linked: set[tuple[int, int]] = set()
    chance = false_alarms / (len(_RARE) * max(1, len(deeds)))
    for person, deed in deeds:
        both = np.unique(np.stack([person, deed], 1), axis=0)
        share = np.bincount(both[:, 1]) / max(1, len(both))
        for rarest in _RARE:
            linked |= _linked(both[share[both[:, 1]] <= rarest], candidates, chance)
    groups = [group for group in _components(sorted(linked)) if len(group) >= least]
    return _in_order(groups)


def joined(found: Sequence[np.ndarray], remembered: Sequence[Sequence[int]], least: int) -> list[np.ndarray]:
    """All groups of people, each an array of their numbers, the largest first: the remembered ones with
    whoever was found to do the same as one of them, and what was found besides of at least `least` people."""
    members = [[int(person) for person in group] for group in (*found, *remembered)]
    known = {person for group in remembered for person in group}
    together = _components([(group[0], person) for group in members for person in group])
    return _in_order([group for group in together if len(group) >= least or group & known])


def _in_order(groups: Sequence[set[int]]) -> list[np.ndarray]:
    return sorted((np.array(sorted(g)) for g in groups), key=lambda g: (-len(g), int(g[0])))


def _linked(both: np.ndarray, candidates: np.ndarray, false_alarms: float) -> set[tuple[int, int]]:
    """Pairs of candidates who share more of these deeds ([M, 2] person and deed) than chance has it."""
    if not len(both):
        return set()
    person, deed = both.T
    alike = float(((np.bincount(deed) / len(deed)) ** 2).sum())
    own = np.bincount(person, minlength=len(candidates))
    people = int((candidates & (own > 0)).sum())
    limit = false_alarms / max(1, people * (people - 1) // 2)
    first, second, count = _shared(person[candidates[person]], deed[candidates[person]], len(candidates))
    return {
        (a, b)
        for a, b, n in zip(first.tolist(), second.tolist(), count.tolist(), strict=True)
        if _tail(n, own[a] * own[b] * alike) < limit
    }


def _shared(person: np.ndarray, deed: np.ndarray, people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, how many deeds they share) of the pairs that share at least _LEAST_SHARED."""
    order = np.lexsort((person, deed))
    person, deed = person[order], deed[order]
    codes = []
    for step in range(1, _NEIGHBOURS + 1):
        same = np.flatnonzero(deed[step:] == deed[:-step])
        if not len(same):
            break
        codes.append(person[same] * people + person[same + step])
    code, count = np.unique(np.concatenate([np.zeros(0, np.int64), *codes]), return_counts=True)
    code, count = code[count >= _LEAST_SHARED], count[count >= _LEAST_SHARED]
    return code // people, code % people, count


def _tail(count: int, expected: float) -> float:
    """P(a Poisson count with this mean is `count` or more)."""
    first = math.exp(-expected + count * math.log(max(expected, 1e-300)) - math.lgamma(count + 1))
    total, term = 0.0, first
    for i in range(1, _TERMS):
        total += term
        term *= expected / (count + i)
    return min(1.0, total) if expected < count else 1.0


def _components(links: Sequence[tuple[int, int]]) -> list[set[int]]:
    home: dict[int, int] = {}

    def root(a: int) -> int:
        home.setdefault(a, a)
        while home[a] != a:
            home[a] = home[home[a]]
            a = home[a]
        return a

    for first, second in links:
        home[root(first)] = root(second)
    members: defaultdict[int, set[int]] = defaultdict(set)
    for a in list(home):
        members[root(a)].add(a)
    return list(members.values())
