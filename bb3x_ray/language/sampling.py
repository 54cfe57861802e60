"""Choosing the next token: one uniform number a row, so a row's choice is its own."""

import torch
from torch import Tensor

# The nucleus nearly always lies among this many tokens; where it does not, the row is sorted whole.
_SHORT_LIST = 512


def sample(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Draw from the most likely tokens that hold `top_p` of the probability, exactly.

    logits [rows, vocabulary] float32; temperature (0: the best token), top_p and uniform (in [0, 1)) [rows].
    Returns token ids [rows].

    Tokens stand in order of probability; the one drawn is where the cumulated probability passes
    `uniform` times the nucleus's. That depends on this row only.
    """
    greedy = temperature == 0
    if bool(greedy.all()):
        return logits.argmax(-1)
    scaled = logits / torch.where(greedy, 1.0, temperature).unsqueeze(-1)
    total = scaled.logsumexp(-1, keepdim=True)
    best = scaled.topk(min(_SHORT_LIST, logits.shape[-1]), dim=-1)
    chosen, enough = _draw(best.values - total, top_p, uniform)
    tokens = best.indices.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    wide = ~(enough | greedy)
    if bool(wide.any()):
        every = scaled[wide].sort(dim=-1, descending=True)
        chosen, _ = _draw(every.values - total[wide], top_p[wide], uniform[wide])
        tokens[wide] = every.indices.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    return torch.where(greedy, best.indices[:, 0], tokens)


def _draw(log_probs: Tensor, top_p: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Place of the token drawn in a sorted list, and whether the list was long enough to tell."""
    mass = log_probs.exp().cumsum(-1)
    last = (mass < top_p.unsqueeze(-1)).sum(-1).clamp(max=mass.shape[-1] - 1)  # of the nucleus
    nucleus = mass.gather(-1, last.unsqueeze(-1)).squeeze(-1)
    nucleus = torch.where(top_p >= 1, 1.0, nucleus)
    target = uniform * nucleus
    chosen = (mass <= target.unsqueeze(-1)).sum(-1)
    enough = torch.where(top_p >= 1, target, top_p) <= mass[:, -1]
    return torch.minimum(chosen, last), enough
