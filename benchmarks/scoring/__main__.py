"""Scoring through Ray Data beside a bare loop: `python -m benchmarks.scoring [--rows 20000]`.

Three arms score the same rows (replies of the chitchat package, each with the two turns before it) with the
same reward model on the same cores, each in a process of its own, there and back again:

    ray      score_groups with an actor a core, one thread each: what a round calls
    bare     one process, a thread a core: rows sorted by length, then batch after batch
    split    a process a core with one thread each, every one with its share of the sorted batches: the most
             that these cores can do, with nothing between the rows and the model

Start-up is left out: the clock of each arm starts when all its processes have loaded the model. The ratio is
ray's rows a second by bare's in the same repeat, and the median over repeats is what counts. On a machine
that does other things as well, a loop of several threads waits for the slowest of them at every product:
there only `--arms ray split --against split` says something.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

GOAL = 0.85
ARMS = ("ray", "bare", "split")


def main() -> None:
    options, console = _options(), Console()
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        _in_process("make", folder, options)
        runs: list[dict[str, dict[str, float]]] = []
        for repeat in range(options.repeats):
            arms = options.arms if repeat % 2 == 0 else list(reversed(options.arms))
            runs.append({arm: _in_process(arm, folder, options) for arm in arms})
            console.print(f"repeat {repeat + 1}: " + _told(runs[-1]), highlight=False)
    other = options.against
    table = Table("arm", "rows/s, median", f"by {other}'s, median", f"by {other}'s, lowest to highest")
    for arm in options.arms:
        ratios = [run[arm]["rows_per_second"] / run[other]["rows_per_second"] for run in runs]
        pace = statistics.median(run[arm]["rows_per_second"] for run in runs)
        ratio, spread = statistics.median(ratios), f"{min(ratios):.2f} to {max(ratios):.2f}"
        table.add_row(arm, f"{pace:.1f}", f"{ratio:.2f}", spread)
    console.print(table)
    ratio = statistics.median(r["ray"]["rows_per_second"] / r[other]["rows_per_second"] for r in runs)
    console.print(f"ray by {other}: {ratio:.2f}, goal >= {GOAL}: {'reached' if ratio >= GOAL else 'missed'}")
    if options.out:
        options.out.write_text(
            json.dumps({"rows": options.rows, "cores": options.cores, "runs": runs}, indent=1)
        )


def _told(run: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{arm} {said['rows_per_second']:.1f} rows/s" for arm, said in run.items())


def _in_process(arm: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scoring.arm", arm, str(folder), str(options.rows)]
    # Ray makes its workers nice; here nobody is nicer than the other.
    env = os.environ | {
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run([*command, str(options.cores)], env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"benchmarks.scoring: arm {arm} failed ({done.returncode})")
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.scoring", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--against", choices=ARMS[1:], default="bare")
    parser.add_argument("--out", type=Path, help="where all numbers go as JSON")
    options = parser.parse_args()
    if not {"ray", options.against} <= set(options.arms):
        parser.error(f"--arms needs ray and {options.against}")
    return options


if __name__ == "__main__":
    main()
