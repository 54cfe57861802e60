"""Rivals: for a token x⁻, the s* that it is contrasted with is one of the k best other tokens, drawn from
their softmax (with k = 1: the best of them).

The draw is made by a hash of (row, place, step, vocabulary entry), never by a generator, so that packing,
sharding and chunking change nothing.
"""

import torch
from torch import Tensor

# Constants of splitmix64, a hash that passes statistical tests and needs only 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_A = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_B = 0x94D049BB133111EB - (1 << 64)


def token_seeds(row_seeds: Tensor, positions: Tensor, step: int) -> Tensor:
    """One int64 seed per token from its row, its place in the row and the optimizer step; same shape."""
    steps = torch.full_like(positions, step + 1)  # a tensor's product wraps around, Python's does not
    return _mix(_mix(row_seeds + _GOLDEN * (positions + 1)) + _GOLDEN * steps)


def draw_rivals(others: Tensor, k: int, seeds: Tensor | None) -> Tensor:
    """[N] vocabulary entries s*, from `others` [N, V]: logits in which the token itself is −inf.

    That is the paper's rule: of the k + 1 best, the token itself goes, or else the last of them.
    """
    if k == 1:
        return others.argmax(1)
    assert seeds is not None
    best, entries = others.topk(k, dim=1)
    # Softmax sampling by Gumbel noise. The noise belongs to the vocabulary entry, not to its rank.
    uniform = _uniform(seeds[:, None] + _GOLDEN * (entries + 1))
    noisy = best.double() - torch.log(-torch.log(uniform))
    return entries.gather(1, noisy.argmax(1, keepdim=True)).squeeze(1)


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
