"""DeepSpeed around a model with its objective: sharding, precision, offload."""

import os
from typing import Any

import torch

from bb3x_ray.config import TrainConfig
from bb3x_ray.train.step import ConversationLoss

# What DeepSpeed would call "auto": small enough that a first step rarely has to be repeated.
_FP16_SCALE_POWER = 12


def make_engine(module: ConversationLoss, config: TrainConfig) -> Any:
    """DeepSpeed's engine, without its JIT compilations: they need a compiler and a minute."""
    if not config.gpus_per_worker:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # late: the driver imports this room too, and DeepSpeed takes seconds
    import deepspeed.ops

    deepspeed.utils.logger.setLevel("WARNING")
    if not config.gpus_per_worker:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    learning = [p for p in module.parameters() if p.requires_grad]
    # Torch's own AdamW, fused: one pass over the weights instead of ten.
    optimizer = torch.optim.AdamW(learning, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings(config))
    return engine


def settings(config: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's configuration."""
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.offload != "none":
        pinned = config.gpus_per_worker > 0
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pinned}
        if config.offload == "all":
            zero["offload_param"] = {"device": "cpu", "pin_memory": pinned}
    return {
        # Accumulation is ours (see `train_step`): steps hold different numbers of micro-batches.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.clip,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # its own Adam wants a compiler
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "fp16": {"enabled": config.dtype == "float16", "initial_scale_power": _FP16_SCALE_POWER},
        "steps_per_print": 2**31,
    }


def gather(engine: Any) -> Any:
    """DeepSpeed's context that makes sharded weights whole, or None where none are sharded."""
    if engine.zero_optimization_stage() != 3:
        return None
    import deepspeed

    return deepspeed.zero.GatheredParameters
