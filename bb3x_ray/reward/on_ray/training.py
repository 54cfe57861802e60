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
from ray.train.torch import TorchTrainer, get_device, prepare_model
from ray.train.v2.api.exceptions import TrainingFailedError

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pair_transformer import Share
from bb3x_ray.classify.shared_encoder import SharedEncoder
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.examples import Example
from bb3x_ray.reward.reward_model import check, train_reward
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import read_json, write_json

_FAILURE = "failure.json"  # of a worker: what may be told of its error


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
                "failure": str(Path(folder).resolve() / _FAILURE),
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
            raise _told(error, Path(folder) / _FAILURE) from None
    return dict(read_json(out / "report.json"))


def _told(error: TrainingFailedError, failure: Path) -> UserError:
    """What a person can mend, in the worker's own words; of anything else the kind alone, since the words of
    other errors may quote what they failed on (law 10)."""
    known = read_json(failure) if failure.is_file() else {}
    if "sentence" in known:
        return UserError(str(known["sentence"]))
    kind = known.get("kind", type(error).__name__)
    return UserError(
        f"the reward model's training failed: a worker raised {kind}. Ray's logs of that worker tell where; "
        "if the machine ran out of memory, lower reward.workers, reward.batch or reward.max_tokens."
    )


def _work(order: dict[str, Any]) -> None:
    """What every worker runs. What it raises ends the others, so it is noted down first."""
    failure = Path(order["failure"])
    try:
        _learn(order)
    except UserError as error:
        write_json(failure, {"sentence": str(error)})
        raise
    except Exception as error:
        if not failure.is_file():  # another one's failure may be why this one lost its connection
            write_json(failure, {"kind": type(error).__name__})
        raise


def _learn(order: dict[str, Any]) -> None:
    """All workers learn the same, the first one saves it."""
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
    """float32 [n, width], of each worker another n -> those of all workers. As tensors: objects would be
    unpickled (law 9)."""
    device, workers = get_device(), torch.distributed.get_world_size()
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(workers)]
    torch.distributed.all_gather(lengths, torch.tensor([len(part)], dtype=torch.int64, device=device))
    counts = [int(length) for length in lengths]
    padded = torch.zeros(max(counts), part.shape[1], device=device)
    padded[: len(part)] = torch.from_numpy(np.ascontiguousarray(part, np.float32))
    parts = [torch.empty_like(padded) for _ in range(workers)]
    torch.distributed.all_gather(parts, padded)
    return [own[:count].cpu().numpy() for own, count in zip(parts, counts, strict=True)]
