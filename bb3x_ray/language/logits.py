"""What models do to their logits behind the head: Gemma caps them, Cohere and Granite scale them."""

from typing import Any

import torch
from torch import Tensor


def soft_cap_and_scale(config: Any) -> tuple[float | None, float]:
    """(soft cap or None, scale) by a model's config: logits are cap(scale * head(hidden))."""
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    return getattr(config, "final_logit_softcapping", None), scale


def finished(logits: Tensor, config: Any) -> Tensor:
    """Of the same shape: what the head gave, as the model would return it."""
    soft_cap, scale = soft_cap_and_scale(config)
    logits = logits * scale
    return logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)
