"""Our step as the trainer takes it: packed conversations, the fused loss, DeepSpeed's engine.

In stage 0, as one worker trains; the arm `stage1` is the same in stage 1.
"""

import os
import socket
import statistics
from typing import Any, Literal

import torch
from torch import Tensor

from bb3x_ray.config import TrainConfig
from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.batches import Batch
from bb3x_ray.train.objectives import Objective
from bb3x_ray.train.on_ray.engine import make_engine
from bb3x_ray.train.step import ConversationLoss, train_step
from benchmarks.train import limit
from benchmarks.train.job import Job, Measured, run_steps
from benchmarks.train.layouts import Row
from benchmarks.train.packed import batches_of, load


def measure(job: Job) -> Measured:
    return measure_in_stage(job, 0)


def measure_in_stage(job: Job, stage: Literal[0, 1]) -> Measured:
    """`extra` holds the rate of large matrix products, before and after, and the FLOPs of the steps."""
    model = load(job)
    packing = choose_packing(model, torch.device("cpu"), half=False)
    os.environ |= _alone()
    config = TrainConfig(dtype="float32", zero_stage=stage, lr=job.lr, workers=1)
    engine = make_engine(ConversationLoss(model, Objective(), packing), config)
    engine.train()

    def one_step(rows: list[Row], measured: Measured) -> tuple[float, int]:
        batches = batches_of(rows, job.window)
        timed: Any = Timed(engine, measured)  # all that a step needs of an engine
        metrics = train_step(timed, batches, step=0)
        return metrics["loss"], sum(batch.tokens for batch in batches)

    before = limit.matmul_rate()
    measured = run_steps(job.steps, one_step)
    measured.extra = {
        "matmul_flops_per_second": statistics.mean([before, limit.matmul_rate()]),
        "flops": sum(limit.rows_flops(model.config, rows) for rows in job.steps),
    }
    return measured


class Timed:
    """DeepSpeed's engine with a clock around forward and backward ("model") and the update ("optimizer").

    DeepSpeed moves gradients into its own buffers while autograd runs: that is counted as backward.
    """

    def __init__(self, engine: Any, measured: Measured) -> None:
        self._engine, self._measured = engine, measured

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        with self._measured.part("model"):
            result: tuple[Tensor, Tensor] = self._engine(batch, step)
        return result

    def backward(self, loss: Tensor, *, scale_wrt_gas: bool) -> Any:
        with self._measured.part("model"):
            return self._engine.backward(loss, scale_wrt_gas=scale_wrt_gas)

    def step(self) -> None:
        with self._measured.part("optimizer"):
            self._engine.step()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _alone() -> dict[str, str]:
    """A process group of one, without a launcher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    return {**group, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
