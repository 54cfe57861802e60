"""Does trust pay in the closed loop? Rounds of the embedded model with and without trolls, trust on and off.

    python -m benchmarks.closed_loop --store loop            # twelve rounds, about an hour and a half
    python -m benchmarks.closed_loop --store loop --table    # what is done so far

An arm is one round: simulated people talk to v0001, v0002 learns from it and answers 380 prompts, as many as
the part that is kept for evaluation gives. All arms share the prompts, those of one seed the judge and
v0001's answers as well. What is done stays done: the same command goes on after a kill.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bb3x_ray.config import Config
from bb3x_ray.config_file import load_config
from bb3x_ray.data.slices import open_slice
from bb3x_ray.evaluate.compare import Comparison, Judged, equal_length_gain, mean_interval, paired_difference
from bb3x_ray.evaluate.judged import Replies, SetJudged, judge_set
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.evaluate.replies import Answers
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.console import Speaker
from bb3x_ray.rounds.judging import Judging
from bb3x_ray.rounds.material import load_material
from bb3x_ray.rounds.people import truth_about
from bb3x_ray.rounds.run import run
from bb3x_ray.schemas.learning import Interval
from bb3x_ray.storage import Storage, read_json, write_json

ROUND, CANDIDATE, CHAMPION = "rounds/0001", "v0002", "v0001"
TROLLS = 0.3
ADVERSARIAL = 0.21  # of the prompts
DRAWS = 4000
# What all arms share, and what those of one seed do: links, so it takes no space.
_SHARED_BY_ALL = ("parts", "prompts", f"models/{CHAMPION}")
_SHARED = ("judges", f"evaluations/{CHAMPION}", f"evaluations/{CHAMPION}-brevity")


@dataclass(frozen=True, slots=True)
class Arm:
    trolls: float
    trust: bool

    @property
    def folder(self) -> str:
        return f"trolls{100 * self.trolls:.0f}-trust-{'on' if self.trust else 'off'}"

    @property
    def name(self) -> str:
        return f"{self.trolls:.0%} trolls, trust {'on' if self.trust else 'off'}"


ARMS = tuple(Arm(trolls, trust) for trolls in (0.0, TROLLS) for trust in (True, False))
CLEAN, OFF, ON = Arm(0.0, True), Arm(TROLLS, False), Arm(TROLLS, True)


@dataclass(frozen=True, slots=True)
class Loop:
    """Where and how: `prompts` is the size of sets A and B together, a fifth of them adversarial."""

    store: Path
    config: Path
    people: int = 72
    prompts: int = 380
    overrides: tuple[str, ...] = ()
    first_seed: int = 0

    def root(self, arm: Arm, seed: int) -> Path:
        return self.store / f"seed{seed}" / arm.folder

    def about(self, arm: Arm, seed: int) -> Path:
        """What an arm found; there when it is done."""
        return self.root(arm, seed) / "closed_loop.json"

    def settings(self, arm: Arm, seed: int) -> Config:
        trolls = round(arm.trolls * self.people)
        each = self.prompts // 2
        trust = [] if arm.trust else ["trust.method=none"]
        return load_config(
            self.config,
            [
                f"storage.root={self.root(arm, seed)}",
                f"seed={seed}",
                "rounds=1",
                f"talk.helpers={self.people - trolls}",
                f"talk.trolls={trolls}",
                f"evaluate.standard={each - round(each * ADVERSARIAL)}",
                f"evaluate.adversarial={round(each * ADVERSARIAL)}",
                "metrics.wandb=disabled",
                *trust,
                *self.overrides,
            ],
        )


def run_arm(loop: Loop, arm: Arm, seed: int, say: Speaker) -> None:
    """One round of an arm, unless it is done; its numbers are then in `closed_loop.json` under its root."""
    root, config = loop.root(arm, seed), loop.settings(arm, seed)
    if loop.about(arm, seed).is_file():
        return
    say(f"seed {seed}: {arm.name}")
    _share(loop, root, seed)
    run(config, say, control=False)
    write_json(loop.about(arm, seed), {"arm": arm.name, "seed": seed, **_about_round(Storage(root))})


def _share(loop: Loop, root: Path, seed: int) -> None:
    """Begin a store with what an arm that is done has of it."""
    same_seed, of_first = _done(loop, seed), _done(loop, loop.first_seed)
    first = same_seed or of_first
    if first is None or (root / "models").exists():
        return
    for name in _SHARED_BY_ALL + (_SHARED if same_seed else ()):
        shutil.copytree(first / name, root / name, copy_function=os.link)
    write_json(root / "models" / "next.json", {"next": 2})


def _done(loop: Loop, seed: int) -> Path | None:
    return next((loop.root(arm, seed) for arm in ARMS if loop.about(arm, seed).is_file()), None)


def _about_round(storage: Storage) -> dict[str, float]:
    """Who was distrusted, and how many labels are what the person's hidden preference says."""
    scored = read_json(storage.path(ROUND, "score", "scored.json"))
    kinds = truth_about(storage, ROUND, open_slice(storage, f"{ROUND}/collect"))
    distrusted = set(scored["distrusted"])
    helpers = [person for person, kind in kinds.items() if kind == "helper"]
    trolls = [person for person, kind in kinds.items() if kind != "helper"]
    report = read_json(storage.path(ROUND, "curate", "report.json"))
    return {
        "helpers": len(helpers),
        "trolls": len(trolls),
        "helpers_distrusted": len(distrusted & set(helpers)),
        "trolls_distrusted": len(distrusted & set(trolls)),
        "imitate": report["imitate"],
        "avoid": report["avoid"],
    }


