"""How often the canary's test errs, on simulated people whose trust is the project's own estimate.

    python -m benchmarks.canary [--runs 1000] [--seed 0]

Goals, 1,000 runs each: a canary that is 10 points worse (60 % to 50 % thumbs up) is rolled back within 750
thumbs an arm in at least 95 %; an equal one wrongly in at most 2.5 %; with a tenth of trolls in the thumbs in
at most 4 %.

Replies are good or bad. A helper is right about a good one, and about a bad one, by chances of their own
(each a Beta(9, 1.5)), and talks about what the models can do well or badly (a Beta with 20 replies' weight),
so thumbs of one person are alike. Half of the people give one thumb, the mean is two. Everybody has a record
from earlier rounds, 20 thumbs on average and often far fewer, which fold models (AUROC about .7) judged;
trust is `reward.trust.confusion` of that record, trolls among the rest. The reward model scores as well.
"""

import argparse
import time
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from rich.console import Console
from rich.table import Table

from bb3x_ray.reward.trust.confusion import LEVELS, Population, level_of
from bb3x_ray.serve.canary.compare import Answers
from bb3x_ray.serve.canary.sequential import PROMOTE, ROLLBACK, Rule, look_through

THUMBS = 750
_GOOD, _TOPIC = 0.64, 20.0  # share of good replies of the champion; how alike one person's replies are
_RIGHT = (9.0, 1.5)
_SEPARATION = 0.8  # of good and bad replies in the fold models' and the reward model's log odds
_RECORD, _WINDOW = 20.0, 2.0  # thumbs of a person before the canary, and during it
_HELPERS, _TROLLS = 18_000, 2_000
_OUT_OF_ORDER = 150  # how far apart one person's thumbs lie


@dataclass(frozen=True, slots=True)
class Trolls:
    """What trolls did before, what they do on each version, and their share of its thumbs."""

    record: str
    champion: str
    candidate: str
    shares: tuple[float, float] = (0.1, 0.1)


@dataclass(frozen=True, slots=True)
class People:
    """[P] helpers, then trolls: trust, share of thumbs up before, chances of being right, good replies."""

    trust: np.ndarray
    up_before: np.ndarray
    about_good: np.ndarray
    about_bad: np.ndarray
    good: np.ndarray


