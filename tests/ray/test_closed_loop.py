"""The closed loop with trolls, in short: whole rounds with a tiny random model, trust on and off.

Nothing can be learned of trust from two rounds of a dozen people; what is tested is that arms share what they
should, that what is done stays done, and that the table says what came of them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bb3x_ray.storage import read_json
from tests.ray.test_run import ROOT, write_config

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
ARMS = ("trolls30-trust-on", "trolls30-trust-off")


def closed_loop(config: Path, store: Path) -> str:
    command = [sys.executable, "-m", "benchmarks.closed_loop", "--store", str(store), "--config", str(config)]
    command += ["--people", "12", "--prompts", "24", "--seeds", "3", "--arms", *ARMS]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env.pop("RAY_ADDRESS", None)
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_arms_of_a_seed_share_prompts_and_judge_and_differ_in_trust(tmp_path: Path) -> None:
    config, store = write_config(tmp_path, tmp_path / "unused", rounds=1), tmp_path / "loop"
    table = closed_loop(config, store)[-2000:]
    assert "| 30% trolls, trust on | 1 |" in table and "| 30% trolls, trust off | 1 |" in table
    assert "| 30% trolls, trust on − 30% trolls, trust off |" in table

    on, off = (store / "seed3" / arm for arm in ARMS)
    for shared in ("prompts", "judges", "evaluations/v0001"):
        same = sorted(path.relative_to(on) for path in (on / shared).rglob("MANIFEST.json"))
        assert same and all((on / path).samefile(off / path) for path in same)
    about_on, about_off = (read_json(folder / "closed_loop.json") for folder in (on, off))
    assert about_on["trolls"] == about_off["trolls"] == 4 and about_on["helpers"] == 8
    assert about_off["trolls_distrusted"] == about_off["helpers_distrusted"] == 0

    before = (on / "closed_loop.json").stat().st_mtime_ns
    assert table.splitlines()[-1] in closed_loop(config, store)
    assert (on / "closed_loop.json").stat().st_mtime_ns == before
