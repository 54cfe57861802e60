"""LoRA through peft: small matrices learn beside the frozen weights; in the end they are merged into them, or
published by themselves."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from bb3x_ray.config import LoraConfig
from bb3x_ray.language.weights import ADAPTER, ADAPTER_PREFIX, adapted
from bb3x_ray.schemas.errors import UserError

PART = ".lora_"  # in the name of every weight of an adapter
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
        # In the weights' own type: DeepSpeed wants one type for all of them.
        return peft.get_peft_model(model, about, autocast_adapter_dtype=False).get_base_model()
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        raise UserError(
            f"train.lora.targets: no layer of {model.config.model_type} is called "
            f"{', '.join(config.targets)}; leave it empty for all linear layers."
        ) from None


def merge(state: dict[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """The state of the model without adapters: W + (alpha / r) · B A, summed in float32.

    state   adapters, and weights under the names that they have beside them or without them; these are
            taken out of it, so that no weight is in memory twice
    """
    weights = [name for name in state if PART not in name]
    merged = {name.replace(".base_layer.", "."): state.pop(name) for name in weights}
    down_ends = f"{PART}A.{_NAME}.weight"
    for name in state:
        if name.endswith(down_ends):
            layer = name.removesuffix(down_ends)
            down, up = state[name], state[f"{layer}{PART}B.{_NAME}.weight"]
            merged[f"{layer}.weight"] = adapted(merged[f"{layer}.weight"], down, up, config.alpha / config.r)
    return merged


def save_adapter(model: Any, state: dict[str, Tensor], base: str, out: Path) -> None:
    """peft's two files in `out`: the adapter of `model`, its weights as in `state`, on the version `base`."""
    tensors = {
        ADAPTER_PREFIX + name.replace(f".{_NAME}.", "."): value.detach().cpu().contiguous()
        for name, value in state.items()
        if PART in name
    }
    save_file(tensors, out / ADAPTER, metadata={"format": "pt"})
    about = model.peft_config[_NAME]
    about.base_model_name_or_path, about.inference_mode = base, True
    about.target_modules = sorted(about.target_modules)  # a set, whose order is another in every process
    about.save_pretrained(out)
