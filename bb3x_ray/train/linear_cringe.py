"""The CRINGE loss straight from hidden states and head weight, in chunks that never hold all logits.

Of `cringe.cringe_loss(hidden @ head_weight.T, …)` this is value and gradient, made as Liger's and Apple's
fused cross-entropies make theirs: each chunk's logits are turned into their own gradient at once, during
the forward pass, and thrown away. What is special here: a token to avoid has a gradient in two vocabulary
entries only, x⁻ and its rival, so it needs the forward product and no other.

    FLOPs   imitate 6·D·V a token (logits, gradient of hidden, gradient of the head), avoid 2·D·V
    memory  CHUNK_LOGITS float32 values, and one gradient of the head's shape
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bb3x_ray.train.cringe import COUNTS, CringeSums, check_rivals
from bb3x_ray.train.rivals import draw_rivals

# Logits in memory at a time: 128 MiB in float32. Smaller chunks rewrite the head's gradient more often.
CHUNK_LOGITS = 2**25


@dataclass(frozen=True, slots=True)
class _Options:
    alpha: float
    k: int
    detach_positives: bool
    contrast_positives: bool
    soft_cap: float | None
    scale: float
    chunk: int  # rows


def linear_cringe_loss(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    imitate: Tensor,
    avoid: Tensor,
    *,
    alpha: float = 1.0,
    k: int = 1,
    detach_positives: bool = False,
    contrast_positives: bool = False,
    weights: Tensor | None = None,
    seeds: Tensor | None = None,
    soft_cap: float | None = None,
    scale: float = 1.0,
    chunk_logits: int = CHUNK_LOGITS,
) -> CringeSums:
    """`cringe_loss` of the logits cap(scale · hidden @ head_weight.T), with the same options.

    hidden        [T, D]; head_weight [V, D], also where it is tied to the embedding
    soft_cap      c in c · tanh(x / c), for models that bound their logits (Gemma)
    scale         what models multiply their logits by (Cohere, Granite)
    chunk_logits  how many logits may be in memory at a time

    Products are in the inputs' precision (in autocast's inside of it), logits and sums in float32; the
    head's gradient is added up in float32. Call it where the head is whole: under ZeRO stage 3 inside the
    forward of a module that owns it. Raises what `cringe_loss` raises.
    """
    check_rivals(k, head_weight.shape[0], seeds)
    chunk = max(1, chunk_logits // head_weight.shape[0])
    options = _Options(alpha, k, detach_positives, contrast_positives, soft_cap, scale, chunk)
    loss, counts = _LinearCringe.apply(
        hidden, head_weight, targets, imitate, avoid, weights, seeds, options, _product_dtype(hidden)
    )
    # `counts` begins with the loss, which is there without its gradient.
    return CringeSums(loss, *counts[1:])


@torch.no_grad()
def linear_log_probs(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    *,
    soft_cap: float | None = None,
    scale: float = 1.0,
    chunk_logits: int = CHUNK_LOGITS,
) -> Tensor:
    """log p(target) of each token, [T] in float32, without gradient; arguments as in `linear_cringe_loss`."""
    options = _Options(0.0, 1, False, False, soft_cap, scale, max(1, chunk_logits // head_weight.shape[0]))
    work = _Work(hidden, head_weight, targets, None, None, options, _product_dtype(hidden), False, False)
    with torch.autocast(hidden.device.type, enabled=False):
        chunks = torch.arange(len(targets), device=hidden.device).split(options.chunk)
        return torch.cat([work.log_probs(rows) for rows in chunks])


def _product_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class _LinearCringe(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        targets: Tensor,
        imitate: Tensor,
        avoid: Tensor,
        weights: Tensor | None,
        seeds: Tensor | None,
        options: _Options,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        work = _Work(hidden, head_weight, targets, weights, seeds, options, dtype, *ctx.needs_input_grad[:2])
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in imitate.nonzero().squeeze(1).split(options.chunk):
                work.imitate(rows)
            for rows in avoid.nonzero().squeeze(1).split(options.chunk):
                work.avoid(rows)
        ctx.hidden_grad, ctx.head_grad = work.hidden_grad, work.head_grad
        ctx.dtypes = hidden.dtype, head_weight.dtype
        ctx.mark_non_differentiable(work.sums)
        return work.sums[0].to(work.exact), work.sums

    @staticmethod
    def backward(ctx: Any, loss_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients exist already; they are used once, so they are scaled in place."""
        kept = zip((ctx.hidden_grad, ctx.head_grad), ctx.dtypes, strict=True)
        grads = [None if grad is None else grad.mul_(loss_grad).to(dtype) for grad, dtype in kept]
        ctx.hidden_grad = ctx.head_grad = None
        return grads[0], grads[1], *[None] * 7


