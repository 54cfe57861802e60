"""Ingest of a whole deployment against DuckDB, which only reads it into Parquet."""

import statistics
from pathlib import Path

from benchmarks.data import arm, stores
from benchmarks.data.arm import Measured
from benchmarks.data.goals import Goal
from benchmarks.data.results import Found

TIME_GOAL, MEMORY_GOAL = 3.0, 6 * 2**30


def measure(folder: Path, root: Path, repeats: int) -> Found:
    """Both arms by turns, `repeats` times; medians. The last store is left at `root`."""
    ours: list[Measured] = []
    theirs: list[Measured] = []
    parquet = root.with_name(f"{root.name}.duckdb.parquet")
    for _ in range(repeats):
        stores.remove(root)
        try:
            theirs.append(arm.run("benchmarks.data.ingest_duckdb", str(folder), str(parquet)))
        finally:
            parquet.unlink(missing_ok=True)
        ours.append(arm.run("benchmarks.data.ingest_ours", str(folder), str(root)))
    said = ours[-1].said
    stores.remember(root, said)
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(ours, theirs, strict=True))
    peak = max(run.peak_bytes for run in ours)
    size = sum(file.stat().st_size for file in folder.glob("*.jsonl"))
    seconds, events = statistics.median(run.seconds for run in ours), said["events_new"]
    their_seconds = statistics.median(run.seconds for run in theirs)
    their_peak = max(run.peak_bytes for run in theirs)
    cpu, their_cpu = (statistics.median(run.cpu_seconds for run in runs) for runs in (ours, theirs))
    goals = [
        Goal("conversations, events, GB", f"{said['conversations']}, {events}, {size / 1e9:.2f}"),
        Goal("ingest, s (µs an event)", f"{seconds:.1f} ({seconds / events * 1e6:.1f})"),
        Goal(f"DuckDB {theirs[0].said['version']} into Parquet, s", f"{their_seconds:.1f}"),
        Goal("ingest ÷ DuckDB, time", f"{ratio:.2f}", f"≤ {TIME_GOAL:g}", ratio <= TIME_GOAL),
        Goal("CPU seconds, ours, DuckDB's", f"{cpu:.1f}, {their_cpu:.1f}"),
        Goal(
            "peak memory of all processes, GiB",
            f"{peak / 2**30:.2f}",
            f"≤ {MEMORY_GOAL / 2**30:g}",
            peak <= MEMORY_GOAL,
        ),
        Goal("DuckDB's, GiB", f"{their_peak / 2**30:.2f}"),
    ]
    return Found(
        goals,
        utterances=stores.utterances(said),
        seconds=seconds,
        cpu_seconds=cpu,
        peak_bytes=peak,
        start_seconds=statistics.median(run.said["start_seconds"] for run in ours),
        ratio=ratio,
        also={"peer_seconds": their_seconds, "peer_peak_bytes": their_peak, "events": events},
    )
