"""LoRA: only adapters learn, and the merged weights are the model that was trained."""

from pathlib import Path

import pytest
import torch

from bb3x_ray.config import LoraConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train import export
from bb3x_ray.train.adapters import add_adapters, merge
from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.batches import collate
from bb3x_ray.train.objectives import Objective
from bb3x_ray.train.step import ConversationLoss
from tests.train.test_step import talk


@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj")])
def test_merged_weights_give_the_adapted_model_s_logits(
    tiny_model: Path, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    config = LoraConfig(r=4, alpha=8, targets=targets)
    parent = export.load_parent(tiny_model)
    before = {name: value.clone() for name, value in parent.state_dict().items()}
    packing = choose_packing(parent, torch.device("cpu"), half=False)
    model = add_adapters(parent, config)
    module = ConversationLoss(model, Objective(), packing)
    learning = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert learning and all(".lora_" in name for name in learning)
    batch = collate(talk(5), 0)
    optimizer = torch.optim.SGD(learning.values(), lr=1.0)
    for step in range(3):
        loss, _ = module(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    live = export.live_logits(model, batch, packing)
    state = merge(export.whole_state(model, None, keep=True), config)
    assert state.keys() == before.keys()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert changed == {
        n for n in before if "proj" in n and (not targets or any(target in n for target in targets))
    }
    export.write_model(model, state, tiny_model, tmp_path / "out")
    assert export.check_export(tmp_path / "out", batch, live, packing) < 1e-4


def test_layers_that_do_not_exist_are_named(tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"train\.lora\.targets: no layer of llama is called nothing"):
        add_adapters(export.load_parent(tiny_model), LoraConfig(r=2, targets=("nothing",)))
