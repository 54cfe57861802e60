"""Attention for packed rows: conversations side by side in one row that do not see each other.

Each conversation is a segment of the row. On CUDA with the flash-attn package its variable-length kernel
does this; everywhere else `segment_attention` calls torch's kernel once a segment, which computes no product
across conversations and needs no mask. Positions start anew in every segment.
"""

import inspect
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bb3x_ray.schemas.errors import UserError

NAME = "bb3x_segments"
Packing = Literal["flash", "segments", "none"]
IMPLEMENTATIONS = {"flash": "flash_attention_2", "segments": NAME}  # transformers' names
Segments = Sequence[tuple[int, int]]  # (start, end) of each conversation in its row


def choose_packing(model: Any, device: torch.device, half: bool) -> Packing:
    """Make the model attend within segments; "none" for models that cannot, which get one conversation a row.

    half   whether products are in half precision: flash attention knows no other
    """
    takes_positions = "position_ids" in inspect.signature(model.base_model.forward).parameters
    if not (model._supports_attention_backend and takes_positions):
        return "none"
    flash = device.type == "cuda" and half and find_spec("flash_attn") is not None
    packing: Packing = "flash" if flash else "segments"
    use_packing(model, packing)
    return packing


def exact(packing: Packing) -> Packing:
    """The same where products are float32, which flash attention does not know."""
    return "segments" if packing == "flash" else packing


def use_packing(model: Any, packing: Packing) -> None:
    """Let the model attend in a way that `choose_packing` found for it."""
    if packing != "none":
        from transformers import AttentionInterface  # late: Ray's controller imports this room

        AttentionInterface.register(NAME, segment_attention)
        model.set_attn_implementation(IMPLEMENTATIONS[packing])


def segment_arguments(packing: Packing, segments: Segments, device: torch.device) -> dict[str, Any]:
    """What the model's forward is given beside tokens and positions."""
    if packing != "flash":
        return {"segments": tuple(segments)} if packing == "segments" else {}
    ends = [0, *(end for _, end in segments)]
    bounds = torch.tensor(ends, dtype=torch.int32, device=device)
    longest = max(end - start for start, end in segments)
    return {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Segments | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: query [B, H, L, D], key and value [B, H_kv, L, D] -> [B, L, H, D].

    Causal within each segment; without `segments` (a plain forward) the whole row is one.
    """
    if others.get("s_aux") is not None:
        raise UserError("model.source: attention with sinks cannot be trained yet; choose another model.")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    options = (scaling, dropout, sliding_window, softcap)
    heard = [
        _causal(query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], *options)
        for start, end in segments or [(0, query.shape[2])]
    ]
    return torch.cat([x.transpose(1, 2) for x in heard], dim=1), None


def _causal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    length = query.shape[2]
    if softcap is not None:
        return _capped(query, key, value, scaling, dropout, sliding_window, softcap)
    if sliding_window is None or length <= sliding_window:
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling
        )
    seen = _seen(length, sliding_window, query.device)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout, scale=scaling)


def _capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
    softcap: float,
) -> Tensor:
    """Gemma's scores are bounded before the softmax, which no kernel of torch does."""
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    seen = _seen(query.shape[2], sliding_window, query.device)
    weights = scores.float().masked_fill(~seen, -torch.inf).softmax(-1).to(query.dtype)
    return F.dropout(weights, dropout) @ value


def _seen(length: int, sliding_window: int | None, device: torch.device) -> Tensor:
    """[L, L] bool: which places a place sees, itself among them."""
    place = torch.arange(length, device=device)
    back = place[:, None] - place[None]
    return (back >= 0) & (back < (sliding_window or length))
