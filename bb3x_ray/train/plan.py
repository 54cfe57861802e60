"""Whether a training fits its machines, what does not, and which settings would make it fit: arithmetic."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bb3x_ray.config import TrainConfig
from bb3x_ray.train.effort import Effort, RoundSize, effort
from bb3x_ray.train.footprint import (
    GIB,
    USABLE,
    GpuMemory,
    NodeMemory,
    TrainSetup,
    answering_bytes,
    gpu_memory,
    node_memory,
    setup_of,
)
from bb3x_ray.train.gpus import Gpu
from bb3x_ray.train.shapes import ModelShape

_OFFLOADS = ("none", "optimizer", "all")
_MORE = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)
_LORA_RANK = 16


@dataclass(frozen=True, slots=True)
class Machines:
    """What trains: GPUs of one kind, `per_node` to a node of `node_gib`; `beside` bytes of each are taken."""

    gpu: Gpu
    per_node: int
    node_gib: float
    beside: float = 0.0

    def usable(self, workers: int) -> float:
        """Bytes for one worker; without a GPU the workers share the machine."""
        here = min(workers, self.per_node) if self.gpu.is_cpu else 1
        return USABLE * GIB * self.gpu.memory_gib / here


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training needs. `problems` and `cure` are sentences; without a problem there is no cure."""

    shape: ModelShape
    setup: TrainSetup
    machines: Machines
    gpu: GpuMemory
    node: NodeMemory
    effort: Effort
    size: RoundSize
    problems: tuple[str, ...]
    cure: str | None

    @property
    def fits(self) -> bool:
        return not self.problems


def make_plan(
    shape: ModelShape,
    config: TrainConfig,
    machines: Machines,
    size: RoundSize,
    *,
    longest_row: int,
    mfu: float = 0.4,
) -> Plan:
    """The plan for a training config on machines.

    longest_row   tokens of the longest training row, curate.max_tokens
    mfu           the share of the GPU's peak that is reached; an assumption
    """
    setup = setup_of(config, machines.gpu, longest_row, machines.per_node)
    return plan_setup(shape, setup, machines, size, mfu)


def plan_setup(
    shape: ModelShape, setup: TrainSetup, machines: Machines, size: RoundSize, mfu: float = 0.4
) -> Plan:
    """As `make_plan`, from a setup."""
    problems = [*_training_problems(shape, setup, machines)]
    cure = _cure(shape, setup, machines) if problems else None
    problems += _answering_problems(shape, setup, machines, size)
    return Plan(
        shape=shape,
        setup=setup,
        machines=machines,
        gpu=gpu_memory(shape, setup, machines.beside),
        node=node_memory(shape, setup),
        effort=effort(shape, setup, machines.gpu, setup.workers, size, mfu),
        size=size,
        problems=tuple(problems),
        cure=cure,
    )


def _training_problems(shape: ModelShape, setup: TrainSetup, machines: Machines) -> Iterator[str]:
    gpu, node = gpu_memory(shape, setup, machines.beside), node_memory(shape, setup)
    limit = machines.usable(setup.workers)
    room = f"{limit / GIB:,.1f} GiB that {'a worker' if machines.gpu.is_cpu else 'a GPU'} can use"
    if gpu.training > limit:
        parts = ("weights", "gradients", "optimizer", "buffers", "activations", "logits", "beside")
        most = max(parts, key=lambda part: getattr(gpu, part))
        yield (
            f"a training step needs {gpu.training / GIB:,.1f} GiB of the {room}; "
            f"most of it for {most}, {getattr(gpu, most) / GIB:,.1f} GiB"
        )
    if gpu.start + gpu.beside > limit:
        yield f"every worker first reads the whole model, {gpu.start / GIB:,.1f} GiB of the {room}"
    if gpu.resident + gpu.export > limit:
        yield (
            f"to compare the export with the live model the first worker reads it beside that one, "
            f"{(gpu.resident + gpu.export) / GIB:,.1f} GiB of the {room}"
        )
    if not machines.gpu.is_cpu and node.total > machines.node_gib * GIB:
        yield f"a node needs {node.total / GIB:,.0f} GiB of its own memory and has {machines.node_gib:,.0f}"


