"""What the three arms over packed conversations share: batches, body and attention are training's own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.batches import Batch, micro_batches, pack
from bb3x_ray.train.step import hidden_states
from benchmarks.train.job import Job, Measured, run_steps
from benchmarks.train.layouts import Row

# (model, hidden states [L, D] of a batch, the batch) -> sum of the loss
LossSum = Callable[[Any, Tensor, Batch], Tensor]


def load(job: Job) -> Any:
    return AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32).train()


def batches_of(rows: list[Row], window: int) -> list[Batch]:
    """As the trainer makes them: conversations side by side in rows of at most `window` tokens."""
    count = len(pack([(len(row["input_ids"]),) for row in rows], window))
    return micro_batches(rows, count, window, pad_id=0)


def measure_torch(job: Job, loss_sum: LossSum, tokens_of: Callable[[Batch], int]) -> Measured:
    """A plain torch loop: forward and backward of each micro-batch, clip, AdamW.

    tokens_of   how many tokens of a batch the loss is the mean of
    """
    model = load(job)
    packing = choose_packing(model, torch.device("cpu"), half=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.lr, weight_decay=0.0, fused=True)

    def one_step(rows: list[Row], measured: Measured) -> tuple[float, int]:
        batches = batches_of(rows, job.window)
        count = sum(map(tokens_of, batches))
        total = 0.0
        for batch in batches:
            with measured.part("model"):
                loss = loss_sum(model, hidden_states(model, batch, packing), batch) / count
                loss.backward()
            total += loss.item()
        with measured.part("optimizer"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return total, sum(batch.tokens for batch in batches)

    return run_steps(job.steps, one_step)
