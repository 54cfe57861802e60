"""The control that no gate may let through: a version with its weights in random order."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ABOUT_PARENT = {"MANIFEST.json", "README.md", "lineage.json"}  # the copy gets its own


def shuffle_weights(parent: Path, out: Path, seed: int) -> None:
    """Copy the model in `parent` to `out`, the entries of every weight matrix permuted at random.

    Each matrix keeps its values, so norms and histograms say nothing; only the learning is gone.
    """
    generator = torch.Generator().manual_seed(seed)
    for path in sorted(p for p in parent.iterdir() if p.is_file() and p.name not in ABOUT_PARENT):
        if path.suffix != ".safetensors":
            shutil.copy2(path, out / path.name)
            continue
        shuffled = {
            name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view_as(tensor)
            for name, tensor in load_file(path).items()
        }
        save_file(shuffled, out / path.name, metadata={"format": "pt"})
