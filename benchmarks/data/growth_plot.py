"""Time and memory over the size of the deployment, as a PNG."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.data.results import Result

_COLORS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2")
_MEMORY_GOAL = 6.0  # GiB


def draw(found: dict[str, list[Result]], path: Path) -> None:
    """found: measure -> its results, smallest first."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    for color, (name, curve) in zip(_COLORS, found.items(), strict=False):
        utterances = [result.utterances for result in curve]
        seconds.plot(utterances, [r.seconds for r in curve], "o-", color=color, label=name)
        _proportional(seconds, curve, color)
        memory.plot(utterances, [r.peak_bytes / 2**30 for r in curve], "o-", color=color, label=name)
    seconds.plot([], [], "--", color="grey", lw=0.8, label="in proportion")
    memory.axhline(_MEMORY_GOAL, color="grey", lw=0.8, ls=":", label="goal: 6 GiB")
    seconds.set(xscale="log", yscale="log", xlabel="utterances", ylabel="seconds")
    memory.set(xscale="log", xlabel="utterances", ylabel="peak memory of all processes, GiB", ylim=(0, 6.6))
    sizes = sorted({result.utterances for curve in found.values() for result in curve})
    for axes in (seconds, memory):
        axes.set_xticks(sizes, [_short(size) for size in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def _proportional(axes: Axes, curve: Sequence[Result], color: str) -> None:
    """Slope 1 through the largest size: what lies above this line at smaller ones are fixed costs."""
    first, last = curve[0].utterances, curve[-1].utterances
    per_utterance = curve[-1].seconds / last
    axes.plot([first, last], [first * per_utterance, last * per_utterance], "--", color=color, lw=0.8)


def _short(count: int) -> str:
    """525917 -> 526k"""
    return f"{count / 1e6:.1f}M" if count >= 1_000_000 else f"{count / 1000:.0f}k"
