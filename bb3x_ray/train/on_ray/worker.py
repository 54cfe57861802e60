"""What every training worker runs: load, follow the plan, export."""

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.distributed as dist
from ray import train as ray_train
from ray.train.torch import get_device

from bb3x_ray.config import TrainConfig
from bb3x_ray.precision import fast_dtype
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import write_json
from bb3x_ray.train import batches, export, progress
from bb3x_ray.train.adapters import add_adapters, merge
from bb3x_ray.train.attention import choose_packing, exact, use_packing
from bb3x_ray.train.effort import StepMeter
from bb3x_ray.train.gpus import gpu_of_device
from bb3x_ray.train.objectives import Objective, only_imitate
from bb3x_ray.train.on_ray import engine as deep
from bb3x_ray.train.on_ray.checkpoints import Checkpoints
from bb3x_ray.train.shapes import read_shape
from bb3x_ray.train.step import ConversationLoss, Schedule, train_step

_PROBE_ROWS, _PROBE_TOKENS = 2, 48


def read_training_set(path: Path, config: TrainConfig) -> pa.Table:
    """The rows that the objective learns from."""
    table = batches.read_rows(path)
    return only_imitate(table) if config.objective == "sft" else table


def work(order: dict[str, Any]) -> None:
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
    table = read_training_set(Path(order["training_set"]), config)
    plan = batches.load_plan(folder / "plan.json")
    parent = Path(order["parent"])
    module, probe, pad_id = _together(lambda: _load(parent, table, config, place, order["seed"]), place.world)
    engine = deep.make_engine(module, config)
    deep.begin_exactly(engine, parent, config)
    _together(lambda: _check_head(engine, probe), place.world)
    ready_at = time.time()
    checkpoints = Checkpoints(folder, engine, place.rank, place.world)
    meter = _meter(parent, table, config, place)
    run = _Run(engine, table, plan, config, place, pad_id, order["seed"], folder / "progress.jsonl", meter)
    history = run.follow_plan(checkpoints)
    _check_steps(engine, history, len(plan.steps))
    begun = time.time()
    _export(engine, probe, parent, Path(order["out"]), place, config)
    peak = {"peak_memory_gib": peak_memory(place.device) / 2**30}
    metrics = progress.total(history) | peak | {"export_seconds": time.time() - begun}
    return {"metrics": metrics, "ready_at": ready_at}


@dataclass(frozen=True, slots=True)
class _Run:
    """A plan under way on this rank. Rank 0 tells each step in the file `told`."""

    engine: Any
    table: pa.Table
    plan: batches.Plan
    config: TrainConfig
    place: _Place
    pad_id: int
    seed: int
    told: Path
    meter: StepMeter

    def follow_plan(self, checkpoints: Checkpoints) -> list[dict[str, float]]:
        """Every step of the plan that is not done; the metrics of all, the same on all ranks."""
        history = checkpoints.load()
        sizes = batches.sizes_of(self.table)
        every = self.config.checkpoint_every
        for step in range(len(history), len(self.plan.steps)):
            history.append(self._step(step, sizes))
            if every and (step + 1) % every == 0 and step + 1 < len(self.plan.steps):
                checkpoints.save(history)
        return history

    def _step(self, step: int, sizes: list[batches.Size]) -> dict[str, float]:
        begun = time.time()
        config, place, total = self.config, self.place, len(self.plan.steps)
        rate = Schedule(config.lr, config.warmup_steps, total).at(step)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        # Dropout, where a model has it: the same on a resumed run.
        torch.manual_seed((self.seed * total + step) * place.world + place.rank)
        rows = self.table.take(list(self.plan.rows_of(step, place.rank, place.world))).to_pylist()
        padded = self.engine.module.packing == "none"
        count = self.plan.micro_batches(step, place.world, sizes, config.micro_tokens, padded)
        packed = batches.micro_batches(rows, count, config.micro_tokens, self.pad_id, padded)
        micro = [batch.to(place.device) for batch in packed]
        prepared = time.time() - begun
        self.engine.train()
        metrics = train_step(self.engine, micro, step)
        metrics |= {"data_seconds": prepared, "seconds": time.time() - begun}
        metrics |= self.meter.read(self.plan.steps[step], metrics)
        if place.rank == 0:
            progress.report(self.told, {"step": step + 1, "steps": total, "lr": rate} | metrics)
        return metrics


