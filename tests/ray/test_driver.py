"""A driver that is killed leaves its checkpoints to the next call."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from bb3x_ray.config import TrainConfig
from bb3x_ray.schemas.learning import TRAINING_SCHEMA
from bb3x_ray.train.on_ray import forget, train
from tests.train.test_batches import row

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CONFIG = TrainConfig(
    lr=1e-3,
    rows_per_step=4,
    micro_tokens=64,
    dtype="float32",
    cpus_per_worker=0.5,
    epochs=40,
    checkpoint_every=2,
)
STEPS = 80
WHOLE_DRIVER = """
import sys
from pathlib import Path
import ray
from tests.ray.test_driver import learn
ray.init(address="local", num_cpus=4, object_store_memory=200_000_000, include_dashboard=False)
learn(*map(Path, sys.argv[1:]))
"""


def learn(training_set: Path, parent: Path, folder: Path) -> None:
    runs = folder / "runs"
    train(training_set, parent, folder / "out", CONFIG, run_name="t", storage_path=runs, seed=1)


def told(folder: Path) -> list[int]:
    (path,) = folder.glob("runs/t-*/progress.jsonl")
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def killed_driver(arguments: list[str], folder: Path) -> int:
    """Start one in a process with a Ray of its own, and kill it once it has a checkpoint; its last step."""
    driver: Any = psutil.Popen(
        [sys.executable, "-c", WHOLE_DRIVER, *arguments, str(folder)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    give_up = time.monotonic() + 240
    while not list(folder.glob("runs/t-*/checkpoints/latest.json")):
        assert driver.poll() is None and time.monotonic() < give_up, "it never came to a checkpoint"
        time.sleep(0.02)
    below = driver.children(recursive=True)
    # Its Ray would go with it, but not before the workers took many more steps.
    for process in (driver, *below):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs([driver, *below])
    return told(folder)[-1]


def test_the_next_call_goes_on_from_a_killed_driver_s_checkpoint(
    ray_cluster: None, tiny_model: Path, tmp_path: Path
) -> None:
    made = random.Random(0)
    rows = []
    for number in range(8):
        marks = [made.choice("ia.") for _ in range(20)]
        masks = ("".join("x" if mark == kind else "." for mark in marks) for kind in "ia")
        rows.append(row([made.randrange(3, 350) for _ in marks], *masks, row_id=f"r{number}"))
    training_set = tmp_path / "training_set.parquet"
    pq.write_table(pa.Table.from_pylist(rows, TRAINING_SCHEMA), training_set)

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    learn(training_set, tiny_model, undisturbed)
    assert told(undisturbed) == list(range(1, STEPS + 1))
    last = killed_driver([str(training_set), str(tiny_model)], killed)
    assert 2 <= last < STEPS and not (killed / "out").exists(), "the run ended before it was killed"
    learn(training_set, tiny_model, killed)
    steps = told(killed)
    assert steps.count(1) == 1, "it went on from a checkpoint, not from the beginning"
    assert sorted(set(steps)) == list(range(1, STEPS + 1))
    first, second = (load_file(each / "out" / "model.safetensors") for each in (undisturbed, killed))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    forget("t", killed / "runs")
    assert not list(killed.glob("runs/t-*/checkpoints"))
