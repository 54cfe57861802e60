"""A version with an adapter only is loaded as what it stands for, or refused with its base's name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bb3x_ray.language.loading import import_model, load_model
from bb3x_ray.language.weights import WeightFiles, load_causal
from bb3x_ray.schemas.errors import UserError

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def adapter_by_peft(base: Path, folder: Path, seed: int, **options: object) -> Path:
    """An adapter with random A and B, written by peft itself, beside the base's tokenizer files."""
    torch.manual_seed(seed)
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors", "adapter_config.json"))
    about = LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    model = get_peft_model(load_causal(base, torch.float32), about)
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder, save_embedding_layers=False)
    change(folder, base_model_name_or_path=base.name)
    return folder


def change(folder: Path, **about: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | about))


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> Path:
    """v0001 has whole weights in two files, v0002 is an adapter on it and v0003 one on v0002."""
    whole = AutoModelForCausalLM.from_pretrained(tiny_model)
    whole.save_pretrained(tmp_path / "v0001", max_shard_size="200KB")
    for path in tiny_model.glob("*tok*"):
        shutil.copy(path, tmp_path / "v0001" / path.name)
    shutil.copy(tiny_model / "chat_template.jinja", tmp_path / "v0001")
    adapter_by_peft(tmp_path / "v0001", tmp_path / "v0002", seed=2)
    adapter_by_peft(tmp_path / "v0002", tmp_path / "v0003", seed=3)
    return tmp_path


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(IDS).logits


def test_the_base_is_in_several_files(models: Path) -> None:
    assert len(list((models / "v0001").glob("*.safetensors"))) > 1


def test_an_adapter_is_loaded_as_peft_would_merge_it(models: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(models / "v0001", dtype=torch.float32)
    before = logits(base)
    ours = load_model(models / "v0002", dtype="float32", device="cpu").model
    theirs = PeftModel.from_pretrained(base, models / "v0002").merge_and_unload()
    torch.testing.assert_close(logits(ours), logits(theirs))
    assert (logits(ours) - before).abs().max() > 0.1
    assert not any("lora" in name for name, _ in ours.named_modules())


def test_an_adapter_may_stand_on_an_adapter(models: Path) -> None:
    first = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(models / "v0001", dtype=torch.float32), models / "v0002"
    ).merge_and_unload()
    second = PeftModel.from_pretrained(first, models / "v0003").merge_and_unload()
    ours = load_model(models / "v0003", dtype="float32", device="cpu").model
    torch.testing.assert_close(logits(ours), logits(second))
    files = WeightFiles(models / "v0003")
    assert files.root == models / "v0001" and len(files.adapted) == 14
    state = second.state_dict()
    for name in files.files:
        torch.testing.assert_close(files.read(name), state[name])


def test_weights_are_added_in_float32_and_rounded_once(models: Path) -> None:
    exact = load_model(models / "v0003", dtype="float32", device="cpu").model.state_dict()
    rounded = load_model(models / "v0003", dtype="bfloat16", device="cpu").model.state_dict()
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) for name in exact)


def test_an_adapter_is_imported_with_its_base_as_whole_weights(models: Path, tmp_path: Path) -> None:
    import_model(str(models / "v0002"), tmp_path / "whole")
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert torch.equal(logits(merged), logits(load_causal(models / "v0002", torch.float32)))


def test_a_base_that_is_gone_is_named(models: Path) -> None:
    shutil.rmtree(models / "v0001")
    with pytest.raises(UserError, match=r"v0002 is an adapter on v0001, which is not at .*v0001: restore"):
        load_model(models / "v0003")


def test_a_base_of_another_shape_is_no_base(models: Path) -> None:
    path = models / "v0002" / "adapter_model.safetensors"
    tensors = {name.replace("layers.1", "layers.7"): value for name, value in load_file(path).items()}
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"changes model\.layers\.7\..*, which .*v0001 does not hold"):
        load_model(models / "v0002")


@pytest.mark.parametrize("option", ["use_rslora", "use_dora"])
def test_adapters_that_are_summed_otherwise_are_refused(models: Path, option: str) -> None:
    change(models / "v0002", **{option: True})
    with pytest.raises(UserError, match=f"only plain LoRA adapters can be read, not {option}"):
        load_model(models / "v0002")
