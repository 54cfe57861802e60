"""Checkpoints inside a round: weights, optimizer and history, so that a killed worker's work is not lost.

DeepSpeed writes them (its own format, read only by the run that wrote it). `latest.json` names the newest and
is written last; older ones are removed after that.
"""

import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from bb3x_ray.storage import read_json, write_json


class Checkpoints:
    """The checkpoints of one order, for one world size and ZeRO stage. All ranks call together."""

    def __init__(self, folder: Path, engine: Any, rank: int, world: int) -> None:
        self._folder, self._engine, self._rank = folder / "checkpoints", engine, rank
        # Sharded optimizers fit only as many workers as they were written by.
        self._shape = {"world": world, "zero_stage": engine.zero_optimization_stage()}

    def load(self) -> list[dict[str, float]]:
        """Take up the newest checkpoint; returns the metrics of the steps that are done."""
        latest = self._folder / "latest.json"
        if not latest.is_file():
            return []
        about = read_json(latest)
        if about["shape"] != self._shape:
            return []
        loaded, _ = self._engine.load_checkpoint(str(self._folder), tag=about["tag"])
        if loaded is None:
            raise RuntimeError(f"checkpoint {about['tag']} cannot be read; remove {self._folder}")
        history: list[dict[str, float]] = about["history"]
        return history

    def save(self, history: list[dict[str, float]]) -> None:
        tag = f"step-{len(history):06d}"
        self._engine.save_checkpoint(str(self._folder), tag=tag, save_latest=False)
        self._wait()
        if self._rank == 0:
            about = {"tag": tag, "shape": self._shape, "history": history}
            write_json(self._folder / "latest.json", about)
            for path in self._folder.iterdir():
                if path.is_dir() and path.name != tag:
                    shutil.rmtree(path)

    def _wait(self) -> None:
        if dist.is_initialized():
            dist.barrier()


def discard_checkpoints(folder: Path) -> None:
    """Remove those of one order. Killed in between, the next run begins anew instead of from half of one."""
    (folder / "checkpoints" / "latest.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
