"""How long a thumb waits until it is durable, on this disk and in an object store beside it (`acks.py`)."""

import statistics
from pathlib import Path

from benchmarks.data import acks, arm
from benchmarks.data.acks import AckTimes
from benchmarks.data.goals import Goal
from benchmarks.data.results import Found

GOAL_MS = 50.0
WAYS = ("disk", "shared")


def measure(folder: Path, root: Path, repeats: int, seconds: float = 60.0) -> Found:
    """200 thumbs a second from 8 connections for `seconds`, `repeats` times each way; medians, and what was
    lost or doubled in all of them. The disk is that of `root`; `folder` is not looked at."""
    root.parent.mkdir(parents=True, exist_ok=True)

    def run() -> dict[str, list[AckTimes]]:
        return {way: [acks.measure(way, seconds, folder=root.parent) for _ in range(repeats)] for way in WAYS}

    runs, took = arm.watched(run)
    return Found(
        [goal for way in WAYS for goal in _goals(way, runs[way])],
        utterances=sum(run.acknowledged for way in WAYS for run in runs[way]),
        seconds=took.seconds,
        cpu_seconds=took.cpu_seconds,
        peak_bytes=took.peak_bytes,
        also={
            f"{way}_{name}": _median(runs[way], name)
            for way in WAYS
            for name in ("p50_ms", "p99_ms", "max_ms", "per_second", "sync_p99_ms")
        }
        | {
            f"{way}_{name}": float(sum(getattr(run, name) for run in runs[way]))
            for way in WAYS
            for name in ("refused", "lost", "doubled")
        },
    )


def _goals(way: str, runs: list[AckTimes]) -> list[Goal]:
    p99 = _median(runs, "p99_ms")
    lost, doubled = sum(run.lost for run in runs), sum(run.doubled for run in runs)
    goal = (f"≤ {GOAL_MS:g}", p99 <= GOAL_MS) if way == "disk" else ("", None)
    return [
        Goal(f"ack: {way}, p99 in ms", f"{p99:.1f}", *goal),
        Goal(f"ack: {way}, p50, highest", f"{_median(runs, 'p50_ms'):.1f}, {_median(runs, 'max_ms'):.1f}"),
        Goal(
            f"ack: {way}, acknowledged a second; refused",
            f"{_median(runs, 'per_second'):.0f}; {sum(run.refused for run in runs)}",
        ),
        Goal(f"ack: {way}, lost, doubled", f"{lost}, {doubled}", "0, 0", lost + doubled == 0),
        Goal(f"ack: {way}, a bare fdatasync beside it, p99", f"{_median(runs, 'sync_p99_ms'):.1f}"),
    ]


def _median(runs: list[AckTimes], name: str) -> float:
    return float(statistics.median(getattr(run, name) for run in runs))
