"""Fused cross-entropy on the labelled tokens: our loss when there is nothing to avoid.

The body is the same as in `ours`; what is measured against it is the price of contrast and engine.
"""

from typing import Any

import torch
from torch import Tensor

from bb3x_ray.train.batches import Batch
from bb3x_ray.train.linear_cringe import linear_cringe_loss
from benchmarks.train.job import Job, Measured
from benchmarks.train.packed import measure_torch


def measure(job: Job) -> Measured:
    return measure_torch(job, loss_sum, lambda batch: batch.labelled_tokens)


def loss_sum(model: Any, hidden: Tensor, batch: Batch) -> Tensor:
    labelled = batch.imitate | batch.avoid
    return linear_cringe_loss(
        hidden.index_select(0, batch.at),
        model.get_output_embeddings().weight,
        batch.targets,
        imitate=labelled,
        avoid=torch.zeros_like(labelled),
    ).loss
