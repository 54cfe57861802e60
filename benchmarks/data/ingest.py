"""Ingest of a whole deployment against DuckDB, which only reads it into Parquet."""

import shutil
import statistics
from pathlib import Path

from benchmarks.data import arm
from benchmarks.data.arm import Measured
from benchmarks.data.goals import Goal

TIME_GOAL, MEMORY_GOAL = 3.0, 6 * 2**30


def measure(folder: Path, aside: Path, repeats: int) -> list[Goal]:
    """Both arms by turns, `repeats` times; medians. What they write under `aside` is removed."""
    ours: list[Measured] = []
    theirs: list[Measured] = []
    for _ in range(repeats):
        theirs.append(arm.run("benchmarks.data.ingest_duckdb", str(folder), str(aside / "duckdb.parquet")))
        (aside / "duckdb.parquet").unlink()
        ours.append(arm.run("benchmarks.data.ingest_ours", str(folder), str(aside / "store")))
        shutil.rmtree(aside / "store")
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(ours, theirs, strict=True))
    peak = max(run.peak_bytes for run in ours)
    size = sum(file.stat().st_size for file in folder.glob("*.jsonl"))
    seconds, events = statistics.median(run.seconds for run in ours), ours[0].said["events_new"]
    their_seconds = statistics.median(run.seconds for run in theirs)
    their_peak = max(run.peak_bytes for run in theirs)
    cpu, their_cpu = (statistics.median(run.cpu_seconds for run in runs) for runs in (ours, theirs))
    return [
        Goal("conversations, events, GB", f"{ours[0].said['conversations']}, {events}, {size / 1e9:.2f}"),
        Goal("ingest, s (µs an event)", f"{seconds:.1f} ({seconds / events * 1e6:.1f})"),
        Goal(f"DuckDB {theirs[0].said['version']} into Parquet, s", f"{their_seconds:.1f}"),
        Goal("ingest ÷ DuckDB, time", f"{ratio:.2f}", f"≤ {TIME_GOAL:g}", ratio <= TIME_GOAL),
        Goal("CPU seconds, ours, DuckDB's, ratio", f"{cpu:.1f}, {their_cpu:.1f}, {cpu / their_cpu:.2f}"),
        Goal(
            "peak memory of all processes, GiB",
            f"{peak / 2**30:.2f}",
            f"≤ {MEMORY_GOAL / 2**30:g}",
            peak <= MEMORY_GOAL,
        ),
        Goal("DuckDB's, GiB", f"{their_peak / 2**30:.2f}"),
    ]
