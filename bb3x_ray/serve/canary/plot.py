"""The plot of a canary: the difference in thumbs up over the looks, between the bounds that would end it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bb3x_ray.schemas.canary import Canary
from bb3x_ray.serve.canary.judgement import Row

_HIGHEST = 40.0  # points; bounds are infinite at first


def draw(canary: Canary, rows: Sequence[Row], path: Path) -> None:
    """Write a PNG."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    thumbs = [row.thumbs for row in rows]
    points = 100 * np.array([[r.difference, r.rollback, r.promote] for r in rows]).reshape(-1, 3)
    points = np.clip(points, -_HIGHEST, _HIGHEST)
    axes.axhline(0, color="0.7", lw=0.8)
    axes.fill_between(thumbs, -_HIGHEST, points[:, 1], color="tab:red", alpha=0.15, lw=0, label="rolls back")
    axes.fill_between(thumbs, points[:, 2], _HIGHEST, color="tab:green", alpha=0.15, lw=0, label="promotes")
    axes.plot(thumbs, points[:, 0], color="black", lw=1.2, marker=".", ms=3, label="seen")
    axes.set_ylim(-_HIGHEST, _HIGHEST)
    axes.set_xlabel("thumbs that count, both versions")
    axes.set_ylabel(f"points of thumbs up, {canary.candidate} − {canary.champion}")
    axes.set_title(f"canary of {canary.candidate}: {canary.decision}", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
