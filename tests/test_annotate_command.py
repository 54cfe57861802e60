"""`bb3x annotate`: a sheet out, ratings in, and what is printed of them."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from bb3x_ray.cli import app
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage
from tests.data.make import commit, talk, thumb

CONFIG = ["--config", "configs/local.yaml"]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path / "store")
    commit(storage, *(event for n in range(6) for event in talk(f"c{n}", 4, person=f"p{n}")))
    for n in range(4):
        commit(storage, thumb(f"t{n}", f"c{n}-m1", 1 if n % 2 else -1, conversation=f"c{n}", person=f"p{n}"))
    return storage


def run(storage: Storage, *arguments: str) -> Result:
    result = CliRunner().invoke(
        app, ["annotate", *arguments, *CONFIG, f"storage.root={storage.root}"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result


def rate(sample: Path, out: Path, label: str, every: int) -> None:
    """Labels `label`, but every so many `good`."""
    with sample.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for number, row in enumerate(rows):
            writer.writerow({**row, "label": "good" if number % every == 0 else label})


def test_from_a_sample_to_kappa_and_noise(storage: Storage, tmp_path: Path) -> None:
    sample, ann, bob = (tmp_path / name for name in ("sample.csv", "ann.csv", "bob.csv"))
    told = run(storage, "export", "--out", str(sample), "-n", "10").stdout
    assert "10 replies in" in told and "unscored" in told
    with pytest.raises(UserError, match="is there already"):
        run(storage, "export", "--out", str(sample))
    rate(sample, ann, "off topic", 2)
    rate(sample, bob, "ignoring", 4)
    told = run(storage, "import", str(ann), str(bob)).stdout
    assert "20 annotations new, 0 known" in told
    assert "ann and bob: 10 replies in common, the same label on 3, the same side of good on 8" in " ".join(
        told.split()
    )
    assert "kappa 0.1" in told and "P(thumb | good)" in told and "down, rude" in told
    again = json.loads(run(storage, "import", str(ann), str(bob), "--json").stdout)
    assert (again["new"], again["known"], again["problems"]) == (0, 20, [])
    assert again["noise"]["replies"] == 4 and set(again["noise"]["of"]) >= {"up", "down", "down:rude"}
    later = run(storage, "report", "--json").stdout
    assert json.loads(later)["noise"] == again["noise"] and "ann" not in later.replace("annotated", "")
    told = run(storage, "report").stdout
    assert "P(thumb | not good)" in told and "│ all" in told and "rater-" in told


def test_bad_rows_go_to_standard_error(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("message_id,label\nc0-m1,good\nc1-m1,hidden-words\n")
    result = run(storage, "import", str(tmp_path / "x.csv"), "--rater", "ann")
    assert (
        "x.csv, line 3, label: none of the labels" in result.stderr
        and "1 rows were left out" in result.stderr
    )
    assert "no two raters" in result.stdout and "hidden-words" not in result.output
