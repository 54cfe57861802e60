"""`bb3x plan`: from the config tree to train's plan of memory and time, and that plan for people's eyes."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from bb3x_ray.config import Config
from bb3x_ray.train.effort import RoundSize
from bb3x_ray.train.footprint import GIB, answering_bytes
from bb3x_ray.train.gpus import find_gpu, this_machine
from bb3x_ray.train.plan import Machines, Plan, make_plan
from bb3x_ray.train.shapes import ModelShape, shape_of

# Tokens of one message of small talk with its place in the template, and of a system prompt: a rough guess.
_MESSAGE_TOKENS = 25

_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer: Adam's moments, copy of the weights",
    "buffers": "buffers: gathered weights, gradients under way",
    "activations": "activations",
    "logits": "logits: a chunk, the head's gradient",
    "update": "update (after activations and logits are gone)",
    "beside": "beside: the server",
}


def plan_for(
    config: Config,
    *,
    gpu: str | None = None,
    gpus: int | None = None,
    per_node: int = 8,
    node_gib: float | None = None,
    rows: int | None = None,
    mfu: float = 0.4,
) -> Plan:
    """The plan of a config's training; nothing is started, read are config.json files alone.

    gpu        a name of train/gpus.py; without one, H100, or this machine where the config asks for no GPU
    gpus       that train, one worker on each; without it, the config's workers
    node_gib   memory of a node; without it, what is common for the GPU
    rows       conversations in the training set; without it, an estimate from people and turns
    Raises UserError for an unknown GPU or model.
    """
    train = config.train
    if gpus is not None:
        train = train.model_copy(update={"workers": gpus})
    on_cpu = gpu is None and not train.gpus_per_worker
    device = this_machine() if on_cpu else find_gpu(gpu or "H100")
    shape = shape_of(config.model.source, config.storage.root)
    shared = on_cpu or train.gpus_per_worker < 1
    machines = Machines(
        gpu=device,
        per_node=per_node,
        node_gib=node_gib or device.host_gib * (1 if on_cpu else per_node),
        beside=_server_bytes(config, shape) * (2 if on_cpu else 1) if shared else 0.0,
    )
    return make_plan(
        shape, train, machines, round_size(config, rows), longest_row=config.curate.max_tokens, mfu=mfu
    )


def round_size(config: Config, rows: int | None = None) -> RoundSize:
    """How much a round of this config learns from, by the people it expects."""
    talk, judged, human = config.talk, config.evaluate, config.curate.human_rows
    talks = (talk.helpers + talk.trolls) * talk.conversations_per_person
    asked = config.train.answers
    turn = 2 * _MESSAGE_TOKENS
    tokens = talks * talk.turns_per_conversation * turn + human * turn + (talks + human) * _MESSAGE_TOKENS
    return RoundSize(
        rows=rows or max(1, talks + human),
        row_tokens=min(config.curate.max_tokens, tokens // max(1, talks + human) or turn),
        answers=(asked.contexts or talks * talk.turns_per_conversation) * asked.per_context,
        judged=4 * (judged.standard + judged.adversarial),  # sets A and B, candidate and champion
        reply_tokens=config.chat.max_new_tokens,
        batch=config.serve.max_batch,
    )


def _server_bytes(config: Config, shape: ModelShape) -> float:
    return answering_bytes(shape, config.serve.max_batch, config.chat.max_context_tokens)


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything in bytes, FLOPs and seconds."""
    effort = plan.effort
    return {
        "model": plan.shape.name,
        "read_from": plan.shape.origin,
        "parameters": plan.shape.parameters,
        "active_parameters": plan.shape.active_parameters,
        "gpu": plan.machines.gpu.name,
        "setup": asdict(plan.setup),
        "gpu_bytes": asdict(plan.gpu) | {"training": plan.gpu.training, "total": plan.gpu.total},
        "gpu_usable_bytes": plan.machines.usable(plan.setup.workers),
        "node_bytes": asdict(plan.node) | {"total": plan.node.total},
        "node_available_bytes": plan.machines.node_gib * GIB,
        "size": asdict(plan.size),
        "effort": asdict(effort) | {"total_flops": effort.total_flops, "seconds": effort.seconds},
        "fits": plan.fits,
        "problems": list(plan.problems),
        "cure": plan.cure,
    }


