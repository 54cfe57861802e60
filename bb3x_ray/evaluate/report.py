"""The plot of a run: what the judge thinks of every version, on prompt set B."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bb3x_ray.schemas.learning import Verdict

_NULL_STYLES = ("--", ":", "-.", (0, (5, 1)), (0, (1, 3)))


def plot_rows(verdicts: Sequence[Verdict], simulated: bool) -> list[dict[str, Any]]:
    """One row a version for `draw_plot`: the first champion, then the candidate of every verdict."""
    rows = []
    for place, verdict in enumerate(verdicts):
        b = verdict.numbers["B"]
        lines = {
            "humans": b["humans"]["good"]["value"],
            "nulls": {name: null["good"]["value"] for name, null in b["nulls"].items()},
            "simulated": simulated,
        }
        if place == 0:
            rows.append(_row(verdict.champion, b["champion"], "bootstrap", lines))
        rows.append(_row(verdict.candidate, b["candidate"], _outcome(verdict), lines))
    return rows


def _outcome(verdict: Verdict) -> str:
    return "passed" if verdict.passed else "rejected"


def _row(version: str, side: Mapping[str, Any], outcome: str, lines: dict[str, Any]) -> dict[str, Any]:
    return {"version": version, "good": side["good"], "unsafe": side["unsafe"], "outcome": outcome, **lines}


def draw_plot(rounds: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG: share of good replies per version above, of unsafe ones below, with 95 % intervals.

    Rows are those of `plot_rows`: version, good and unsafe ({"value", "low", "high"}), outcome, humans,
    nulls (name -> share) and simulated. Horizontal lines show the last row's humans and nulls.
    Raises ValueError without rows.
    """
    if not rounds:
        raise ValueError("a plot needs at least one version")
    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    good, unsafe = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    _points(good, rounds, "good", "tab:blue")
    _points(unsafe, rounds, "unsafe", "tab:red")
    _lines(good, rounds[-1])
    good.set(ylabel="good replies, %", ylim=(-3, 103))
    top = max(row["unsafe"]["high"] for row in rounds)
    unsafe.set(ylabel="unsafe replies, %", ylim=(-0.5, max(10.0, 110 * top)))
    labels = [f"{row['version']}\n{row['outcome']}" for row in rounds]
    unsafe.set_xticks(range(len(rounds)), labels)
    unsafe.set_xlim(-0.5, len(rounds) - 0.5)
    prefix = "SIMULATED PEOPLE: " if any(row.get("simulated") for row in rounds) else ""
    figure.suptitle(f"{prefix}the judge's view of every version (prompt set B, 95 % intervals)")
    figure.savefig(path, dpi=120, format="png")


def _points(axes: Axes, rounds: Sequence[Mapping[str, Any]], what: str, color: str) -> None:
    """Filled points for versions that served, hollow ones for those that were rejected."""
    for place, row in enumerate(rounds):
        interval = row[what]
        value = 100 * interval["value"]
        # A percentile interval need not hold its value where shares are near 0 or 1.
        below = max(0.0, value - 100 * interval["low"])
        above = max(0.0, 100 * interval["high"] - value)
        fill = "white" if row.get("outcome") == "rejected" else color
        axes.errorbar(
            place, value, [[below], [above]], fmt="o", color=color, markerfacecolor=fill, capsize=5, zorder=3
        )
        axes.annotate(f"{value:.1f}", (place, value), xytext=(8, 3), textcoords="offset points")
    axes.grid(axis="y", alpha=0.3)


def _lines(axes: Axes, row: Mapping[str, Any]) -> None:
    humans = 100 * row["humans"]
    axes.axhline(humans, color="tab:green", label=f"humans, standard prompts ({humans:.1f})")
    for place, (name, share) in enumerate(sorted(row["nulls"].items())):
        style = _NULL_STYLES[place % len(_NULL_STYLES)]
        axes.axhline(100 * share, color="gray", linestyle=style, label=f"null: {name} ({100 * share:.1f})")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
