"""Train's door: CRINGE on Ray Train with DeepSpeed inside, from a training set to a Hugging Face folder."""

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import torch
import torch.distributed as dist
from ray import train as ray_train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from bb3x_ray.config import TrainConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import read_json, write_json
from bb3x_ray.train import batches, export, progress
from bb3x_ray.train.attention import choose_packing, exact, use_packing
from bb3x_ray.train.objectives import Objective, only_imitate
from bb3x_ray.train.step import ConversationLoss, Schedule, train_step

_PROBE_ROWS, _PROBE_TOKENS = 2, 48


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
    out            safetensors in float32, config and tokenizer files; nothing in it when this raises early
    storage_path   keeps `<run_name>-<id>/`: Ray's own records, plan.json, progress.jsonl, result.json
    on_step        called live, from a thread of its own, with the metrics of each optimizer step:
                   step (from 1), steps, lr, seconds, and those of `step.train_step`

    Returns means over steps of the loss metrics, loss_first and loss_last, steps, tokens,
    labelled_tokens, tokens_per_second, seconds_per_step, startup_seconds, export_seconds, seconds.
    Raises UserError for a set without labelled tokens, rows that the model cannot read, a loss that is not
    finite; TrainingError when workers failed more often than train.max_failures.
    """
    started = time.time()
    table = _read(training_set, config)
    batches.check_rows(table, training_set, **_model_limits(parent))
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: the trained model needs a folder of its own.")
    folder = storage_path.resolve() / f"{run_name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    plan = batches.plan_batches(table.num_rows, config.rows_per_step, config.epochs, seed)
    batches.save_plan(plan, folder / "plan.json")
    order = {
        "training_set": str(training_set.resolve()),
        "parent": str(parent.resolve()),
        "out": str(out.resolve()),
        "folder": str(folder),
        "config": config.model_dump(),
        "seed": seed,
    }
    with progress.Follower(folder / "progress.jsonl", on_step or (lambda _: None)):
        _fit(order, folder, config)
    result = read_json(folder / "result.json")
    if "user_error" in result:
        raise UserError(result["user_error"])
    metrics: dict[str, float] = result["metrics"]
    startup = result["ready_at"] - started
    return metrics | {"startup_seconds": startup, "seconds": time.time() - started}


def _read(training_set: Path, config: TrainConfig) -> pa.Table:
    table = batches.read_rows(training_set)
    return only_imitate(table) if config.objective == "sft" else table


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
        _work,
        train_loop_config=order,
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        # Ray answers a finished run's name with that run's result: the name is unique (see `folder`).
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(max_failures=config.max_failures),
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


def _work(order: dict[str, Any]) -> None:
    """What every worker runs. Errors that a person can mend are agreed on by all ranks and not retried."""
    folder = Path(order["folder"])
    try:
        result = _train_and_export(order, folder)
    except UserError as error:
        result = {"user_error": str(error)}
    if ray_train.get_context().get_world_rank() == 0:
        write_json(folder / "result.json", result)


@dataclass(frozen=True, slots=True)
class _Place:
    """Which worker this is."""

    rank: int
    world: int
    device: torch.device


def _train_and_export(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    config = TrainConfig.model_validate(order["config"])
    context = ray_train.get_context()
    place = _Place(context.get_world_rank(), context.get_world_size(), get_device())
    _use_threads(context.get_local_world_size())
    torch.manual_seed(order["seed"] + place.rank)  # dropout, where a model has it
    table = _read(Path(order["training_set"]), config)
    plan = batches.load_plan(folder / "plan.json")
    parent = Path(order["parent"])
    module, probe, pad_id = _together(lambda: _load(parent, table, config, place, order["seed"]), place.world)
    engine = _engine(module, config)
    ready_at = time.time()
    history = _run_plan(engine, table, plan, config, place, pad_id, folder / "progress.jsonl")
    _check_steps(engine, history, len(plan.steps))
    begun = time.time()
    _export(engine, probe, parent, Path(order["out"]), config, place)
    metrics = progress.total(history) | {"export_seconds": time.time() - begun}
    return {"metrics": metrics, "ready_at": ready_at}


def _run_plan(
    engine: Any,
    table: pa.Table,
    plan: batches.Plan,
    config: TrainConfig,
    place: _Place,
    pad_id: int,
    told: Path,
) -> list[dict[str, float]]:
    """Every step of the plan; its metrics, the same on all ranks. Rank 0 tells each in the file `told`."""
    schedule = Schedule(config.lr, config.warmup_steps, len(plan.steps))
    history = []
    lengths = pa.compute.list_value_length(table["input_ids"]).to_pylist()
    for step in range(len(plan.steps)):
        begun = time.time()
        rate = schedule.at(step)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        rows = table.take(list(plan.rows_of(step, place.rank, place.world))).to_pylist()
        count = plan.micro_batches(step, place.world, lengths, config.micro_tokens)
        packed = batches.micro_batches(rows, count, config.micro_tokens, pad_id)
        micro = [batch.to(place.device) for batch in packed]
        engine.train()
        metrics = train_step(engine, micro, step)
        history.append(metrics | {"seconds": time.time() - begun})
        if place.rank == 0:
            progress.report(told, {"step": step + 1, "steps": len(plan.steps), "lr": rate} | history[-1])
    return history


def _use_threads(workers_here: int) -> None:
    """Share the machine's cores among its workers: Ray allows one thread for each logical CPU asked for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // workers_here))