def show(plan: Plan, console: Console) -> None:
    """The plan as tables and sentences."""
    shape, setup, machines = plan.shape, plan.setup, plan.machines
    active = f", {shape.active_parameters / 1e9:.1f}B of them for a token" if shape.experts else ""
    console.print(f"{shape.name}: {shape.parameters / 1e9:.3g}B parameters{active} ({shape.origin})")
    place = (
        "this machine's CPU" if machines.gpu.is_cpu else f"{machines.gpu.name}, {machines.per_node} a node"
    )
    console.print(
        f"{setup.workers} worker{'s' * (setup.workers > 1)} on {place}; ZeRO stage {setup.zero_stage}, "
        f"{setup.precision}, {setup.packed_tokens:,} tokens at a time"
    )
    console.print(_memory_table(plan))
    console.print(_effort_table(plan))
    if plan.effort.waits_for_network:
        a_step = plan.size.row_tokens * setup.rows_per_step / setup.workers  # tokens of one worker
        key = "micro_tokens" if a_step > setup.packed_tokens else "rows_per_step"
        console.print(f"Gathering weights takes longer than computing with them: raise train.{key}.")
    if setup.precision == "bfloat16" and not machines.gpu.bfloat16:
        console.print(f"{machines.gpu.name} has no bfloat16 of its own: train.dtype=float16 is faster there.")
    for problem in plan.problems:
        console.print(f"Does not fit: {problem}.", style="bold red")
    if plan.cure:
        console.print(plan.cure, style="bold")
    elif plan.fits:
        console.print("It fits, by arithmetic: nothing was run.", style="green")


def _memory_table(plan: Plan) -> Table:
    where = "worker" if plan.machines.gpu.is_cpu else "GPU"
    table = Table("memory of a " + where, "GiB", title_justify="left")
    table.columns[1].justify = "right"
    for part, words in _PARTS.items():
        if getattr(plan.gpu, part):
            table.add_row(words, _gib(getattr(plan.gpu, part)))
    table.add_row("at the worst moment of a step", _gib(plan.gpu.training), style="bold")
    table.add_row("while the model is read", _gib(plan.gpu.start + plan.gpu.beside))
    table.add_row("while the export is checked", _gib(plan.gpu.resident + plan.gpu.export))
    table.add_row("it can use", _gib(plan.machines.usable(plan.setup.workers)), end_section=True)
    if not plan.machines.gpu.is_cpu:
        table.add_row("a node: model read by its workers", _gib(plan.node.start))
        offloaded = "offloaded, and " if plan.node.offload else ""
        words = f"a node: {offloaded}the model gathered for export"
        table.add_row(words, _gib(plan.node.offload + plan.node.export))
        table.add_row("a node has (--node-memory)", f"{plan.machines.node_gib:,.2f}")
    return table


def _effort_table(plan: Plan) -> Table:
    effort, flops = plan.effort, plan.effort.flops
    table = Table("a round", "", title_justify="left")
    table.columns[1].justify = "right"
    rows, tokens = plan.size.rows, plan.size.row_tokens
    table.add_row(f"conversations of {tokens} tokens, as assumed (--rows)", f"{rows:,}")
    table.add_row("optimizer steps", f"{effort.steps:,}")
    table.add_row("training tokens, of all passes", f"{effort.tokens:,}")
    table.add_row("FLOPs a token: forward", f"{flops.forward:.2e}")
    table.add_row("backward", f"{flops.backward:.2e}")
    table.add_row("recomputed forward", f"{flops.recomputed:.2e}")
    share = f"{plan.setup.labelled_share:.0%}"
    table.add_row(f"head and loss ({share} of the tokens labelled)", f"{flops.head:.2e}")
    table.add_row("FLOPs in all", f"{effort.total_flops:.2e}", end_section=True)
    table.add_row("training", _time(effort.training))
    table.add_row("the candidate's answers between iterations", _time(effort.answering))
    table.add_row("answers to be judged", _time(effort.judging))
    table.add_row("scoring and judging", _time(effort.scoring))
    table.add_row("in all, start-up not counted", _time(effort.seconds), style="bold")
    return table


def _gib(value: float) -> str:
    return f"{value / GIB:,.2f}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
