from pathlib import Path

import pytest
from matplotlib.image import imread

from bb3x_ray.evaluate.report import draw_plot, plot_rows
from tests.evaluate.test_gate import decide, judged_set


def test_rows_begin_with_the_first_champion_and_say_what_became_of_each_candidate() -> None:
    passed = decide(judged_set(0.6, 0.3), judged_set(0.6, 0.3))
    rejected = decide(judged_set(0.3, 0.3), judged_set(0.4, 0.6))
    rows = plot_rows([passed, rejected], simulated=True)
    assert [row["outcome"] for row in rows] == ["bootstrap", "passed", "rejected"]
    assert [round(row["good"]["value"], 2) for row in rows] == [0.3, 0.6, 0.4]
    assert rows[0]["version"] == "v0001" and set(rows[0]["nulls"]) == {"echo", "template"}


def test_the_plot_is_a_png_with_something_on_it(tmp_path: Path) -> None:
    rows = plot_rows([decide(judged_set(), judged_set())], simulated=True)
    draw_plot(rows, tmp_path / "plot.png")
    image = imread(tmp_path / "plot.png")
    assert image.shape[0] > 500 and image[..., :3].std() > 0.05
    draw_plot([{**row, "simulated": False} for row in rows], tmp_path / "real.png")
    assert (imread(tmp_path / "real.png") != image).any()  # the title says whether people were simulated


def test_a_plot_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        draw_plot([], tmp_path / "plot.png")
