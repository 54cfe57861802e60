"""A version's weights: safetensors of one file or several, with adapters added in passing.

A version may hold an adapter only, in peft's file format: for some matrices W of the version it stands on
(its base, in the folder beside it) two small ones, A and B. Whoever loads it gets W + alpha / r · B A, summed
in float32, in a plain model. A base may be an adapter itself.
"""

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from bb3x_ray.registry import ADAPTER_CONFIG, base_of
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import read_json

ADAPTER = "adapter_model.safetensors"
ADAPTER_PREFIX = "base_model.model."  # peft's, before the name of a layer
_UNKNOWN = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "modules_to_save")


def adapted(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W + scale · B A, summed in float32: W [N, D], A (down) [r, D], B (up) [N, r] -> [N, D] float32."""
    return weight.float() + scale * (up.float() @ down.float())


def load_causal(folder: Path, dtype: torch.dtype, base: Path | None = None) -> Any:
    """The causal model of a version's folder, adapters added; safetensors alone, no code of its own.

    base   where the version that an adapter in `folder` stands on lies; None: beside it
    Raises UserError when that is not there or does not fit.
    """
    from transformers import AutoModelForCausalLM  # late: Ray's controller imports this module and needs none

    files = WeightFiles(folder, base)
    model = AutoModelForCausalLM.from_pretrained(
        files.root, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    with torch.no_grad():
        for name in files.adapted:
            model.get_parameter(name).copy_(files.read(name))
    return model


class WeightFiles:
    """The tensors of a version by name, read one at a time; headers are read when the first is asked for.

    root      the folder with whole weights: the version's own, or that of the version its adapters stand on
    adapted   names of the weights that adapters change
    """

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        *adapters, self.root = _chain(folder, base)
        self._adapters = [_Adapter(each) for each in reversed(adapters)]
        self.adapted = list(dict.fromkeys(name for each in self._adapters for name in each.sides))
        unknown = [name for name in self.adapted if name not in self.files]
        if unknown:
            raise UserError(
                f"{folder}: its adapter changes {unknown[0]}, which {self.root} does not hold: it stands on "
                "another version; restore both from a copy."
            )

    @cached_property
    def files(self) -> dict[str, Path]:
        """Which file holds the tensor of that name."""
        return {name: path for name, (path, _) in self._headers.items()}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the tensors in the files; none is read for it."""
        return {name: shape for name, (_, shape) in self._headers.items()}

    @cached_property
    def _headers(self) -> dict[str, tuple[Path, tuple[int, ...]]]:
        found: dict[str, tuple[Path, tuple[int, ...]]] = {}
        for path in sorted(self.root.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                found |= {name: (path, tuple(file.get_slice(name).get_shape())) for name in file.keys()}
        return found

    def sides(self, name: str) -> tuple[Tensor, Tensor]:
        """What all adapters add to that weight [N, D] together: A [r, D], and B [N, r] times the scale."""
        found = [(*each.sides[name], each.scale) for each in self._adapters if name in each.sides]
        return (
            torch.cat([down.float() for down, _, _ in found]),
            torch.cat([up.float() * scale for _, up, scale in found], dim=1),
        )

    def read(self, name: str) -> Tensor:
        """On the CPU, of the type in its file; float32 where an adapter changes it."""
        with safe_open(self.files[name], framework="pt") as file:
            value: Tensor = file.get_tensor(name)
        for adapter in self._adapters:
            if name in adapter.sides:
                value = adapted(value, *adapter.sides[name], adapter.scale)
        return value


def check_fits(files: WeightFiles, model: Any) -> None:
    """Raise UserError unless the files hold every weight of the model, and nothing that it has no place for.

    Numbers are counted, because transformers may join tensors while it reads them (those of experts).

    model   may be on torch's meta device
    """
    tied = set(model.all_tied_weights_keys)  # second names, which a file may have or not
    takes = {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}
    holds = {name: shape for name, shape in files.shapes.items() if name not in tied}
    wanted, held = (sum(map(math.prod, shapes.values())) for shapes in (takes, holds))
    if wanted != held:
        odd = sorted(name for name in {*takes, *holds} if takes.get(name) != holds.get(name))
        raise UserError(
            f"{files.root}: its files hold {held:,} weights where a {model.config.model_type} takes "
            f"{wanted:,}; the first that differs is {odd[0]}; import the model again."
        )


class _Adapter:
    """peft's files of one adapter: `sides` are (A, B) by the name of the weight that they change."""

    def __init__(self, folder: Path) -> None:
        about, tensors = read_json(folder / ADAPTER_CONFIG), load_file(folder / ADAPTER)
        option = next((option for option in _UNKNOWN if about.get(option)), None)
        ends = ".lora_A.weight"  # sorted: all workers have to come to the same order
        layers = sorted(name.removesuffix(ends) for name in tensors if name.endswith(ends))
        if option or 2 * len(layers) != len(tensors):
            raise UserError(
                f"{folder}: only plain LoRA adapters can be read, not {option or 'other tensors'}; merge it "
                "into its base with peft and import the result."
            )
        self.scale = about["lora_alpha"] / about["r"]
        self.sides = {
            f"{layer.removeprefix(ADAPTER_PREFIX)}.weight": (
                tensors[f"{layer}.lora_A.weight"],
                tensors[f"{layer}.lora_B.weight"],
            )
            for layer in layers
        }


def _chain(folder: Path, base: Path | None) -> list[Path]:
    """The folder, its base, the base of that and so on: the last one holds whole weights."""
    found = [folder]
    while (name := base_of(found[-1])) is not None:
        below = base if base is not None and len(found) == 1 else found[-1].parent / name
        if not (below / "config.json").is_file():
            raise UserError(
                f"{found[-1]} is an adapter on {name}, which is not at {below}: restore that version from a "
                "copy."
            )
        found.append(below)
    return found