@dataclass(frozen=True, slots=True)
class Compared:
    """Two versions on the same prompts: `first` minus `second`, by the judge at equal length and by the
    people's hidden preference. Seeds are strata: intervals are over prompts."""

    judged: Comparison
    truth: tuple[np.ndarray, np.ndarray]

    @property
    def gain(self) -> Interval:
        return equal_length_gain(self.judged, DRAWS, 0)

    @property
    def true_gain(self) -> Interval:
        return paired_difference(*self.truth, self.judged.kinds, DRAWS, 0)


class Seed:
    """What one seed's arms answered, put before that seed's judge."""

    def __init__(self, loop: Loop, seed: int, arm: Arm) -> None:
        config = loop.settings(arm, seed)
        storage = Storage(config.storage.root)
        material = load_material(storage, config.evaluate, seed)
        judging = Judging(storage, Registry(storage, "models"), material, config, lambda _: None)
        self._loop, self._seed = loop, seed
        self._prompts: list[Prompt] = [*material.sets.a, *material.sets.b]
        self._judging = judging
        self._judge, _ = judging.judge(self.answers_of(arm, CHAMPION), [])

    def answers_of(self, arm: Arm, version: str) -> Answers:
        folder = Storage(self._loop.root(arm, self._seed)).verify(f"evaluations/{version}")
        return Answers.load(folder / "answers.json")

    def replies(self, arm: Arm, version: str = CANDIDATE) -> Replies:
        answers = self.answers_of(arm, version).replies
        both = [answers["A"], answers["B"]]
        return Replies([t for r in both for t in r.texts], [f for r in both for f in r.finish_reasons])

    def compare(self, first: Replies, second: Replies) -> SetJudged:
        return judge_set(self._prompts, first, second, self._judge, truth=self._judging.truth)


def compared(sets: Sequence[SetJudged]) -> Compared:
    """Sets of several seeds as one; each seed and kind of prompt is a stratum."""
    parts = [one.comparison for one in sets]
    kinds = np.concatenate([[f"{i} {kind}" for kind in part.kinds] for i, part in enumerate(parts)])

    def joined(name: str) -> Judged:
        sides = [getattr(part, name) for part in parts]
        return Judged(
            *(
                np.concatenate([getattr(s, f) for s in sides])
                for f in ("good", "unsafe", "structural", "words")
            )
        )

    truth = tuple(np.concatenate([one.truth[side] for one in sets]) for side in ("candidate", "champion"))
    comparison = Comparison(kinds, *(joined(name) for name in ("first", "second", "first_cut", "second_cut")))
    return Compared(comparison, (truth[0], truth[1]))


