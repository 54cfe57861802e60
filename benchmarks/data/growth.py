"""How the measures grow with the deployment: the same ones at several sizes, in a table and a plot.

Nothing may grow faster than its input. Between two neighbouring sizes the exponent k of time ~ utterances^k
is told, without what does not depend on the size (`Found.start_seconds`), and what a further utterance cost,
which no fixed cost touches. One curve through four points would hide where it bends.
"""

import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.data import deployment, growth_plot, measures, results
from benchmarks.data.goals import Goal, table_of
from benchmarks.data.results import Result

SIZES = (10_000, 30_000, 100_000, 353_000)
LINEAR = 1.0
NOISE = 0.1  # a tenth more time at three times the size is an exponent of 1.09
MEMORY_GOAL = 6 * 2**30


@dataclass(frozen=True, slots=True)
class Plan:
    """
    deployments   folder of `deployment-N`; those that are missing are made there, and stay
    stores        folder of the stores, which is removed at the end
    results       file to which every result is added as soon as it is there
    keep          take what this file holds of this processor instead of measuring it again
    """

    sizes: Sequence[int]
    names: Sequence[str]
    deployments: Path
    stores: Path
    results: Path
    plot: Path
    keep: bool = False
    repeats: int = 1


def grow(plan: Plan, console: Console) -> list[str]:
    """Measure, print and draw. Returns what failed: a failure costs its own result only."""
    known = results.read(plan.results) if plan.keep else []
    found = [result for result in known if result.processor == results.processor()]
    failed: list[str] = []
    try:
        for size in sorted(plan.sizes):
            _at_size(plan, size, found, failed, console)
            shutil.rmtree(plan.stores, ignore_errors=True)  # the next one needs the disk
    finally:
        shutil.rmtree(plan.stores, ignore_errors=True)
    drawn = curves(found, plan.sizes, plan.names)
    if drawn:
        console.print(table(drawn))
        console.print(table_of("growth", goals(drawn)))
        growth_plot.draw(drawn, plan.plot)
        console.print(f"drawn: {plan.plot}", highlight=False, soft_wrap=True)
    return failed


def _at_size(plan: Plan, size: int, found: list[Result], failed: list[str], console: Console) -> None:
    """What `found` lacks at this size is added to it, or to `failed`."""
    known = results.latest(found)
    folder, root = plan.deployments / f"deployment-{size}", plan.stores / f"store-{size}"
    for name in [name for name in plan.names if (name, size) not in known]:
        console.print(f"{name} of {size} conversations …", highlight=False)
        try:
            if len(list(folder.glob("chunk_*.jsonl"))) < deployment.CHUNKS:
                deployment.write(folder, size)
            root.parent.mkdir(parents=True, exist_ok=True)
            found.append(measures.run(name, size, folder, root, plan.repeats, plan.results)[1])
        except Exception as error:  # told here and at the end; what the others found is not lost
            traceback.print_exc()
            failed.append(f"{name} of {size} conversations: {type(error).__name__}: {error}")


def curves(found: Sequence[Result], sizes: Sequence[int], names: Sequence[str]) -> dict[str, list[Result]]:
    """measure -> its latest result at each size, smallest first; measures without any are left out."""
    last = results.latest(found)
    all_ = {name: [last[name, size] for size in sorted(sizes) if (name, size) in last] for name in names}
    return {name: curve for name, curve in all_.items() if curve}


def exponents(curve: Sequence[Result]) -> list[float]:
    """[sizes - 1] of time against utterances, between neighbouring sizes."""
    return [log(_work(b) / _work(a)) / log(b.utterances / a.utterances) for a, b in pairwise(curve)]


def marginal(curve: Sequence[Result]) -> list[float]:
    """[sizes - 1] microseconds that each utterance cost which the larger one of two neighbours has more."""
    return [1e6 * (b.seconds - a.seconds) / (b.utterances - a.utterances) for a, b in pairwise(curve)]


def _work(result: Result) -> float:
    """Seconds that depend on the size."""
    return max(result.seconds - result.start_seconds, 1e-3)


def table(found: dict[str, list[Result]]) -> Table:
    made = Table(title="growth")
    made.add_column("measure")
    for name in ("conversations", "utterances", "s", "start, s", "µs each", "CPU µs"):
        made.add_column(name, justify="right")
    for name in ("exponent", "µs a further", "peak GiB", "ratio"):
        made.add_column(name, justify="right")
    for name, curve in found.items():
        slopes = ["", *(f"{slope:.2f}" for slope in exponents(curve))]
        costs = ["", *(f"{cost:.2f}" for cost in marginal(curve))]
        for result, slope, cost in zip(curve, slopes, costs, strict=True):
            each = 1e6 / result.utterances
            made.add_row(
                name,
                str(result.conversations),
                str(result.utterances),
                f"{result.seconds:.1f}",
                f"{result.start_seconds:.1f}",
                f"{_work(result) * each:.2f}",
                f"{result.cpu_seconds * each:.2f}",
                slope,
                cost,
                f"{result.peak_bytes / 2**30:.2f}",
                "" if result.ratio is None else f"{result.ratio:.3g}",
            )
    return made


def goals(found: dict[str, list[Result]]) -> list[Goal]:
    """The exponent between the two largest sizes, where fixed costs hide least, and the peak of all sizes."""
    made = []
    for name, curve in found.items():
        if len(curve) > 1:
            last, most = exponents(curve)[-1], LINEAR + NOISE
            told = f"≤ {LINEAR:g}, measured to {NOISE:g}"
            made.append(Goal(f"{name}, exponent at the largest sizes", f"{last:.2f}", told, last <= most))
        peak = max(result.peak_bytes for result in curve)
        made.append(Goal(f"{name}, peak GiB", f"{peak / 2**30:.2f}", "≤ 6", peak <= MEMORY_GOAL))
    return made
