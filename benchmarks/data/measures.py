"""Every measure by its name, and how one of them is run.

A measure is `measure(folder, root, repeats)`: `folder` is a deployment (`deployment.py`), `root` the store
that holds it. `ingest` makes that store anew and leaves it; for the others it is made where it is missing.
What they leave in it beside the log is removed after them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data import acknowledged, arm, curation, ingest, stores, view
from benchmarks.data.arm import Measured
from benchmarks.data.goals import Goal
from benchmarks.data.results import Found, Result, append, result_of

Measure = Callable[[Path, Path, int], Found | list[Goal]]

# In the order in which they are run.
MEASURES: dict[str, Measure] = {
    "ingest": ingest.measure,
    "view": view.measure,
    "curation": curation.measure,
    "acks": acknowledged.measure,
}
# Those that depend on how large the deployment is.
OF_SIZE = [name for name in MEASURES if name != "acks"]


def run(
    name: str, conversations: int, folder: Path, root: Path, repeats: int, results: Path
) -> tuple[list[Goal], Result]:
    """One measure; its result is added to the file `results`. Whatever it raises goes through."""
    measure, of_size = MEASURES[name], name in OF_SIZE
    if of_size and measure is not ingest.measure:
        stores.ingested(folder, root)
    stores.tidy(root)
    try:
        found, took = arm.watched(lambda: measure(folder, root, repeats))
    finally:
        stores.tidy(root)
    if not isinstance(found, Found):
        found = _told_by_goals(found, took, stores.ingested(folder, root), repeats)
    result = result_of(name, conversations if of_size else 0, found)
    append(results, result)
    return found.goals, result


def _told_by_goals(goals: list[Goal], took: Measured, ingested: dict[str, Any], repeats: int) -> Found:
    """Of a measure that returns goals alone: what its whole call took, peers included."""
    return Found(
        goals,
        utterances=stores.utterances(ingested),
        seconds=took.seconds / repeats,
        cpu_seconds=took.cpu_seconds / repeats,
        peak_bytes=took.peak_bytes,
    )
