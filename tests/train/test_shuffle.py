from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bb3x_ray.train.shuffle import shuffle_weights


def test_every_matrix_keeps_its_values_and_loses_their_order(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "control"
    out.mkdir()
    shuffle_weights(tiny_model, out, seed=1)
    before, after = (load_file(f / "model.safetensors") for f in (tiny_model, out))
    assert before.keys() == after.keys()
    moved = 0
    for name, tensor in before.items():
        assert torch.equal(tensor.flatten().sort().values, after[name].flatten().sort().values)
        moved += not torch.equal(tensor, after[name])
    assert moved > 10
    AutoModelForCausalLM.from_pretrained(out)
