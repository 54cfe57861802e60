"""One optimizer step: labelled tokens counted first, over the whole window and all ranks, then the loss."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bb3x_ray.language.logits import soft_cap_and_scale
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train.attention import Packing, segment_arguments
from bb3x_ray.train.batches import Batch
from bb3x_ray.train.cringe import COUNTS, summarize
from bb3x_ray.train.objectives import Objective

FP16_TRIES = 10


class Engine(Protocol):
    """What a step needs of DeepSpeed's engine."""

    skipped_steps: int

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]: ...
    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None: ...
    def backward(self, loss: Tensor, *, scale_wrt_gas: bool) -> Any: ...
    def step(self) -> None: ...
    def get_global_grad_norm(self) -> Any: ...
    def zero_optimization_stage(self) -> int: ...
    def fp16_enabled(self) -> bool: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


class Head(nn.Module):
    """A model's output head with the objective inside, for whose forward ZeRO stage 3 gathers the weight.

    soft_cap, scale   what the model does to its logits behind the head
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        linear = model.get_output_embeddings()
        self.weight, self.bias = linear.weight, linear.bias
        self.soft_cap, self.scale = soft_cap_and_scale(model.config)

    def forward(self, hidden: Tensor, objective: Objective, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """(loss sum [], counts as in cringe.COUNTS); hidden [N, D], one for each labelled token."""
        hidden, weight = self._with_bias(hidden)
        sums = objective(hidden, weight, batch, step, self.soft_cap, self.scale)
        return sums.loss, sums.counts()  # plain tensors: ZeRO stage 3 looks for them in what a module returns

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, V], as the model would give them."""
        hidden, weight = self._with_bias(hidden)
        logits = hidden @ weight.T * self.scale
        return logits if self.soft_cap is None else self.soft_cap * torch.tanh(logits / self.soft_cap)

    def _with_bias(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """A bias is one more column of the weight, and a 1 in every hidden state."""
        if self.bias is None:
            return hidden, self.weight
        ones = hidden.new_ones(len(hidden), 1)
        return torch.cat([hidden, ones], 1), torch.cat([self.weight, self.bias[:, None]], 1)


class ConversationLoss(nn.Module):
    """A causal language model with its objective inside its forward.

    Hidden states are gathered at positions whose target is labelled, and only those meet the head: logits
    are never [L, V]. All of it happens in `forward`, where ZeRO stage 3 gathers weights.
    """

    def __init__(
        self, model: Any, objective: Objective, packing: Packing = "none", autocast: bool = False
    ) -> None:
        super().__init__()
        self.model, self.head = model, Head(model)
        self.objective, self.packing, self.autocast = objective, packing, autocast

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """(loss sum [], counts [8] as in cringe.COUNTS) of one micro-batch."""
        with self._compute_type(batch.input_ids.device.type):
            hidden = hidden_states(self.model, batch, self.packing).index_select(0, batch.at)
            found: tuple[Tensor, Tensor] = self.head(hidden, self.objective, batch, step)
        return found

    def _compute_type(self, device: str) -> contextlib.AbstractContextManager[Any]:
        # Weights stay float32; only the multiplications are bfloat16.
        return torch.autocast(device, torch.bfloat16) if self.autocast else contextlib.nullcontext()


def hidden_states(model: Any, batch: Batch, packing: Packing) -> Tensor:
    """[L, D] of a packed row; models that cannot be packed get one padded row a conversation."""
    if packing == "none":
        whole = batch.input_ids[0]
        lengths = torch.tensor([end - start for start, end in batch.segments], device=whole.device)
        ids = pad_sequence([whole[start:end] for start, end in batch.segments], batch_first=True)
        seen = torch.arange(ids.shape[1], device=whole.device) < lengths[:, None]
        hidden = model.base_model(input_ids=ids, attention_mask=seen.long(), use_cache=False)
        packed: Tensor = hidden.last_hidden_state[seen]
        return packed
    extra = segment_arguments(packing, batch.segments, batch.input_ids.device)
    hidden = model.base_model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **extra
    )
    return hidden.last_hidden_state.squeeze(0)


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
    Returns the same metrics on every rank, but for seconds by phase; without any labelled token the weights
    stay as they are.
    Raises UserError, on every rank, when the loss or the gradient is not a finite number.
    """
    device = batches[0].input_ids.device
    labelled = _sum_over_ranks(torch.tensor([sum(b.labelled_tokens for b in batches)], device=device))
    tokens = _sum_over_ranks(torch.tensor([sum(b.tokens for b in batches)], device=device))
    if not int(labelled):
        return {"tokens": float(tokens), "labelled_tokens": 0.0}
    scale = _world() / float(labelled)
    # float16 overflows now and then: DeepSpeed then refuses the update, halves its loss scale, and the same
    # step is made again. Otherwise a refusal is an error.
    tries = FP16_TRIES if engine.fp16_enabled() else 1
    for _ in range(tries):
        refused = engine.skipped_steps
        clock = Clock(device)
        counts = _accumulate(engine, batches, step, scale, clock)
        metrics = summarize(_sum_over_ranks(counts))
        _check_finite("loss", metrics["loss"], step)
        norm = _update(engine)
        clock.lap("update")
        if engine.skipped_steps == refused:
            break
    else:
        norm = math.inf
    _check_finite("gradient", norm, step)
    turns = _sum_over_ranks(torch.tensor([sum(b.labelled_turns for b in batches)], device=device))
    sizes = {"tokens": tokens, "labelled_tokens": labelled, "labelled_turns": turns}
    return metrics | {"grad_norm": norm} | {n: float(v) for n, v in sizes.items()} | clock.seconds


def _accumulate(engine: Engine, batches: Sequence[Batch], step: int, scale: float, clock: "Clock") -> Tensor:
    """Forward and backward of every micro-batch; their counts, summed."""
    counts = torch.zeros(len(COUNTS), dtype=torch.float64, device=batches[0].input_ids.device)
    for number, batch in enumerate(batches):
        engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
        loss, batch_counts = engine(batch, step)
        clock.lap("forward")
        engine.backward(loss * scale, scale_wrt_gas=False)
        clock.lap("backward")
        counts += batch_counts
    return counts


class Clock:
    """Seconds by phase of a step, named `<phase>_seconds`."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._on_gpu = device.type == "cuda"
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """What went by since the last call was `phase`."""
        if self._on_gpu:
            torch.cuda.synchronize()
        now = time.perf_counter()
        name = f"{phase}_seconds"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def _update(engine: Engine) -> float:
    """Let the engine clip and step; the gradient's norm before clipping."""
    norm = None
    if engine.zero_optimization_stage() == 0:  # whole gradients on every rank, and no norm kept afterwards
        norms = [
            torch.linalg.vector_norm(p.grad, dtype=torch.float32)
            for p in engine.parameters()
            if p.grad is not None
        ]
        norm = torch.stack(norms).norm() if norms else None
    engine.step()
    norm = engine.get_global_grad_norm() if norm is None else norm
    return math.inf if norm is None else float(norm)


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
