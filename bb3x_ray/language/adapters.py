"""Versions that are adapters on one base share its weights in memory: what one more costs is its adapter.

`loading.load_model` adds an adapter to the weights, which is right for one model. Here it stays beside them:
a layer computes W x + B (A x), with a W that all versions on that base use together.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file
from torch import Tensor, nn

from bb3x_ray.language.loading import ChatModel, check_tokenizer, load_model, load_tokenizer
from bb3x_ray.language.weights import ADAPTER, ADAPTER_PREFIX, WeightFiles
from bb3x_ray.registry import ADAPTER_CONFIG
from bb3x_ray.storage import write_json


class AdaptedLinear(nn.Module):
    """A linear layer with an adapter beside it.

    linear   [D] -> [N], used by others too
    down     A [r, D];  up   B [N, r], the scale multiplied in
    """

    def __init__(self, linear: nn.Linear, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(up, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + (x @ self.down.T) @ self.up.T


def load_beside(folder: Path, live: Sequence[ChatModel], dtype: str, device: str) -> ChatModel:
    """As `load_model`; an adapter uses the weights of a live model on the same base, where there is one.

    Raises UserError as `load_model` does.
    """
    files = WeightFiles(folder)
    if not files.adapted:
        return load_model(folder, dtype, device)
    base = _on(files.root, live) or load_model(files.root, dtype, device)
    model = _with_adapters(base.model, files)
    if model is None:  # it changes something other than linear layers
        return load_model(folder, dtype, device)
    tokenizer = load_tokenizer(folder)
    check_tokenizer(folder, tokenizer, model)
    return ChatModel(model, tokenizer, base.device, files.root)


def shares_base(folder: Path, live: Sequence[ChatModel]) -> bool:
    """Whether `load_beside` would need next to no memory."""
    files = WeightFiles(folder)
    base = _on(files.root, live)
    return bool(files.adapted) and base is not None and _only_linear(base.model, files)


def _on(root: Path, live: Sequence[ChatModel]) -> ChatModel | None:
    return next((each for each in live if each.root is not None and each.root.samefile(root)), None)


def _only_linear(model: nn.Module, files: WeightFiles) -> bool:
    return all(isinstance(_layer(model, name), nn.Linear | AdaptedLinear) for name in files.adapted)


def _layer(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.removesuffix(".weight"))


def _with_adapters(base: Any, files: WeightFiles) -> Any:
    """A model that has the base's own tensors and other adapters; None where that cannot be."""
    if not _only_linear(base, files):
        return None
    tensors: dict[int, Any] = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    model = copy.deepcopy(base, memo=tensors)  # the tree of layers, not the tensors
    for name, layer in list(model.named_modules()):
        if isinstance(layer, AdaptedLinear):
            _put(model, name, layer.linear)
    for name in files.adapted:
        linear = cast(nn.Linear, _layer(model, name))
        down, up = (side.to(linear.weight.device, linear.weight.dtype) for side in files.sides(name))
        _put(model, name.removesuffix(".weight"), AdaptedLinear(linear, down, up))
    return model.eval()


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)


def write_combined(files: WeightFiles, folder: Path) -> None:
    """All adapters of a version as one, in peft's files, for engines that take one on whole weights."""
    sides = {name.removesuffix(".weight"): files.sides(name) for name in files.adapted}
    rank = max(down.shape[0] for down, _ in sides.values())
    tensors = {}
    for layer, (down, up) in sides.items():
        lacks = rank - down.shape[0]  # one rank for all: rows and columns of nothing change nothing
        tensors[f"{ADAPTER_PREFIX}{layer}.lora_A.weight"] = nn.functional.pad(down, (0, 0, 0, lacks))
        tensors[f"{ADAPTER_PREFIX}{layer}.lora_B.weight"] = nn.functional.pad(up, (0, lacks))
    save_file(tensors, folder / ADAPTER)
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,  # the scale is in B already
        "target_modules": sorted({layer.rpartition(".")[2] for layer in sides}),
        "base_model_name_or_path": files.root.name,
        "bias": "none",
    }
    write_json(folder / ADAPTER_CONFIG, about)
