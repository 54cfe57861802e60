"""What a step must compute at least, and how fast this machine multiplies large matrices.

FLOPs of a token, forward (backward is twice as much):
    2 · weights in matrices of the body  +  4 · layers · (heads · head size) · (tokens it sees)
of its head: 2 · D · V forward; a token to imitate needs that thrice, one to avoid once.
"""

import statistics
import time
from typing import Any

import torch

SIDE = 2048


def matmul_rate(repeats: int = 5, dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """FLOPs a second of a product of two square matrices, median of `repeats`."""
    side = SIDE if device == "cpu" else 4 * SIDE
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(seconds[1:])


def rows_flops(config: Any, rows: list[dict[str, Any]]) -> float:
    """Of one step over these rows, without the optimizer: what our layout and loss need."""
    return sum(
        3 * body_flops(config, len(row["input_ids"]))
        + head_flops(config, imitate=sum(row["imitate"]), avoid=sum(row["avoid"]))
        for row in rows
    )


def body_flops(config: Any, tokens: int) -> float:
    """Forward of one conversation through a Llama-like body; each token sees itself and those before it."""
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    seen = tokens * (tokens + 1) / 2
    attention = 4.0 * config.num_hidden_layers * config.num_attention_heads * head_size * seen
    return 2.0 * body_weights(config) * tokens + attention


def body_weights(config: Any) -> int:
    """Weights in the matrices of all layers: attention with grouped keys, and a gated MLP."""
    d, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    head_size = getattr(config, "head_dim", None) or d // heads
    attention = d * head_size * (2 * heads + 2 * groups)
    return int(config.num_hidden_layers * (attention + 3 * d * config.intermediate_size))


def head_flops(config: Any, imitate: int, avoid: int) -> float:
    return 2.0 * config.hidden_size * config.vocab_size * (3 * imitate + avoid)
