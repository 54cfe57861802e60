"""LoRA: only adapters learn; merged weights, or the adapter on its base, are the model that was trained."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from bb3x_ray.config import LoraConfig
from bb3x_ray.language.loading import load_model
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train import export
from bb3x_ray.train.adapters import add_adapters, merge
from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.batches import collate
from bb3x_ray.train.objectives import Objective
from bb3x_ray.train.shuffle import shuffle_weights
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


def trained(parent: Path, config: LoraConfig) -> Any:
    """The parent with adapters in it that are not zero."""
    torch.manual_seed(0)
    model = add_adapters(export.load_parent(parent), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def test_a_published_adapter_stands_for_the_trained_model(tiny_model: Path, tmp_path: Path) -> None:
    config = LoraConfig(r=4, alpha=8, publish="adapter")
    base = shutil.copytree(tiny_model, tmp_path / "v0001")
    model, batch = trained(base, config), collate(talk(5), 0)
    packing = choose_packing(model, torch.device("cpu"), half=False)
    live = export.live_logits(model, batch, packing)
    state = export.whole_state(model, None, keep=True, adapter_only=True)
    export.write_adapter(model, state, base, tmp_path / "aside" / "out")
    assert export.check_export(tmp_path / "aside" / "out", batch, live, packing, base=base) < 1e-4
    (tmp_path / "aside" / "out").rename(tmp_path / "v0002")
    assert export.check_export(tmp_path / "v0002", batch, live, packing) < 1e-4
    size = sum(path.stat().st_size for path in (tmp_path / "v0002").glob("*.safetensors"))
    assert size < 0.3 * (base / "model.safetensors").stat().st_size
    by_peft = PeftModel.from_pretrained(export.load_parent(base), tmp_path / "v0002")
    torch.testing.assert_close(export.live_logits(by_peft.get_base_model(), batch, "none"), live)
    merged = merge(export.whole_state(model, None, keep=True), config)
    loaded = export.load_parent(tmp_path / "v0002").state_dict()
    assert all(torch.equal(merged[name], loaded[name]) for name in loaded), "the same bits as merged"


def test_weights_that_changed_outside_the_adapter_are_noticed(tiny_model: Path, tmp_path: Path) -> None:
    model, batch = trained(tiny_model, LoraConfig(r=4)), collate(talk(5), 0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.1)
    live = export.live_logits(model, batch, "none")
    state = export.whole_state(model, None, keep=True, adapter_only=True)
    export.write_adapter(model, state, tiny_model, tmp_path / "out")
    with pytest.raises(RuntimeError, match="not the trained one"):
        export.check_export(tmp_path / "out", batch, live, "none", base=tiny_model)


def test_what_is_trained_from_an_adapter_may_be_published_whole(tiny_model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "v0001")
    model = trained(base, LoraConfig(r=4))
    state = export.whole_state(model, None, keep=True, adapter_only=True)
    export.write_adapter(model, state, base, tmp_path / "v0002")
    again = export.load_parent(tmp_path / "v0002")
    whole = export.whole_state(again, None, keep=True)
    export.write_model(again, whole, tmp_path / "v0002", tmp_path / "v0003")
    assert not (tmp_path / "v0003" / "adapter_config.json").exists()
    assert torch.equal(
        load_file(tmp_path / "v0003" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"],
        again.get_parameter("model.layers.0.mlp.up_proj.weight"),
    )


def test_the_control_of_an_adapter_is_shuffled_whole(tiny_model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "v0001")
    model = trained(base, LoraConfig(r=4))
    state = export.whole_state(model, None, keep=True, adapter_only=True)
    export.write_adapter(model, state, base, tmp_path / "v0002")
    (tmp_path / "control").mkdir()
    shuffle_weights(tmp_path / "v0002", tmp_path / "control", seed=1)
    before = export.load_parent(tmp_path / "v0002").state_dict()
    after = load_model(tmp_path / "control", dtype="float32", device="cpu").model.state_dict()
    for name, value in before.items():
        assert torch.equal(value.flatten().sort().values, after[name].flatten().sort().values)
        assert value.unique().numel() < 2 or not torch.equal(value, after[name])
