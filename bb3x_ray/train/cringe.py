"""The CRINGE loss: imitate some tokens, push others below what the model would say instead.

    L = CE(tokens to imitate) + α · softplus(s[x⁻] − s*)        for every token x⁻ to avoid

s* is one of the k best logits other than x⁻, drawn from their softmax (with k = 1: the best of them).
Everything is returned as sums with their token counts: only the optimizer step divides (law 6).
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from bb3x_ray.schemas.errors import UserError

# Constants of splitmix64, a hash that passes statistical tests and needs only 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_A = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_B = 0x94D049BB133111EB - (1 << 64)


@dataclass(frozen=True, slots=True)
class CringeSums:
    """Sums over labelled tokens, all of shape []. Only `loss` carries a gradient.

    loss            ce_sum + α · contrast_sum: to be divided by the global count of labelled tokens
    imitate_right   tokens to imitate that are already the model's first choice
    avoid_right     tokens to avoid that still are the model's first choice
    """

    loss: Tensor
    ce_sum: Tensor
    contrast_sum: Tensor
    imitate_tokens: Tensor
    avoid_tokens: Tensor
    imitate_right: Tensor
    avoid_right: Tensor

    def counts(self) -> Tensor:
        """[6] float64 without gradient, in the order of COUNTS: what ranks and micro-batches add up."""
        return torch.stack([getattr(self, name).detach().double() for name in COUNTS])


COUNTS: tuple[str, ...] = tuple(field.name for field in fields(CringeSums) if field.name != "loss")


def cringe_loss(
    logits: Tensor,
    targets: Tensor,
    imitate: Tensor,
    avoid: Tensor,
    *,
    alpha: float = 1.0,
    k: int = 1,
    seeds: Tensor | None = None,
    detach_positives: bool = False,
) -> CringeSums:
    """Sums of the loss over N tokens; half precision is raised to float32 first.

    logits   [N, V]: row i predicts targets[i]; imitate, avoid [N] bool; a row under neither adds nothing
    seeds    [N] int64, needed for k > 1: one per token, so that the draw does not depend on how rows
             are packed or sharded
    detach_positives   no gradient through s* (the reference's option, off there too)

    Raises UserError when k is not below V, ValueError when k > 1 comes without seeds.
    """
    if not 0 < k < logits.shape[1]:
        raise UserError(f"train.k: must be above 0 and below the model's vocabulary of {logits.shape[1]}.")
    if k > 1 and seeds is None:
        raise ValueError("k > 1 draws at random: give one seed per token")
    # Rows are chosen before the cast: the float32 copy is of labelled tokens only.
    wanted, unwanted = _full_precision(logits[imitate]), _full_precision(logits[avoid])
    wanted_targets, unwanted_targets = targets[imitate], targets[avoid]
    ce_sum = F.cross_entropy(wanted, wanted_targets, reduction="sum")
    drawn = _draw(unwanted.detach(), unwanted_targets, k, None if seeds is None else seeds[avoid])
    rival = unwanted.gather(1, drawn).squeeze(1)
    if detach_positives:
        rival = rival.detach()
    score = unwanted.gather(1, unwanted_targets[:, None]).squeeze(1)
    contrast_sum = F.softplus(score - rival).sum()
    return CringeSums(
        loss=ce_sum + alpha * contrast_sum,
        ce_sum=ce_sum,
        contrast_sum=contrast_sum,
        imitate_tokens=imitate.sum(),
        avoid_tokens=avoid.sum(),
        imitate_right=(wanted.argmax(1) == wanted_targets).sum(),
        avoid_right=(unwanted.argmax(1) == unwanted_targets).sum(),
    )


def summarize(counts: Tensor, alpha: float) -> dict[str, float]:
    """The reference's metrics from `CringeSums.counts()`; where there are no tokens, the metric is left out.

    loss is per labelled token (to imitate or to avoid), ce_loss and ct_loss per token of their own kind.
    """
    ce, contrast, wanted, unwanted, wanted_right, unwanted_right = counts.tolist()
    metrics = {"ct_target_tokens": unwanted, "ce_target_tokens": wanted}
    if wanted + unwanted:
        metrics["loss"] = (ce + alpha * contrast) / (wanted + unwanted)
    if wanted:
        mean = ce / wanted
        metrics |= {"ce_loss": mean, "ppl_pos": _exp(mean), "token_acc_pos": wanted_right / wanted}
    if unwanted:
        mean = contrast / unwanted
        metrics |= {"ct_loss": mean, "ppl_ct": _exp(mean), "token_acc_neg": unwanted_right / unwanted}
    return metrics


def token_seeds(row_seeds: Tensor, positions: Tensor, step: int) -> Tensor:
    """One int64 seed per token from its row, its place in the row and the optimizer step; same shape."""
    steps = torch.full_like(positions, step + 1)  # a tensor's product wraps around, Python's does not
    return _mix(_mix(row_seeds + _GOLDEN * (positions + 1)) + _GOLDEN * steps)


def _full_precision(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _draw(logits: Tensor, targets: Tensor, k: int, seeds: Tensor | None) -> Tensor:
    """[N, 1] indices of s*: one of the k best that are not the target."""
    best, index = logits.topk(k + 1, dim=1)
    dropped = index == targets[:, None]
    # Where the target is not among the k+1 best, the last of them has one too many and goes.
    dropped[:, -1] |= ~dropped.any(1)
    weights = best.double().masked_fill(dropped, -math.inf)
    if k > 1 and seeds is not None:
        # Softmax sampling by Gumbel noise. The noise belongs to the vocabulary entry, not to its rank.
        uniform = _uniform(seeds[:, None] + _GOLDEN * (index + 1))
        weights = weights - torch.log(-torch.log(uniform))
    return index.gather(1, weights.argmax(1, keepdim=True))


def _uniform(hashed: Tensor) -> Tensor:
    """Float64 strictly between 0 and 1, from int64 keys."""
    return (_shift(_mix(hashed), 12).double() + 0.5) / 2**52


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finalizer; int64 products wrap around as unsigned ones do."""
    x = (x ^ _shift(x, 30)) * _MIX_A
    x = (x ^ _shift(x, 27)) * _MIX_B
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right as if unsigned: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