def _answering_problems(
    shape: ModelShape, setup: TrainSetup, machines: Machines, size: RoundSize
) -> Iterator[str]:
    need = answering_bytes(shape, size.batch, size.row_tokens)
    if not machines.gpu.is_cpu and need > USABLE * GIB * machines.gpu.memory_gib:
        yield (
            "the server, the evaluation and the iterations load a version whole onto one GPU, "
            f"{need / GIB:,.0f} GiB in 16 bits: no setting of train mends that"
        )


def _cure(shape: ModelShape, setup: TrainSetup, machines: Machines) -> str:
    """One sentence: the cheapest settings, of those tried, with which training fits."""
    for changed in candidates(setup, machines.gpu):
        if next(_training_problems(shape, changed, machines), None) is None:
            gpu, node = gpu_memory(shape, changed, machines.beside), node_memory(shape, changed)
            return (
                f"It fits with {' '.join(overrides(setup, changed))}: {gpu.total / GIB:,.1f} of "
                f"{machines.usable(changed.workers) / GIB:,.1f} GiB on a GPU, "
                f"{node.total / GIB:,.0f} GiB on a node."
            )
    return "Nothing that was tried makes it fit: take a smaller model, larger GPUs or nodes with more memory."


def candidates(setup: TrainSetup, gpu: Gpu) -> Iterator[TrainSetup]:
    """Changed setups, cheapest first: what costs most changes last.

    In order: recomputed activations, smaller micro-batches, a higher ZeRO stage, offload, 16-bit weights,
    more GPUs, adapters alone.
    """
    precisions = dict.fromkeys([setup.precision, "bfloat16" if gpu.bfloat16 else "float16"])
    choices = itertools.product(
        [setup.lora_rank] if setup.lora_rank else [0, _LORA_RANK],
        [setup.workers * k for k in _MORE] if not gpu.is_cpu else [setup.workers],
        [setup.precision] if gpu.is_cpu else precisions,
        _OFFLOADS[_OFFLOADS.index(setup.offload) :] if not gpu.is_cpu else ["none"],
        range(setup.zero_stage, 4),
        _halves(setup.micro_tokens, setup.longest_row),
        [True] if setup.gradient_checkpointing else [False, True],
    )
    for rank, workers, precision, offload, stage, tokens, checkpointing in choices:
        if stage < {"none": 0, "optimizer": 1, "all": 3}[offload]:
            continue
        yield replace(
            setup,
            lora_rank=rank,
            workers=workers,
            workers_per_node=max(setup.workers_per_node, min(workers, 8)) if workers > 1 else 1,
            rows_per_step=max(setup.rows_per_step, workers if workers != setup.workers else 0),
            precision=precision,
            offload=offload,
            zero_stage=stage,
            micro_tokens=tokens,
            gradient_checkpointing=checkpointing,
        )


def _halves(tokens: int, floor: int) -> list[int]:
    """`tokens`, then half of it and so on, down to the longest row."""
    found = [tokens]
    while found[-1] // 2 >= floor:
        found.append(found[-1] // 2)
    return found if found[-1] <= floor or tokens <= floor else [*found, floor]


def overrides(before: TrainSetup, after: TrainSetup) -> list[str]:
    """The arguments of the command that make one setup of the other."""
    keys = {
        "gradient_checkpointing": "gradient_checkpointing",
        "micro_tokens": "micro_tokens",
        "zero_stage": "zero_stage",
        "offload": "offload",
        "precision": "dtype",
        "workers": "workers",
        "rows_per_step": "rows_per_step",
        "lora_rank": "lora.r",
    }
    return [
        f"train.{key}={str(getattr(after, name)).lower()}"
        for name, key in keys.items()
        if getattr(after, name) != getattr(before, name)
    ]
