"""One arm of the scoring benchmark, in a process of its own; prints what it measured as JSON."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pair_logistic import PairLogistic
from bb3x_ray.classify.pair_model import PairModel, load_pair_model
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.config import RewardConfig
from bb3x_ray.data.readers.chitchat import read_chitchat
from bb3x_ray.reward.signals import TURNS
from bb3x_ray.reward.turns import TURNS_SCHEMA

GROUP_CONVERSATIONS = 1024  # as in a round's slices
BATCH = 512


def main(arm: str, folder: Path, rows: int, cores: int) -> None:
    if arm == "make":
        _make(folder, rows)
        said = {}
    elif arm == "ray":
        said = _ray(folder, cores)
    elif arm == "bare":
        said = _bare(folder, cores)
    elif arm == "split":
        said = _split(folder, rows, cores)
    else:
        said = _share(folder, *map(int, arm.split("/")))
    print(json.dumps(said))  # noqa: T201


def _make(folder: Path, rows: int) -> None:
    """turns.parquet, a row group for every 1,024 conversations, and reward/, learned from made-up thumbs:
    scoring takes as long whatever it learned."""
    made: list[dict[str, Any]] = []
    with pq.ParquetWriter(folder / "turns.parquet", TURNS_SCHEMA) as file:
        left = rows
        for number, talk in enumerate(read_chitchat(2), 1):
            turns = talk.turns
            for i in range(1, len(turns)):
                said_next = turns[i + 1] if i + 1 < len(turns) else ""
                made.append(
                    {"conversation_id": talk.conversation_id, "message_id": f"{number}-{i}", "person": "p"}
                    | {"context": "\n".join(turns[max(0, i - TURNS) : i][::-1]), "reply": turns[i]}
                    | {"after": said_next, "rating": None, "trusted": True}
                )
            if number % GROUP_CONVERSATIONS == 0 or len(made) >= left:
                file.write_table(pa.Table.from_pylist(made[:left], schema=TURNS_SCHEMA), row_group_size=10**9)
                left -= len(made[:left])
                made = []
            if not left:
                break
    pairs = _pairs(pq.read_table(folder / "turns.parquet").slice(0, 200))
    labelled = [Pair(p.context, p.reply, float(i % 2), 1.0, p.after) for i, p in enumerate(pairs)]
    (folder / "reward").mkdir()
    PairLogistic.fit(labelled, load_encoder(), 0.1).save(folder / "reward")


def _pairs(turns: pa.Table) -> list[Pair]:
    columns = (turns[name].to_pylist() for name in ("context", "reply", "after"))
    return [Pair(c, r, after=a) for c, r, a in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class _Groups:
    """Turns of a group. In each process the first call waits until `processes` of them are there, which
    starts the clock."""

    path: Path
    gate: Path
    processes: int

    def __call__(self, group: int) -> pa.Table:
        _wait(self.gate, str(os.getpid()), self.processes)
        return pq.ParquetFile(self.path).read_row_group(group)


def _wait(gate: Path, name: str, processes: int) -> None:
    if (gate / "open").exists():
        return
    (gate / name).touch()
    while len([p for p in gate.iterdir() if p.name != "open"]) < processes:
        time.sleep(0.005)
    with suppress(FileExistsError):  # the first to see that all are there starts the clock
        (gate / "open").touch(exist_ok=False)


def _ray(folder: Path, cores: int) -> dict[str, float]:
    import ray

    from bb3x_ray.reward.on_ray import score_groups

    gate = folder / f"gate-{os.getpid()}"
    gate.mkdir()
    path = folder / "turns.parquet"
    config = RewardConfig(min_actors=cores, max_actors=cores, num_cpus=0.5)
    about: dict[str, Any] = {"num_cpus": max(8, cores), "object_store_memory": 300_000_000}
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error", **about)
    groups = pq.ParquetFile(path).metadata.num_row_groups
    turns_of = _Groups(path, gate, cores)
    rows = sum(map(len, score_groups(turns_of, groups, folder / "reward", config)))
    seconds = time.time() - (gate / "open").stat().st_mtime
    ray.shutdown()
    return {"rows": rows, "seconds": seconds, "rows_per_second": rows / seconds}


def _bare(folder: Path, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    model = load_pair_model(folder / "reward")
    pairs = _pairs(pq.read_table(folder / "turns.parquet"))
    began = time.perf_counter()
    for batch in _sorted_batches(pairs):
        _score(model, batch)
    seconds = time.perf_counter() - began
    return {"rows": len(pairs), "seconds": seconds, "rows_per_second": len(pairs) / seconds}


def _sorted_batches(pairs: list[Pair]) -> list[list[Pair]]:
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].context) + len(pairs[i].reply))
    return [[pairs[i] for i in order[first : first + BATCH]] for first in range(0, len(order), BATCH)]


def _score(model: PairModel, batch: list[Pair]) -> np.ndarray:
    """With hindsight and without, as scoring does."""
    fresh = [Pair(p.context, p.reply) for p in batch]
    return np.stack([model.predict(batch), model.predict(fresh)])


def _split(folder: Path, rows: int, cores: int) -> dict[str, float]:
    gate = folder / f"gate-{os.getpid()}"
    gate.mkdir()
    command = [sys.executable, "-m", "benchmarks.scoring.arm"]
    processes = [
        subprocess.Popen(
            [*command, f"{i}/{cores}/{os.getpid()}", str(folder), str(rows), str(cores)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(cores)
    ]
    said = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    seconds = max(one["end"] for one in said) - (gate / "open").stat().st_mtime
    done = sum(one["rows"] for one in said)
    return {"rows": done, "seconds": seconds, "rows_per_second": done / seconds}


def _share(folder: Path, index: int, of: int, parent: int) -> dict[str, float]:
    torch.set_num_threads(1)
    model = load_pair_model(folder / "reward")
    batches = _sorted_batches(_pairs(pq.read_table(folder / "turns.parquet")))[index::of]
    _wait(folder / f"gate-{parent}", str(index), of)
    for batch in batches:
        _score(model, batch)
    return {"rows": sum(map(len, batches)), "end": time.time()}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
