"""Versions are compared tensor by tensor, also where a tensor is in one of them only."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from bb3x_ray.language.weight_change import changes
from bb3x_ray.language.weights import WeightFiles


def version(folder: Path, **tensors: torch.Tensor) -> WeightFiles:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return WeightFiles(folder)


def nothing() -> torch.Tensor:
    return torch.zeros(3)


def test_relative_changes(tmp_path: Path) -> None:
    ones = torch.ones(2, 2)
    first = version(
        tmp_path / "a", moved=ones, same=ones.half(), gone=nothing(), shaped=nothing(), zero=nothing()
    )
    second = version(
        tmp_path / "b", moved=1.5 * ones, same=ones, new=nothing(), shaped=2 * ones, zero=nothing()
    )
    found = {change.name: change for change in changes(first, second)}
    assert found["moved"].relative == 0.5 and found["same"].relative == found["zero"].relative == 0
    assert (found["gone"].why, found["new"].why) == ("only in the first", "only in the second")
    assert found["shaped"].why == "3 in the first" and math.isinf(found["shaped"].relative)
    assert list(found) == sorted(found)
