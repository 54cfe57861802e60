"""One optimizer step: labelled tokens counted first, over the whole window and all ranks, then the loss."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train.batches import Batch
from bb3x_ray.train.cringe import COUNTS, cringe_loss, summarize
from bb3x_ray.train.rivals import token_seeds


class Engine(Protocol):
    """What a step needs of DeepSpeed's engine."""

    skipped_steps: int

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]: ...
    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None: ...
    def backward(self, loss: Tensor, *, scale_wrt_gas: bool) -> Any: ...
    def step(self) -> None: ...
    def get_global_grad_norm(self) -> Any: ...
    def zero_optimization_stage(self) -> int: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


class ConversationLoss(nn.Module):
    """A causal language model with the CRINGE loss inside its forward.

    Hidden states are gathered at positions whose target is labelled, and only those go through the head:
    logits are [labelled tokens, V], never [B, L, V]. All of it happens in `forward`, where ZeRO stage 3
    gathers weights.
    """

    def __init__(self, model: Any, alpha: float, k: int, seed: int, autocast: bool) -> None:
        super().__init__()
        self.model = model
        self.alpha, self.k, self.seed, self.autocast = alpha, k, seed, autocast

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """(loss sum [], counts [8] as in cringe.COUNTS) of one micro-batch."""
        at = _positions(batch)
        with self._compute_type(batch.input_ids.device.type):
            logits = head_logits(self.model, batch, at)
        length = batch.input_ids.shape[1]
        sums = cringe_loss(
            logits,
            batch.targets.flatten()[at],
            batch.imitate.flatten()[at],
            batch.avoid.flatten()[at],
            alpha=self.alpha,
            k=self.k,
            seeds=token_seeds(batch.row_seeds[at // length] + self.seed, at % length + 1, step),
        )
        return sums.loss, sums.counts()

    def _compute_type(self, device: str) -> contextlib.AbstractContextManager[Any]:
        # Weights stay float32; only the multiplications are bfloat16.
        return torch.autocast(device, torch.bfloat16) if self.autocast else contextlib.nullcontext()


def head_logits(model: Any, batch: Batch, at: Tensor) -> Tensor:
    """Logits [len(at), V] at the flattened [B * L] positions `at`."""
    hidden = model.base_model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
    ).last_hidden_state
    return model.get_output_embeddings()(hidden.flatten(0, 1).index_select(0, at))


def _positions(batch: Batch) -> Tensor:
    """Flattened positions with a label; without any, the first: the head must be called on every rank."""
    at = (batch.imitate | batch.avoid).flatten().nonzero().squeeze(1)
    return at if len(at) else at.new_zeros(1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up to `lr`, then linear decay towards 0 at the end of `total` steps."""

    lr: float
    warmup: int
    total: int

    def at(self, step: int) -> float:
        """The rate of step 0, 1, …: never 0, so that the first and the last step count."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        return self.lr * (self.total - step) / max(1, self.total - self.warmup)


def train_step(engine: Engine, batches: Sequence[Batch], step: int) -> dict[str, float]:
    """One optimizer step over this rank's micro-batches; every rank brings the same number of them.

    DeepSpeed averages gradients over ranks, so the loss is multiplied by their number and divided by the
    count of labelled tokens of all of them. Its own division by accumulation steps is switched off.
    Returns the same metrics on every rank; without any labelled token the weights stay as they are.
    Raises UserError, on every rank, when the loss or the gradient is not a finite number.
    """
    device = batches[0].input_ids.device
    labelled = _sum_over_ranks(torch.tensor([sum(b.labelled_tokens for b in batches)], device=device))
    tokens = _sum_over_ranks(torch.tensor([sum(b.tokens for b in batches)], device=device))
    if not int(labelled):
        return {"tokens": float(tokens), "labelled_tokens": 0.0}
    scale = _world() / float(labelled)
    counts = torch.zeros(len(COUNTS), dtype=torch.float64, device=device)
    for number, batch in enumerate(batches):
        engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
        loss, batch_counts = engine(batch, step)
        engine.backward(loss * scale, scale_wrt_gas=False)
        counts += batch_counts
    metrics = summarize(_sum_over_ranks(counts))
    _check_finite("loss", metrics["loss"], step)
    norm = _update(engine)
    _check_finite("gradient", norm, step)
    return metrics | {"grad_norm": norm, "tokens": float(tokens), "labelled_tokens": float(labelled)}


def _update(engine: Engine) -> float:
    """Let the engine clip and step; the gradient's norm before clipping, infinite when it refused to step."""
    norm = None
    if engine.zero_optimization_stage() == 0:  # whole gradients on every rank, and no norm kept afterwards
        gradients = [p.grad for p in engine.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
    engine.step()
    if engine.skipped_steps:
        return math.inf
    return float(engine.get_global_grad_norm() if norm is None else norm)


def _check_finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise UserError(
            f"training step {step + 1}: the {what} is {value}, so nothing was published; lower train.lr "
            "(or train.alpha), or check the parent's weights."
        )


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _sum_over_ranks(values: Tensor) -> Tensor:
    if _world() > 1:
        dist.all_reduce(values)
    return values
