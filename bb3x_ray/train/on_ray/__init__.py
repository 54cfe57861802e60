"""Train's door: CRINGE on Ray Train with DeepSpeed inside, from a training set to a Hugging Face folder.

Here is what the driver does; `worker.py` is what every worker runs, `engine.py` is DeepSpeed.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from bb3x_ray.config import TrainConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import read_json
from bb3x_ray.train import batches, progress
from bb3x_ray.train.keep_memory import KEEP_MEMORY
from bb3x_ray.train.on_ray.checkpoints import discard_checkpoints
from bb3x_ray.train.on_ray.worker import read_training_set, work

# Settings that may be changed before the same order is given again.
_CHANGES_NO_WEIGHT = {"max_failures", "checkpoint_every", "iterations", "answers", "perplexity_stop", "mix"}


class TrainingError(UserError):
    """A worker failed for a reason that no setting mends; one sentence with the worker's own error."""


def train(
    training_set: Path,
    parent: Path,
    out: Path,
    config: TrainConfig,
    *,
    run_name: str,
    storage_path: Path,
    seed: int,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, float]:
    """Train `parent` on `training_set` for one CRINGE iteration and fill the empty folder `out`.

    training_set   Parquet of TRAINING_SCHEMA; it, `parent` and `storage_path` are seen by every worker
    out            safetensors in float32 (or of the adapter alone, for config.lora.publish "adapter"), config
                   and tokenizer files; nothing in it when this raises early
    storage_path   keeps `<run_name>-<digest>/`: plan.json, progress.jsonl, result.json, Ray's own records
                   and, every `config.checkpoint_every` steps, a checkpoint from which the same call goes
                   on, whether a worker was killed or the driver; `forget` removes them once `out` is safe
    on_step        called live, from a thread of its own, with the metrics of each optimizer step:
                   step (from 1), steps, lr, seconds, and those of `step.train_step`

    Returns means over steps of the loss metrics, loss_first and loss_last, steps, tokens, labelled_tokens,
    labelled_turns, both per second, seconds_per_step, the share of each phase, peak_memory_gib,
    tflops_per_second of a worker, mfu (its share of the GPU's peak, where that is known), startup_seconds,
    export_seconds, seconds.
    Raises UserError for a set without labelled tokens, rows that the model cannot read, a loss that is not
    finite; TrainingError when workers failed more often than train.max_failures.
    """
    started = time.time()
    table = read_training_set(training_set, config)
    batches.check_rows(table, training_set, **_model_limits(parent))
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: the trained model needs a folder of its own.")
    plan = batches.plan_batches(table.num_rows, config.rows_per_step, config.epochs, seed)
    order: dict[str, Any] = {
        "training_set": str(training_set.resolve()),
        "parent": str(parent.resolve()),
        "config": config.model_dump(exclude=_CHANGES_NO_WEIGHT),
        "seed": seed,
    }
    # The same order finds the checkpoints of a driver that was killed; another one begins anew.
    folder = storage_path.resolve() / f"{run_name}-{_digest(order, training_set)}"
    order |= {"config": config.model_dump()}
    folder.mkdir(parents=True, exist_ok=True)
    order |= {"folder": str(folder), "out": str(out.resolve())}
    batches.save_plan(plan, folder / "plan.json")
    with progress.Follower(folder / "progress.jsonl", on_step or (lambda _: None)):
        _fit(order, folder, config)
    result = read_json(folder / "result.json")
    if "user_error" in result:
        raise UserError(result["user_error"])
    metrics: dict[str, float] = result["metrics"]
    startup = result["ready_at"] - started
    return metrics | {"startup_seconds": startup, "seconds": time.time() - started}


def forget(run_name: str, storage_path: Path) -> None:
    """Remove all checkpoints that were made under this name: what they led to is published."""
    for folder in storage_path.glob(f"{run_name}-*"):
        discard_checkpoints(folder)


def _digest(order: dict[str, Any], training_set: Path) -> str:
    """Names this order: the same settings on the same training set."""
    rows = hashlib.sha256(training_set.read_bytes() if training_set.is_file() else b"").hexdigest()
    return hashlib.sha256(json.dumps([order, rows], sort_keys=True).encode()).hexdigest()[:12]


def _model_limits(parent: Path) -> dict[str, int | None]:
    """What the parent's config says of token ids and lengths; None where it says nothing."""
    path = parent / "config.json"
    if not path.is_file():
        raise UserError(f"{parent}: not a model folder, it has no config.json; import the model again.")
    config = read_json(path)
    return {
        "vocab_size": config.get("vocab_size"),
        "max_tokens": config.get("max_position_embeddings") or config.get("n_positions"),
    }


def _fit(order: dict[str, Any], folder: Path, config: TrainConfig) -> None:
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    trainer = TorchTrainer(
        work,
        train_loop_config=order,
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        # Ray answers a finished run's name with that run's result: the name is unique.
        run_config=RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=config.max_failures),
            worker_runtime_env={"env_vars": KEEP_MEMORY},  # type: ignore[call-arg]  # types of Train's v1
        ),
    )
    # How often Ray looks whether workers are done, in seconds; its default of 2 is idle time here.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    try:
        trainer.fit()
    except WorkerGroupError as error:
        rank, cause = next(iter(error.worker_failures.items()))
        raise TrainingError(f"training failed in worker {rank}: {_last_line(cause)}") from None
    except TrainingFailedError as error:
        raise TrainingError(f"training failed: {_last_line(error)}") from None


def _last_line(error: BaseException) -> str:
    """Of a traceback, the line that says what happened; of a worker that was killed for memory, the cure."""
    if any(sign in str(error).lower() for sign in ("out of memory", "memory monitor", "outofmemory")):
        return (
            "the machine ran out of memory; lower train.micro_tokens, set train.gradient_checkpointing=true, "
            "or stop what else runs there, and run the same command again."
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