def presses(
    kind: str, good: np.ndarray, people: People, who: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Whether the thumb of `who` on a good or bad reply is up."""
    chance = random.random(good.shape)
    up = np.where(good, chance < people.about_good[who], chance >= people.about_bad[who])
    if kind == "honest":
        return up
    if kind == "turned round":
        return ~up
    if kind == "random":
        return chance < 0.5
    return np.full(good.shape, kind == "always up")


def said(good: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What models that cannot see the thumb give a reply."""
    odds = np.where(good, _SEPARATION / 2, -_SEPARATION / 2) + random.normal(0, 1, good.shape)
    return 1 / (1 + np.exp(-odds - np.log(_GOOD / (1 - _GOOD))))


def make_people(trolls: Trolls | None, random: np.random.Generator) -> People:
    kinds = [("honest", _HELPERS)] + ([(trolls.record, _TROLLS)] if trolls and trolls.record else [])
    counts, made = [], []
    for kind, size in kinds:
        one = People(
            np.ones(size),
            np.ones(size),
            random.beta(*_RIGHT, size),
            random.beta(*_RIGHT, size),
            random.beta(_GOOD * _TOPIC, (1 - _GOOD) * _TOPIC, size),
        )
        who = np.repeat(np.arange(size), random.geometric(1 / _RECORD, size))
        good = random.random(len(who)) < one.good[who]
        up = presses(kind, good, one, who, random)
        place = (who * 2 + up) * len(LEVELS) + level_of(said(good, random))
        counts.append(np.bincount(place, minlength=size * 2 * len(LEVELS)).reshape(size, -1).astype(float))
        made.append(one)
    record = np.concatenate(counts)
    found = Population.of(record, 0.5, 2)
    about_good, about_bad, good = (
        np.concatenate([getattr(one, name) for one in made]) for name in ("about_good", "about_bad", "good")
    )
    trust = found.trust * ~found.distrusted
    up_before = (record[:, len(LEVELS) :].sum(1) + 2 * 0.6) / (record.sum(1) + 2)
    if trolls and not trolls.record:  # new accounts: nobody knows them, so they do not count
        trust, up_before = np.append(trust, np.zeros(_TROLLS)), np.append(up_before, np.full(_TROLLS, 0.6))
        about_good, about_bad, good = (
            np.append(a, np.full(_TROLLS, a.mean())) for a in (about_good, about_bad, good)
        )
    return People(trust, up_before, about_good, about_bad, good)


def _thumbs_of(runs: int, count: int, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """([R, count] a number for the person of each thumb, how many people there can be)."""
    people = int(count / _WINDOW * 1.4) + 60
    start = np.cumsum(random.geometric(1 / _WINDOW, (runs, people)), 1)
    new = np.zeros((runs, count + 1), np.int64)
    rows, columns = np.nonzero(start < count)
    new[rows, start[rows, columns]] = 1
    unit = new[:, :count].cumsum(1)
    order = np.argsort(np.arange(count) + random.uniform(0, _OUT_OF_ORDER, (runs, count)), 1)
    return np.take_along_axis(unit, order, 1), people


def simulate(
    runs: int, worse: float, trolls: Trolls | None, every_nth: int, thumbs: int, seed: int
) -> Answers:
    """`runs` canaries of `thumbs` thumbs on the candidate, which gets every nth thumb of all.

    worse   by how much the helpers' share of thumbs up is lower on the candidate
    """
    random = np.random.default_rng(seed)
    people = make_people(trolls, random)
    told = people.about_good[:_HELPERS].mean() + people.about_bad[:_HELPERS].mean() - 1
    arms = []
    for arm, count in enumerate((thumbs * (every_nth - 1), thumbs)):
        unit, units = _thumbs_of(runs, count, random)
        who = random.integers(0, _HELPERS, (runs, units))
        share = trolls.shares[arm] if trolls else 0.0
        is_troll = random.random((runs, units)) < share
        who = np.where(is_troll, _HELPERS + random.integers(0, _TROLLS, (runs, units)), who)
        of_thumb = np.take_along_axis(who, unit, 1)
        good = random.random(unit.shape) < people.good[of_thumb] - arm * worse / told
        up = presses("honest", good, people, of_thumb, random)
        if trolls:
            kind = trolls.candidate if arm else trolls.champion
            trolled = presses(kind, good, people, of_thumb, random)
            up = np.where(np.take_along_axis(is_troll, unit, 1), trolled, up)
        score = said(good, random)
        mean = said(random.random(200_000) < _GOOD - arm * worse / told, random).mean()  # of all replies
        controls = np.stack([people.up_before[of_thumb], score - mean], 2)
        arms.append((unit, up.astype(float), controls, people.trust[who]))
    place = np.arange(thumbs * every_nth)
    to_candidate = place % every_nth == every_nth - 1
    order = np.empty(len(place), np.int64)
    order[~to_candidate] = np.arange((~to_candidate).sum())
    order[to_candidate] = np.arange(to_candidate.sum()) + (~to_candidate).sum()
    offset = arms[0][3].shape[1]
    unit = np.concatenate([arms[0][0], arms[1][0] + offset], 1)[:, order]
    value = np.concatenate([arms[0][1], arms[1][1]], 1)[:, order]
    controls = np.concatenate([arms[0][2], arms[1][2]], 1)[:, order]
    weight = np.concatenate([arms[0][3], arms[1][3]], 1)
    candidate = np.broadcast_to(np.arange(weight.shape[1]) >= offset, weight.shape)
    return Answers(unit, value, controls, weight, candidate)


def interval(share: float, runs: int) -> tuple[float, float]:
    """Wilson's 95 % interval."""
    z = NormalDist().inv_cdf(0.975)
    middle = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z * np.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs)) / (1 + z * z / runs)
    return middle - half, middle + half