def _meter(parent: Path, table: pa.Table, config: TrainConfig, place: _Place) -> StepMeter:
    peak = None
    if place.device.type == "cuda":
        gpu = gpu_of_device(torch.cuda.get_device_name(place.device))
        half = _product_type(config, place) != torch.float32
        peak = None if gpu is None else 1e12 * (gpu.half_tflops if half else gpu.fp32_tflops)
    shape = read_shape(parent / "config.json", parent.name)
    return StepMeter(shape, batches.sizes_of(table), place.world, adapters=config.lora.r > 0, peak=peak)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that this worker had allocated on its GPU, or else of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _use_threads(workers_here: int) -> None:
    """Share the machine's cores among its workers: Ray allows one thread for each logical CPU asked for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // workers_here))


def _load(
    parent: Path, table: pa.Table, config: TrainConfig, place: _Place, seed: int
) -> tuple[ConversationLoss, batches.Batch, int]:
    """(model with its objective, probe batch, padding id). The probe is the beginning of the first rows."""
    model = deep.load_sharded(parent, config) if config.zero_stage == 3 else export.load_parent(parent)
    pad_id = model.config.pad_token_id
    pad_id = pad_id if isinstance(pad_id, int) and pad_id >= 0 else 0  # masked: any id that exists will do
    kind = _product_type(config, place)
    packing = choose_packing(model, place.device, half=kind != torch.float32)
    columns = ("input_ids", "imitate", "avoid")
    rows = [
        {"row_id": row["row_id"]} | {name: row[name][:_PROBE_TOKENS] for name in columns}
        for row in table.slice(0, _PROBE_ROWS).to_pylist()
    ]
    probe = batches.collate(rows, pad_id)
    if config.lora.r:
        model = add_adapters(model, config.lora)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    names = {field.name for field in fields(Objective)} - {"name", "seed"}
    objective = Objective(config.objective, seed=seed, **{name: getattr(config, name) for name in names})
    module = ConversationLoss(
        model, objective, packing, autocast=config.dtype == "auto" and kind == torch.bfloat16
    )
    return module, probe.to(place.device), pad_id


def _product_type(config: TrainConfig, place: _Place) -> torch.dtype:
    """The type of the numbers that are multiplied."""
    kind: torch.dtype = fast_dtype(place.device) if config.dtype == "auto" else getattr(torch, config.dtype)
    return kind


def _check_head(engine: Any, probe: batches.Batch) -> None:
    """Only now: sharded weights have a forward pass once there is an engine."""
    module = engine.module
    use_packing(module.model, exact(module.packing))
    export.check_head(module, probe, deep.gather(engine))
    use_packing(module.model, module.packing)


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


def _check_steps(engine: Any, history: list[dict[str, float]], planned: int) -> None:
    """DeepSpeed's own count of updates, and steps without a label, must be what was planned."""
    unlabelled = sum(1 for line in history if not line["labelled_tokens"])
    executed = engine.global_steps - engine.skipped_steps + unlabelled
    if executed != planned:
        raise RuntimeError(f"planned {planned} optimizer steps, executed {executed}")


def _export(
    engine: Any, probe: batches.Batch, parent: Path, out: Path, place: _Place, config: TrainConfig
) -> None:
    """Rank 0 writes the folder and compares it with the live engine; all ranks take part in gathering."""
    model, packing = engine.module.model, exact(engine.module.packing)
    use_packing(model, packing)
    live = export.live_logits(model, probe, packing)
    lora, adapter = config.lora.r > 0, config.lora.publish == "adapter"
    state = export.whole_state(
        model, deep.gather(engine), place.rank == 0, adapter_only=lora, learned=deep.learned(engine)
    )

    def write() -> None:
        if adapter:
            export.write_adapter(model, state, parent, out)
        elif lora:  # into the parent's own weights: the frozen ones may be 16 bits
            whole = merge(export.load_parent(parent).state_dict() | state, config.lora)
            export.write_model(model, whole, parent, out)
            whole.clear()
        else:
            export.write_model(model, state, parent, out)
        state.clear()  # before the model is read again
        export.check_export(out, probe, live, packing, model.dtype, base=parent if adapter else None)

    _together(write if place.rank == 0 else lambda: None, place.world)
