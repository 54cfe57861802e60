"""Plain cross-entropy fine-tuning over the same packed tokens: all logits, loss on every token."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bb3x_ray.train.batches import Batch
from benchmarks.train.job import Job, Measured
from benchmarks.train.packed import measure_torch


def measure(job: Job) -> Measured:
    return measure_torch(job, loss_sum, lambda batch: batch.tokens - len(batch.segments))


def loss_sum(model: Any, hidden: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of all tokens but the first of each conversation, which nothing predicts."""
    logits = model.get_output_embeddings()(hidden)
    targets = batch.input_ids[0].roll(-1)
    targets[[end - 1 for _, end in batch.segments]] = -100
    return F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
