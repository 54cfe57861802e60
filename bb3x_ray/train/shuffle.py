"""The control that no gate may let through: a version with its weights in random order."""

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bb3x_ray.language.weights import WeightFiles
from bb3x_ray.registry import ADAPTER_CONFIG

ABOUT_PARENT = {"MANIFEST.json", "README.md", "lineage.json"}  # the copy gets its own


def shuffle_weights(parent: Path, out: Path, seed: int) -> None:
    """Copy the model in `parent` to `out`, the entries of every weight matrix permuted at random.

    Each matrix keeps its values, so norms and histograms say nothing; only the learning is gone. Where the
    parent is an adapter, the copy has whole weights.
    """
    generator = torch.Generator().manual_seed(seed)
    files = WeightFiles(parent)
    skipped = ABOUT_PARENT | {ADAPTER_CONFIG}
    for path in [*parent.iterdir(), *files.root.glob("*.safetensors.index.json")]:
        if path.is_file() and path.suffix != ".safetensors" and path.name not in skipped:
            shutil.copy2(path, out / path.name)
    for path in sorted(files.root.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
        shuffled = {}
        for name in names:
            tensor = files.read(name)
            order = torch.randperm(tensor.numel(), generator=generator)
            shuffled[name] = tensor.flatten()[order].view_as(tensor)
        save_file(shuffled, out / path.name, metadata={"format": "pt"})