@dataclass(frozen=True, slots=True)
class Case:
    """`goal`: at least (positive), or at most (negative), this share of runs is rolled back; None: told."""

    name: str
    worse: float
    trolls: Trolls | None
    goal: float | None
    every_nth: int = 2
    thumbs: int = THUMBS


ON_CANDIDATE = (0.0, 0.1)
CASES = (
    Case("10 points worse", 0.10, None, 0.95),
    Case("equal", 0.0, None, -0.025),
    Case("trolls: always down, on both", 0.0, Trolls("always down", "always down", "always down"), -0.04),
    Case("trolls: turned round, on both", 0.0, Trolls("turned round", *["turned round"] * 2), -0.04),
    Case("trolls: at random, on both", 0.0, Trolls("random", "random", "random"), -0.04),
    Case(
        "trolls: always down, silent on champion",
        0.0,
        Trolls("always down", "honest", "always down", ON_CANDIDATE),
        -0.04,
    ),
    Case("trolls: new accounts, down", 0.0, Trolls("", "honest", "always down", ON_CANDIDATE), -0.04),
    Case(
        "trolls: turned round, then down",
        0.0,
        Trolls("turned round", "honest", "always down", ON_CANDIDATE),
        None,
    ),
    Case("trolls: down, champion up", 0.0, Trolls("always down", "always up", "always down"), None),
    Case("sleepers: honest, then down", 0.0, Trolls("honest", "honest", "always down", ON_CANDIDATE), None),
    Case("10 worse, a tenth always down", 0.10, Trolls("always down", "always down", "always down"), None),
    Case("10 points worse, a fifth of people", 0.10, None, None, every_nth=5),
    Case("5 points worse", 0.05, None, None, thumbs=3000),
    Case("equal, longer", 0.0, None, None, thumbs=3000),
    Case("5 points better", -0.05, None, None, thumbs=3000),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=len(CASES), help="the first so many")
    asked = parser.parse_args()
    console, missed, began = Console(width=150), [], time.monotonic()
    table = Table(title=f"{asked.runs} simulated canaries a row; thumbs are those of the candidate")
    for column in ("canary", "thumbs", "rolled back", "95 %", "goal", "promoted", "thumbs, median", "90 %"):
        table.add_column(column, justify="left" if column == "canary" else "right")
    for number, case in enumerate(CASES[: asked.cases]):
        runs = asked.runs if case.thumbs <= THUMBS else max(1, asked.runs // 5)
        answers = simulate(
            runs, case.worse, case.trolls, case.every_nth, case.thumbs, asked.seed * 1000 + number
        )
        decision, after = look_through(answers, Rule()).first()
        share = float((decision == ROLLBACK).mean())
        low, high = interval(share, runs)
        goal = "" if case.goal is None else f"{'≥' if case.goal > 0 else '≤'} {abs(case.goal):.1%}"
        if case.goal is not None and not (share >= case.goal if case.goal > 0 else share <= -case.goal):
            missed.append(case.name)
        ended = np.sort(np.where(decision > 0, after / case.every_nth, np.inf))
        median, most = ended[int(0.5 * (runs - 1))], ended[int(0.9 * (runs - 1))]
        table.add_row(
            case.name,
            f"{case.thumbs}",
            f"{share:.1%}",
            f"{low:.1%} – {high:.1%}",
            goal,
            f"{(decision == PROMOTE).mean():.1%}",
            *(f"{value:.0f}" if np.isfinite(value) else "more" for value in (median, most)),
        )
    console.print(table)
    console.print(
        f"{time.monotonic() - began:.0f} s; goals {'missed: ' + ', '.join(missed) if missed else 'reached'}"
    )
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
