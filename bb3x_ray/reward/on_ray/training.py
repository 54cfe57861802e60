"""The reward model learns on Ray Train: its workers share the embedding of texts, or the whole training."""

import os
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
import torch.distributed
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from ray.train.v2.api.exceptions import TrainingFailedError

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pair_transformer import Share
from bb3x_ray.classify.shared_encoder import SharedEncoder
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.examples import Example
from bb3x_ray.reward.reward_model import check, train_reward
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import read_json, write_json


def train_on_ray(
    examples: Sequence[Example], config: RewardConfig, out: Path, seed: int, scratch: Path
) -> dict[str, Any]:
    """Fill the folder `out` with a reward model that learned from `examples`; returns its report.

    out, scratch   folders that every worker sees; what Ray writes under `scratch` is removed

    Ray must be running. Raises UserError for examples that nothing can be learned from, and when a worker
    failed more than once.
    """
    check(examples)
    for needed in (out, scratch):
        needed.mkdir(parents=True, exist_ok=True)
    resources = {"CPU": config.num_cpus}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    # How often Ray looks whether workers are done, in seconds; its default of 2 is idle time here.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "examples": ray.put(list(examples)),
                "config": config.model_dump(),
                "out": str(out.resolve()),
                "seed": seed,
            },
            scaling_config=ScalingConfig(
                num_workers=config.workers,
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=uuid.uuid4().hex, storage_path=folder, failure_config=FailureConfig(max_failures=1)
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise UserError(f"the reward model's training failed: {lines[-1] if lines else error}") from None
    return dict(read_json(out / "report.json"))


def _work(order: dict[str, Any]) -> None:
    """What every worker does: all learn the same, the first one saves it."""
    config = RewardConfig(**order["config"])
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    examples = ray.get(order["examples"])
    encoder = load_encoder(config.encoder) if config.learn == "head" else None
    if encoder and workers > 1:
        encoder = SharedEncoder(encoder, rank, workers, _gather)
    share = Share(rank, workers, lambda module: prepare_model(module) if workers > 1 else module)
    model, report = train_reward(examples, config, order["seed"], encoder, share)
    if rank == 0:
        model.save(Path(order["out"]))
        write_json(Path(order["out"]) / "report.json", report)
    ray.train.report(report)


def _gather(part: np.ndarray) -> list[np.ndarray]:
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, part)
    return parts
