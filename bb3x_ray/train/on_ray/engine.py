"""DeepSpeed around a model with its objective: sharding, precision, offload."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from bb3x_ray.config import TrainConfig
from bb3x_ray.language.weights import WeightFiles, check_fits, load_causal
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train.step import ConversationLoss

# What DeepSpeed would call "auto": small enough that a first step rarely has to be repeated.
_FP16_SCALE_POWER = 12

_WEIGHTS = {"bfloat16": torch.bfloat16, "float16": torch.float16}  # of any other train.dtype: float32


def load_sharded(folder: Path, config: TrainConfig) -> Any:
    """The causal model of a version's folder, shared out over all workers while it is read (ZeRO stage 3).

    Every worker calls this. Each weight is made inside DeepSpeed's zero.Init, where a worker keeps its share;
    the first worker alone reads values, which go to the others module by module. Weights have the type that
    the engine trains, buffers keep theirs.
    Raises UserError, on every worker, when the files do not hold what the model takes.
    """
    deepspeed = _import_deepspeed(config)
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    files = WeightFiles(folder)
    with torch.device("meta"):
        check_fits(files, AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(files.root)))
    sharding = HfDeepSpeedConfig(settings(config))  # transformers looks whether such an object lives
    read: Any = AutoModelForCausalLM.from_pretrained(
        files.root,
        dtype=_WEIGHTS.get(config.dtype, torch.float32),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    del sharding
    model, found = read
    if found["missing_keys"]:  # as many weights as it takes, but under other names
        raise UserError(f"{files.root}: its files lack {min(found['missing_keys'])}; import the model again.")
    for name in files.adapted:
        weight = model.get_parameter(name)
        with torch.no_grad(), deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
            if dist.get_rank() == 0:
                weight.copy_(files.read(name))
    model.config.use_cache = False
    return model


def make_engine(module: ConversationLoss, config: TrainConfig) -> Any:
    """DeepSpeed's engine."""
    deepspeed = _import_deepspeed(config)
    learning = [p for p in module.parameters() if p.requires_grad]
    # Torch's own AdamW, fused: one pass over the weights instead of ten.
    optimizer = torch.optim.AdamW(learning, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings(config))
    if config.dtype in _WEIGHTS and engine.zero_optimization_stage() == 0:
        # There DeepSpeed takes a step without a gradient, which would count in Adam's corrections.
        engine.optimizer.optimizer.state.clear()
    if engine.zero_optimization_stage() == 0 and dist.get_world_size() == 1:
        engine.enable_backward_allreduce = False  # alone it would copy every gradient, there and back
    return engine


def _import_deepspeed(config: TrainConfig) -> Any:
    """DeepSpeed, without its JIT compilations: they need a compiler and a minute."""
    if not config.gpus_per_worker:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # late: the driver imports this room too, and DeepSpeed takes seconds
    import deepspeed.ops

    deepspeed.utils.logger.setLevel("WARNING")
    if not config.gpus_per_worker:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def settings(config: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's configuration."""
    # In stage 0 DeepSpeed 0.19 divides float16's gradients by a loss scale that it did not multiply by. Stage
    # 1 is the same training with less memory.
    zero: dict[str, Any] = {"stage": max(config.zero_stage, int(config.dtype == "float16"))}
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


def begin_exactly(engine: Any, parent: Path, config: TrainConfig) -> None:
    """Let the float32 copies of 16-bit weights begin with what the parent's files hold; all workers call it.

    DeepSpeed makes its copies from rounded weights, and most of what an iteration learned is less than half
    the way to the next 16-bit number. Adapters begin anew, and what is frozen beside them has no copy.
    """
    if config.dtype not in _WEIGHTS or config.lora.r:
        return
    rank, device = dist.get_rank(), engine.device
    whole = load_causal(parent, torch.float32) if rank == 0 else None
    for name, weight in engine.module.model.named_parameters():
        value = torch.empty(getattr(weight, "ds_shape", weight.shape), device=device)
        if whole is not None:
            value.copy_(whole.get_parameter(name).data)
        dist.broadcast(value, 0)
        _set_copy(engine, weight, value)


def _set_copy(engine: Any, weight: Any, value: torch.Tensor) -> None:
    """Of the float32 copy, as much as this worker keeps."""
    import deepspeed

    stage = engine.zero_optimization_stage()
    if stage == 0:
        _copies(engine)[id(weight)].data.copy_(value)
    elif stage < 3:
        deepspeed.utils.safe_set_full_fp32_param(weight, value)
    else:
        share = weight.ds_tensor.numel()  # padded where the weight has no as many equal parts
        whole = F.pad(value.flatten(), (0, share * dist.get_world_size() - value.numel()))
        mine = whole.narrow(0, share * dist.get_rank(), share)
        deepspeed.utils.safe_set_local_fp32_param(weight, mine)


def learned(engine: Any) -> Any:
    """From a 16-bit weight to its whole float32 copy, for all workers together; None without such copies."""
    if not (engine.fp16_enabled() or engine.bfloat16_enabled()):
        return None
    import deepspeed

    if engine.zero_optimization_stage():
        return deepspeed.utils.safe_get_full_fp32_param
    copies = _copies(engine)
    return lambda weight: copies.get(id(weight))


def _copies(engine: Any) -> dict[int, torch.Tensor]:
    """In stage 0 DeepSpeed keeps the copies in its optimizer, in the order of the weights."""
    groups = zip(engine.optimizer.fp16_groups, engine.optimizer.fp32_groups, strict=True)
    return {id(narrow): wide for group in groups for narrow, wide in zip(*group, strict=True)}


def gather(engine: Any) -> Any:
    """DeepSpeed's context that makes sharded weights whole, or None where none are sharded."""
    if engine.zero_optimization_stage() != 3:
        return None
    import deepspeed

    return deepspeed.zero.GatheredParameters
