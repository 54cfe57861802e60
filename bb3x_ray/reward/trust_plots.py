"""The trust benchmarks as pictures."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bb3x_ray.reward.trust_tables import MethodRow, PoisonRow
from bb3x_ray.schemas.learning import Interval

_SIDES = {"honest": "#54a24b", "absent": "#72b7b2", "on": "#4c78a8", "off": "#e45756"}
_WORDS = {
    "honest": "nobody trolls",
    "absent": "trolls press no thumb",
    "on": "trust on",
    "off": "trust off",
}


def draw_methods(rows: Sequence[MethodRow], path: Path, title: str) -> None:
    """Error by kind, a line of points for each method, `clean` and `none` in grey."""
    kinds = list(rows[0].errors)
    figure = Figure(figsize=(1.6 * (len(kinds) + 2), 5), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(rows):
        place = [k + (number - len(rows) / 2) * 0.07 for k in range(len(kinds) + 1)]
        found = [*row.errors.values(), row.mean]
        plain = {"clean": "#999999", "none": "#333333"}.get(row.method)
        axes.errorbar(
            place,
            [100 * i.value for i in found],
            yerr=_bars(found),
            fmt="o",
            ms=4,
            lw=1,
            color=plain or f"C{number % 10}",
            label=row.method.replace("_", " "),
        )
    axes.set_xticks(range(len(kinds) + 1), [*kinds, "mean"])
    axes.set_ylabel("% of test texts wrong by gold labels, 95 % intervals")
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=11)
    axes.legend(frameon=False, fontsize=8, ncols=3)
    _save(figure, path)


def draw_poison(rows: Sequence[PoisonRow], path: Path, title: str) -> None:
    """Share of right labels by kind and share of trolls: honest, trust on, trust off."""
    figure = Figure(figsize=(11, 0.5 + 0.42 * len(rows) + 1.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    names = [f"{row.kind} {row.trolls:.0%}" for row in rows]
    for axes, label in zip(figure.subplots(1, 2, sharey=True), ("imitate", "avoid"), strict=True):
        for shift, (side, color) in zip((-0.24, -0.08, 0.08, 0.24), _SIDES.items(), strict=True):
            found = [row.right[label][side] for row in rows]
            words = _WORDS[side]
            axes.errorbar(
                [100 * i.value for i in found],
                [place + shift for place in range(len(rows))],
                xerr=_bars(found),
                fmt="o",
                ms=4,
                lw=1,
                color=color,
                label=words,
            )
        axes.set_yticks(range(len(rows)), names)
        axes.set_xlabel(f"% of labels to {label} that are right")
        axes.grid(axis="x", lw=0.3)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _bars(found: Sequence[Interval]) -> list[list[float]]:
    return [
        [100 * max(0.0, i.value - i.low) for i in found],
        [100 * max(0.0, i.high - i.value) for i in found],
    ]


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
