"""The scoring benchmark measures three arms over the same rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.ray
@pytest.mark.slow
def test_every_arm_scores_every_row(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.scoring", "--rows", "150", "--repeats", "1", "--cores", "2"]
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = json.loads(out.read_text())["runs"]
    assert {arm: said["rows"] for arm, said in run.items()} == {"ray": 150, "bare": 150, "split": 150}
    assert all(said["rows_per_second"] > 0 for said in run.values()) and "ray by bare" in done.stdout
