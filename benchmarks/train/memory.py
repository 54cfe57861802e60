"""Peak memory above weights, gradients and optimizer: ours against all logits, at a large vocabulary.

Method: a model built from a config takes one whole step, so that gradients and AdamW's moments exist. Then
the kernel's high-water mark of resident memory is set back, one more forward and backward runs on the same
packed row, and the mark minus what was resident before is the answer. Gradients are kept
(`set_to_none=False`), so they count in neither. glibc is told to hand freed blocks back at once. Each number
comes from a process of its own. Linux only.

    loss   hidden states [L, D] and head alone, as the body leaves them
    step   the whole model, with activation checkpointing and without
"""

import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.batches import Batch, collate
from bb3x_ray.train.cringe import cringe_loss
from bb3x_ray.train.linear_cringe import linear_cringe_loss
from bb3x_ray.train.step import hidden_states

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Shape:
    """A body like SmolLM2-135M's with another vocabulary; a row of four conversations, a third labelled."""

    vocabulary: int = 128_256
    tokens: int = 1024
    hidden: int = 576
    layers: int = 30
    heads: int = 9
    groups: int = 3
    checkpointing: bool = True
    threads: int = 2


def ratios(shape: Shape) -> dict[str, dict[str, float]]:
    """MiB of both, and ours ÷ full logits, of the loss and of whole steps."""
    cases = {
        "loss": ("loss", shape),
        "step, checkpointed": ("step", shape),
        "step": ("step", _with(shape, checkpointing=False)),
    }
    found = {}
    for name, (what, its_shape) in cases.items():
        ours, full = (in_process(what, kind, its_shape) for kind in ("ours", "full"))
        found[name] = {"ours_mib": ours, "full_mib": full, "ratio": ours / full}
    return found


def peak_mib(what: str, kind: str, shape: Shape) -> float:
    """In this process. what: "loss" or "step"; kind: "ours" or "full" (logits)."""
    torch.manual_seed(0)
    torch.set_num_threads(shape.threads)
    batch = collate(_rows(shape), 0)
    work = _loss_alone(kind, shape, batch) if what == "loss" else _step(kind, shape, batch)
    work()
    gc.collect()
    before = _resident("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise UserError(f"memory: the kernel does not let its high-water mark be reset ({error}).") from None
    work()
    return (_resident("VmHWM") - before) / MIB


def _step(kind: str, shape: Shape, batch: Batch) -> Any:
    model: Any = AutoModelForCausalLM.from_config(_config(shape), dtype=torch.float32).train()
    packing = choose_packing(model, torch.device("cpu"), half=False)
    if shape.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def work() -> None:
        hidden = hidden_states(model, batch, packing)
        _loss(kind, hidden, model.get_output_embeddings().weight, batch).backward()
        if not optimizer.state:
            optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return work


def _loss_alone(kind: str, shape: Shape, batch: Batch) -> Any:
    head = torch.nn.Parameter(torch.randn(shape.vocabulary, shape.hidden) * 0.02)
    hidden = torch.nn.Parameter(torch.randn(batch.tokens, shape.hidden))
    head.grad, hidden.grad = torch.zeros_like(head), torch.zeros_like(hidden)
    return lambda: _loss(kind, hidden, head, batch).backward()


def _loss(kind: str, hidden: Tensor, head: Tensor, batch: Batch) -> Tensor:
    if kind == "ours":
        at = hidden.index_select(0, batch.at)
        return linear_cringe_loss(at, head, batch.targets, batch.imitate, batch.avoid).loss
    # All logits, and labels where they are wanted, as a causal model with a loss on top does it.
    masks = torch.zeros(2, batch.tokens, dtype=torch.bool)
    masks[0, batch.at], masks[1, batch.at] = batch.imitate, batch.avoid
    return cringe_loss(hidden @ head.T, batch.input_ids[0].roll(-1), masks[0], masks[1]).loss


def _rows(shape: Shape) -> list[dict[str, Any]]:
    """Replies of 10 tokens after messages of 20, by turns to imitate and to avoid."""
    length = shape.tokens // 4
    ids = torch.randint(0, shape.vocabulary, (4, length)).tolist()
    imitate = [i % 60 >= 50 for i in range(length)]
    avoid = [i % 60 in range(20, 30) for i in range(length)]
    return [
        {"row_id": str(n), "input_ids": row, "imitate": imitate, "avoid": avoid} for n, row in enumerate(ids)
    ]


def _config(shape: Shape) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden * 8 // 3,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        tie_word_embeddings=True,
    )


def _with(shape: Shape, **changes: Any) -> Shape:
    return Shape(**{**asdict(shape), **changes})


def in_process(what: str, kind: str, shape: Shape) -> float:
    """`peak_mib` in a fresh process: what an allocator keeps back would hide what is needed anew."""
    frees_at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    told = json.dumps([what, kind, asdict(shape)])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train.memory", told],
        env={**os.environ, **frees_at_once, "OMP_NUM_THREADS": str(shape.threads)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return float(done.stdout.splitlines()[-1])


def _resident(field: str) -> int:
    """Bytes, from the kernel's own account of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise UserError("memory: this system does not tell a process's peak memory; use --no-memory here.")


if __name__ == "__main__":
    asked, arm, its = json.loads(sys.argv[1])
    sys.stdout.write(f"{peak_mib(asked, arm, Shape(**its))}\n")
