"""Which number format the hardware multiplies fast."""

import torch


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it (CUDA; CPUs with AMX or AVX512-BF16), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # Private names of torch that may go: without them we stay with float32, which is right everywhere.
    probes = (
        getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    if device.type == "cpu" and any(probe() for probe in probes if probe):
        return torch.bfloat16
    return torch.float32