def table(loop: Loop, seeds: Sequence[int]) -> str:
    """What is done so far, in Markdown: arms, then differences between them, with intervals."""
    done = {seed: [arm for arm in ARMS if loop.about(arm, seed).is_file()] for seed in seeds}
    judged = {seed: Seed(loop, seed, arms[0]) for seed, arms in done.items() if arms}
    return "\n".join([*_arm_rows(loop, judged, done), "", *_difference_rows(judged, done)])


def _arm_rows(loop: Loop, judged: dict[int, Seed], done: dict[int, list[Arm]]) -> Iterator[str]:
    heads = ("arm", "seeds", "good, by the judge", "by the hidden preference", "over v0001 at equal length")
    yield _row(*heads, "distrusted: trolls, helpers")
    yield _row(*["---"] * 6)
    for arm in ARMS:
        seeds = [seed for seed in judged if arm in done[seed]]
        if not seeds:
            continue
        over = compared(
            [judged[s].compare(judged[s].replies(arm), judged[s].replies(arm, CHAMPION)) for s in seeds]
        )
        about = [read_json(loop.about(arm, seed)) for seed in seeds]
        good = mean_interval(over.judged.first.is_good, over.judged.kinds, DRAWS, 0)
        truth = mean_interval(over.truth[0], over.judged.kinds, DRAWS, 0)
        caught = (sum(one[f"{who}_distrusted"] for one in about) for who in ("trolls", "helpers"))
        of = (sum(one[who] for one in about) for who in ("trolls", "helpers"))
        who = ", ".join(f"{n} of {all_}" for n, all_ in zip(caught, of, strict=True))
        yield _row(arm.name, str(len(seeds)), _points(good), _points(truth), _points(over.gain), who)


def _difference_rows(judged: dict[int, Seed], done: dict[int, list[Arm]]) -> Iterator[str]:
    yield _row(
        "points [over prompts, seeds fixed]",
        "by the judge, equal length",
        "each seed",
        "by the hidden preference",
        "each seed",
    )
    yield _row(*["---"] * 5)
    for first, second in ((ON, OFF), (ON, CLEAN), (CLEAN, Arm(0.0, False))):
        sets = [
            judged[s].compare(judged[s].replies(first), judged[s].replies(second))
            for s in judged
            if first in done[s] and second in done[s]
        ]
        if sets:
            whole, each = compared(sets), [compared([one]) for one in sets]
            seeds = ", ".join(f"{100 * one.gain.value:+.1f}" for one in each)
            true_seeds = ", ".join(f"{100 * one.true_gain.value:+.1f}" for one in each)
            name = f"{first.name} − {second.name}"
            yield _row(name, _points(whole.gain), seeds, _points(whole.true_gain), true_seeds)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.closed_loop", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--store", type=Path, required=True, help="folder for twelve stores, about 15 GB")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--config", type=Path, default=Path("configs/local.yaml"))
    parser.add_argument("--people", type=int, default=72)
    parser.add_argument("--prompts", type=int, default=380)
    names = [arm.folder for arm in ARMS]
    parser.add_argument("--arms", nargs="+", choices=names, default=names)
    parser.add_argument("--table", action="store_true", help="only show what is done so far")
    parser.add_argument("overrides", nargs="*", help="settings such as serve.port=8001")
    given = parser.parse_args(arguments)
    loop = Loop(
        given.store, given.config, given.people, given.prompts, tuple(given.overrides), given.seeds[0]
    )
    say = Speaker()
    if not given.table:
        for seed in given.seeds:
            for arm in (arm for arm in ARMS if arm.folder in given.arms):
                run_arm(loop, arm, seed, say)
    say.stop()
    sys.stdout.write(table(loop, given.seeds) + "\n")


if __name__ == "__main__":
    main()
