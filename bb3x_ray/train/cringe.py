"""The CRINGE loss (arXiv 2211.05826): imitate some tokens, push others below what the model would rather say.

    L = Σ w · CE(x)                    over tokens x to imitate
      + α Σ w · softplus(s[x⁻] − s*)   over tokens x⁻ to avoid

    s      logits; s* is the logit of x⁻'s rival, one of the k best other tokens (see rivals.py)
    w      weight of a token, 1 without any (the trust in the thumb it comes from)

Everything is returned as sums with their token counts: only the optimizer step divides, by the number of
labelled tokens, whatever they weigh (law 6). `linear_cringe.py` computes the same without holding all logits.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train.rivals import draw_rivals


@dataclass(frozen=True, slots=True)
class CringeSums:
    """Sums over labelled tokens, all of shape []. Only `loss` carries a gradient.

    loss            weighted, to be divided by the global count of labelled tokens
    ce_sum          cross-entropy of tokens to imitate, without weights
    contrast_sum    softplus(s[x⁻] − s*) of tokens to avoid, without weights
    margin_sum      s* − s[x⁻] of tokens to avoid: above 0 where the model prefers another token
    imitate_right   tokens to imitate that are already the model's first choice
    avoid_right     tokens to avoid that still are the model's first choice
    """

    loss: Tensor
    ce_sum: Tensor
    contrast_sum: Tensor
    margin_sum: Tensor
    imitate_tokens: Tensor
    avoid_tokens: Tensor
    imitate_right: Tensor
    avoid_right: Tensor

    def counts(self) -> Tensor:
        """[8] float64 without gradient, in the order of COUNTS: what ranks and micro-batches add up."""
        return torch.stack([getattr(self, name).detach().double() for name in COUNTS])


COUNTS: tuple[str, ...] = tuple(field.name for field in fields(CringeSums))


def cringe_loss(
    logits: Tensor,
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
) -> CringeSums:
    """Sums of the loss over T tokens; half precision is raised to float32 first.

    logits    [T, V]: row i predicts targets[i]; imitate, avoid [T] bool; a row under neither adds nothing
    weights   [T], 0 to 1: how much each token's loss counts
    seeds     [T] int64, needed for k > 1: one per token, so that the draw does not depend on how rows
              are packed or sharded
    detach_positives     no gradient through s* (the reference's option, off there too)
    contrast_positives   tokens to imitate are also contrasted: softplus(s* − s[x]), times α

    Raises UserError when k is not below V, ValueError when k > 1 comes without seeds.
    """
    check_rivals(k, logits.shape[1], seeds)
    # Rows are chosen before the cast: the float32 copy is of labelled tokens only.
    wanted, unwanted = _full_precision(logits[imitate]), _full_precision(logits[avoid])
    wanted_targets, unwanted_targets = targets[imitate], targets[avoid]
    ce = F.cross_entropy(wanted, wanted_targets, reduction="none")
    score, rival = _pair(unwanted, unwanted_targets, k, None if seeds is None else seeds[avoid])
    contrast = F.softplus(score - (rival.detach() if detach_positives else rival))
    loss = _weighed(ce, weights, imitate) + alpha * _weighed(contrast, weights, avoid)
    if contrast_positives:
        right, best = _pair(wanted, wanted_targets, k, None if seeds is None else seeds[imitate])
        # Here the token is what goes up, and s* what goes down.
        other = F.softplus((best.detach() if detach_positives else best) - right)
        loss = loss + alpha * _weighed(other, weights, imitate)
    return CringeSums(
        loss=loss,
        ce_sum=ce.detach().sum(),
        contrast_sum=contrast.detach().sum(),
        margin_sum=(rival - score).detach().sum(),
        imitate_tokens=imitate.sum(),
        avoid_tokens=avoid.sum(),
        imitate_right=(wanted.argmax(1) == wanted_targets).sum(),
        avoid_right=(unwanted.argmax(1) == unwanted_targets).sum(),
    )


def check_rivals(k: int, vocabulary: int, seeds: Tensor | None) -> None:
    """Raises UserError when k is not below V, ValueError when k > 1 comes without seeds."""
    if not 0 < k < vocabulary:
        raise UserError(f"train.k: must be above 0 and below the model's vocabulary of {vocabulary}.")
    if k > 1 and seeds is None:
        raise ValueError("k > 1 draws at random: give one seed per token")


def summarize(counts: Tensor) -> dict[str, float]:
    """The reference's metrics from `CringeSums.counts()`; where there are no tokens, the metric is left out.

    loss is per labelled token (to imitate or to avoid); ce_loss, ct_loss and ct_margin are per token of
    their own kind.
    """
    loss, ce, contrast, margin, wanted, unwanted, wanted_right, unwanted_right = counts.tolist()
    metrics = {"ct_target_tokens": unwanted, "ce_target_tokens": wanted}
    if wanted + unwanted:
        metrics["loss"] = loss / (wanted + unwanted)
    if wanted:
        mean = ce / wanted
        metrics |= {"ce_loss": mean, "ppl_pos": _exp(mean), "token_acc_pos": wanted_right / wanted}
    if unwanted:
        mean = contrast / unwanted
        metrics |= {"ct_loss": mean, "ppl_ct": _exp(mean), "token_acc_neg": unwanted_right / unwanted}
        metrics["ct_margin"] = margin / unwanted
    return metrics


def _pair(logits: Tensor, targets: Tensor, k: int, seeds: Tensor | None) -> tuple[Tensor, Tensor]:
    """(logit of each row's target, logit of its rival), both [N]."""
    others = logits.detach().scatter(1, targets[:, None], -math.inf)
    rivals = draw_rivals(others, k, seeds)
    return logits.gather(1, targets[:, None]).squeeze(1), logits.gather(1, rivals[:, None]).squeeze(1)


def _weighed(values: Tensor, weights: Tensor | None, where: Tensor) -> Tensor:
    return values.sum() if weights is None else (values * weights[where]).sum()


def _full_precision(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