def _load(
    parent: Path, table: pa.Table, config: TrainConfig, place: _Place, seed: int
) -> tuple[ConversationLoss, batches.Batch, int]:
    """(model with its objective, probe batch, padding id). The probe is the beginning of the first rows."""
    from bb3x_ray.language.loading import fast_dtype  # late, with transformers behind it: see export.py

    model = export.load_parent(parent)
    pad_id = model.config.pad_token_id
    pad_id = pad_id if isinstance(pad_id, int) and pad_id >= 0 else 0  # masked: any id that exists will do
    kind = fast_dtype(place.device) if config.dtype == "auto" else getattr(torch, config.dtype)
    packing = choose_packing(model, place.device, half=kind != torch.float32)
    columns = ("input_ids", "imitate", "avoid")
    rows = [
        {"row_id": row["row_id"]} | {name: row[name][:_PROBE_TOKENS] for name in columns}
        for row in table.slice(0, _PROBE_ROWS).to_pylist()
    ]
    probe = batches.collate(rows, pad_id)
    use_packing(model, exact(packing))
    export.check_head(model, probe, exact(packing))
    use_packing(model, packing)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    names = {field.name for field in fields(Objective)} - {"name", "seed"}
    objective = Objective(config.objective, seed=seed, **{name: getattr(config, name) for name in names})
    module = ConversationLoss(model, objective, packing, autocast=kind == torch.bfloat16)
    return module, probe.to(place.device), pad_id


def _together(action: Callable[[], Any], world: int) -> Any:
    """The result of `action` on this rank; a UserError on any rank is raised by all, so that none waits."""
    value, said = None, None
    try:
        value = action()
    except UserError as error:
        said = str(error)
    everyone: list[str | None] = [said]
    if world > 1:
        everyone = [None] * world
        dist.all_gather_object(everyone, said)
    for sentence in everyone:
        if sentence is not None:
            raise UserError(sentence)
    return value


def _engine(module: ConversationLoss, config: TrainConfig) -> Any:
    """DeepSpeed around the module, without its JIT compilations: they need a compiler and a minute."""
    if not config.gpus_per_worker:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # late: the driver imports this module too, and DeepSpeed takes seconds
    import deepspeed.ops

    deepspeed.utils.logger.setLevel("WARNING")
    if not config.gpus_per_worker:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Torch's own AdamW, fused: one pass over the weights instead of ten.
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.lr, weight_decay=0.0, fused=True)
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=optimizer,
        config={
            # Accumulation is ours (see `train_step`): steps hold different numbers of micro-batches.
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": config.clip,
            "zero_optimization": {"stage": config.zero_stage},
            "steps_per_print": 2**31,
        },
    )
    return engine


def _check_steps(engine: Any, history: list[dict[str, float]], planned: int) -> None:
    """DeepSpeed's own count of updates, and steps without a label, must be what was planned."""
    unlabelled = sum(1 for line in history if not line["labelled_tokens"])
    executed = engine.global_steps - engine.skipped_steps + unlabelled
    if executed != planned:
        raise RuntimeError(f"planned {planned} optimizer steps, executed {executed}")


def _export(
    engine: Any, probe: batches.Batch, parent: Path, out: Path, config: TrainConfig, place: _Place
) -> None:
    """Rank 0 writes the folder and compares it with the live engine; all ranks take part in gathering."""
    model, packing = engine.module.model, exact(engine.module.packing)
    use_packing(model, packing)
    live = export.live_logits(model, probe, packing)
    gather = None
    if config.zero_stage == 3:
        import deepspeed

        gather = deepspeed.zero.GatheredParameters
    state = export.whole_state(model, gather, keep=place.rank == 0)
    if place.rank == 0:
        export.write_model(model, state, parent, out)
        export.check_export(out, probe, live, packing)
    if place.world > 1:
        dist.barrier()