class _Work:
    """Sums and gradients under way. `exact` is float32, or float64 where the inputs are."""

    def __init__(
        self,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor | None,
        seeds: Tensor | None,
        options: _Options,
        dtype: torch.dtype,
        hidden_learns: bool,
        head_learns: bool,
    ) -> None:
        self.exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.hidden, self.head = hidden.detach().to(dtype), head.detach().to(dtype)
        self.targets, self.weights, self.seeds, self.options = targets, weights, seeds, options
        self.hidden_grad = torch.zeros_like(hidden, dtype=self.exact) if hidden_learns else None
        self.head_grad = torch.zeros_like(head, dtype=self.exact) if head_learns else None
        self.sums = torch.zeros(len(COUNTS), dtype=torch.float64, device=hidden.device)

    def imitate(self, rows: Tensor) -> None:
        """Cross-entropy of these rows, whose logits become their own gradient in place."""
        hidden, logits, targets, weights = self._begin(rows)
        score = logits.gather(1, targets)
        rival = self._rival(logits, targets, rows) if self.options.contrast_positives else None
        against = logits.gather(1, rival) if rival is not None else None
        slope = self._slope(logits)
        best, first = logits.max(1, keepdim=True)
        logits.sub_(best).exp_()
        total = logits.sum(1, keepdim=True)
        ce = total.log() + best - score
        self._add(loss=(ce * weights).sum(), ce_sum=ce.sum(), imitate_tokens=len(rows))
        self._add(imitate_right=(first == targets).sum())
        grad = logits.mul_(weights / total)
        grad.scatter_add_(1, targets, -weights)
        if rival is not None and against is not None:
            contrast = F.softplus(against - score)
            self._add(loss=self.options.alpha * (contrast * weights).sum())
            push = self.options.alpha * weights * torch.sigmoid(against - score)
            grad.scatter_add_(1, targets, -push)
            if not self.options.detach_positives:
                grad.scatter_add_(1, rival, push)
        if slope is not None:
            grad.mul_(slope)
        self._dense(rows, hidden, grad)

    def avoid(self, rows: Tensor) -> None:
        """The contrast of these rows: a gradient for x⁻, which goes down, and its rival, which goes up."""
        hidden, logits, targets, weights = self._begin(rows)
        rival = self._rival(logits, targets, rows)
        score, against = logits.gather(1, targets), logits.gather(1, rival)
        contrast = F.softplus(score - against)
        alpha = self.options.alpha
        self._add(loss=alpha * (contrast * weights).sum(), contrast_sum=contrast.sum())
        self._add(margin_sum=(against - score).sum(), avoid_tokens=len(rows))
        self._add(avoid_right=(logits.argmax(1, keepdim=True) == targets).sum())
        push = alpha * weights * torch.sigmoid(score - against)
        self._sparse(rows, hidden, targets, push * self._scaled(self._slope(score)))
        if not self.options.detach_positives:
            self._sparse(rows, hidden, rival, -push * self._scaled(self._slope(against)))

    def log_probs(self, rows: Tensor) -> Tensor:
        _, logits, targets, _ = self._begin(rows)
        return (logits.gather(1, targets) - logits.logsumexp(1, keepdim=True)).squeeze(1)

    def _begin(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(hidden [N, D], logits [N, V], targets [N, 1], weights [N, 1]) of some rows."""
        hidden = self.hidden[rows]
        logits = (hidden @ self.head.T).to(self.exact)
        if self.options.scale != 1:
            logits.mul_(self.options.scale)
        if self.options.soft_cap is not None:
            logits.div_(self.options.soft_cap).tanh_().mul_(self.options.soft_cap)
        ones = torch.ones(len(rows), dtype=self.exact, device=rows.device)
        weights = ones if self.weights is None else self.weights[rows].to(self.exact)
        return hidden, logits, self.targets[rows][:, None], weights[:, None]

    def _rival(self, logits: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """[N, 1]; the logits are as they were before, without a copy of them."""
        own = logits.gather(1, targets)
        logits.scatter_(1, targets, -math.inf)
        rivals = draw_rivals(logits, self.options.k, None if self.seeds is None else self.seeds[rows])
        logits.scatter_(1, targets, own)
        return rivals[:, None]

    def _slope(self, capped: Tensor) -> Tensor | None:
        """d capped / d uncapped: 1 − (capped / c)², None without a cap."""
        cap = self.options.soft_cap
        return None if cap is None else 1 - (capped / cap) ** 2

    def _scaled(self, slope: Tensor | None) -> Tensor | float:
        return self.options.scale if slope is None else slope * self.options.scale

    def _dense(self, rows: Tensor, hidden: Tensor, grad: Tensor) -> None:
        if self.options.scale != 1:
            grad.mul_(self.options.scale)
        grad = grad.to(self.head.dtype)
        if self.hidden_grad is not None:
            self.hidden_grad.index_add_(0, rows, (grad @ self.head).to(self.exact))
        if self.head_grad is not None and self.head_grad.dtype == hidden.dtype:
            self.head_grad.addmm_(grad.T, hidden)
        elif self.head_grad is not None:
            self.head_grad.add_(grad.T @ hidden)

    def _sparse(self, rows: Tensor, hidden: Tensor, entries: Tensor, grad: Tensor) -> None:
        """A gradient [N, 1] in one vocabulary entry [N, 1] of each row."""
        entries = entries.squeeze(1)
        if self.hidden_grad is not None:
            self.hidden_grad.index_add_(0, rows, grad * self.head[entries])
        if self.head_grad is not None:
            self.head_grad.index_add_(0, entries, grad * hidden)

    def _add(self, **sums: Tensor | float) -> None:
        for name, value in sums.items():
            self.sums[COUNTS.index(name)] += value
