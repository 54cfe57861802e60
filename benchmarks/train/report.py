"""From runs to ratios: the issue's goals beside what was measured."""

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from benchmarks.train.job import Measured

Runs = dict[str, list[Measured]]  # by arm, one a repeat


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median over repeats, with the lowest and the highest; each repeat compares neighbours in time."""

    name: str
    median: float
    low: float
    high: float
    goal: str
    reached: bool | None = None

    def cells(self) -> tuple[str, ...]:
        said = {True: "yes", False: "no", None: ""}[self.reached]
        return self.name, f"{self.median:.2f}", f"{self.low:.2f}–{self.high:.2f}", self.goal, said


def ratios(runs: Runs) -> list[Ratio]:
    """What can be compared of the arms that ran."""
    found = []
    if "ours" in runs:
        for rival, title in (("pairwise", "pairwise, full logits"), ("kto", "TRL's KTO trainer")):
            if rival in runs:
                each = _each(runs, lambda ours, other: ours.rate / other.rate, rival)
                found.append(_ratio(f"turns/s, ours ÷ {title}", each, at_least=8.0))
        for rival, title, goal in (("plain", "plain", 1.0), ("fused", "fused", 1.05)):
            if rival in runs:
                each = _each(runs, lambda ours, other: ours.seconds / other.seconds, rival)
                found.append(_ratio(f"step time, ours ÷ {title} cross-entropy", each, at_most=goal))
        rate = [
            run.extra["flops"] / run.seconds / run.extra["matmul_flops_per_second"] for run in runs["ours"]
        ]
        found.append(_ratio("arithmetic rate of the step ÷ large products", rate, at_least=0.6))
    if "stage1" in runs:
        share = [run.parts["model"] / run.seconds for run in runs["stage1"]]
        found.append(_ratio("model's forward and backward ÷ step, stage 1", share, at_least=0.9))
        if "fused" in runs:
            each = _each(runs, lambda ours, other: ours.seconds / other.seconds, "fused", "stage1")
            found.append(_ratio("step time, ours in stage 1 ÷ fused cross-entropy", each, at_most=1.05))
    return found


def memory_ratios(memory: dict[str, dict[str, float]]) -> list[Ratio]:
    return [
        _ratio(f"peak memory, {name}, ours ÷ full logits", [entry["ratio"]], at_most=0.35)
        for name, entry in memory.items()
    ]


def _each(runs: Runs, compare: Any, rival: str, ours: str = "ours") -> list[float]:
    return [compare(mine, other) for mine, other in zip(runs[ours], runs[rival], strict=True)]


def _ratio(
    name: str, values: list[float], *, at_least: float | None = None, at_most: float | None = None
) -> Ratio:
    middle = statistics.median(values)
    if at_least is not None:
        goal, reached = f"≥ {at_least:g}", middle >= at_least
    else:
        assert at_most is not None
        goal, reached = f"≤ {at_most:g}", middle <= at_most
    return Ratio(name, middle, min(values), max(values), goal, reached)


def ratio_table(title: str, found: list[Ratio]) -> Table:
    table = Table(title=title)
    for name in ("measure", "median", "spread", "goal", "reached"):
        table.add_column(name)
    for ratio in found:
        table.add_row(*ratio.cells())
    return table


def arm_table(title: str, runs: Runs) -> Table:
    """Turns a second are those of the whole file; "luck" is how its sample differs (see `Measured`)."""
    table = Table(title=title)
    for name in ("arm", "turns/s", "spread", "tokens/s", "tokens a turn", "luck", "peak MiB"):
        table.add_column(name)
    for arm, of_arm in runs.items():
        rates, last = [run.rate for run in of_arm], of_arm[-1]
        tokens = statistics.median(run.positions / run.seconds for run in of_arm)
        table.add_row(
            arm,
            f"{statistics.median(rates):.3f}",
            f"{min(rates):.3f}–{max(rates):.3f}",
            f"{tokens:.0f}",
            f"{last.positions / last.turns:.1f}",
            f"{last.luck:.3f}",
            f"{statistics.median(run.peak_mib for run in of_arm):.0f}",
        )
    return table


def to_json(cases: dict[str, Runs], memory: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    return {
        "setting": setting,
        "memory": memory,
        "cases": {
            case: {
                "ratios": [asdict(ratio) for ratio in ratios(runs)],
                "runs": {arm: [asdict(run) for run in of_arm] for arm, of_arm in runs.items()},
            }
            for case, runs in cases.items()
        },
    }
