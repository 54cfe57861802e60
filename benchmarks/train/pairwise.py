"""The reference's way: a padded row for each labelled turn, with its whole context, and all logits.

The CRINGE loss is our own naive one, on the logits of every position.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bb3x_ray.train.cringe import cringe_loss
from benchmarks.train.job import Job, Measured, run_steps
from benchmarks.train.layouts import Pair


def measure(job: Job) -> Measured:
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.lr, weight_decay=0.0, fused=True)

    def one_step(pairs: list[Pair], measured: Measured) -> tuple[float, int]:
        labelled = sum(len(pair["completion_ids"]) for pair in pairs)
        total, positions = 0.0, 0
        for start in range(0, len(pairs), job.micro_rows):
            ids, seen, imitate, avoid = collate(pairs[start : start + job.micro_rows])
            with measured.part("model"):
                loss = loss_sum(model, ids, seen, imitate, avoid) / labelled
                loss.backward()
            total += loss.item()
            positions += ids.numel()
        with measured.part("optimizer"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return total, positions

    return run_steps(job.pairs, one_step)


def loss_sum(model: Any, ids: Tensor, seen: Tensor, imitate: Tensor, avoid: Tensor) -> Tensor:
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
    targets, imitate, avoid = (x[:, 1:].flatten() for x in (ids, imitate, avoid))
    return cringe_loss(logits.flatten(0, 1), targets, imitate, avoid).loss


def collate(pairs: list[Pair]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ids, attention mask, imitate, avoid: [B, L], padded on the right."""
    rows = [pair["prompt_ids"] + pair["completion_ids"] for pair in pairs]
    shape = (len(rows), max(map(len, rows)))
    ids, seen = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    imitate, avoid = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for i, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        seen[i, : len(row)] = 1
        (imitate if pair["good"] else avoid)[i, len(pair["prompt_ids"]) : len(row)] = True
    return ids, seen, imitate, avoid
