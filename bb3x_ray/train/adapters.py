"""LoRA through peft: small matrices learn beside the frozen weights, and are merged into them in the end."""

from typing import Any

from torch import Tensor

from bb3x_ray.config import LoraConfig
from bb3x_ray.schemas.errors import UserError

_NAME = "default"  # peft's own name of the one adapter


def add_adapters(model: Any, config: LoraConfig) -> Any:
    """The same model with adapters in its layers; everything else is frozen.

    Raises UserError when no layer has one of the names in `config.targets`.
    """
    import peft  # late: the driver imports this room, and who trains whole models needs none

    targets: Any = list(config.targets) or "all-linear"
    about = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, about).get_base_model()
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        raise UserError(
            f"train.lora.targets: no layer of {model.config.model_type} is called "
            f"{', '.join(config.targets)}; leave it empty for all linear layers."
        ) from None


def merge(state: dict[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """The state of the model without adapters: W + (alpha / r) · B A, summed in float32."""
    merged = {}
    for name, value in state.items():
        layer, adapted, rest = name.partition(".base_layer.")
        if ".lora_" in name:
            continue
        if adapted and rest == "weight":
            down, up = (state[f"{layer}.lora_{side}.{_NAME}.weight"].float() for side in ("A", "B"))
            value = (value.float() + config.alpha / config.r * (up @ down)).to(value.dtype)
        merged[f"{layer}.{rest}" if adapted else name] = value
    return merged
