"""Adapters beside weights that others use: the same numbers, and one copy of the weights."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bb3x_ray.language.adapters import load_beside, shares_base, write_combined
from bb3x_ray.language.loading import ChatModel, load_model
from bb3x_ray.language.weights import WeightFiles, load_causal
from tests.language.test_weights import adapter_by_peft, logits


def load(folder: Path, *live: ChatModel) -> ChatModel:
    return load_beside(folder, live, "float32", "cpu")


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> Path:
    """v0001 has whole weights, v0002 is an adapter on it, v0003 one on v0002, v0004 another on v0001."""
    (tmp_path / "v0001").symlink_to(tiny_model)
    adapter_by_peft(tmp_path / "v0001", tmp_path / "v0002", seed=2)
    adapter_by_peft(tmp_path / "v0002", tmp_path / "v0003", seed=3)
    adapter_by_peft(tmp_path / "v0001", tmp_path / "v0004", seed=4)
    return tmp_path


def test_each_version_gives_its_own_numbers_with_one_copy_of_the_weights(models: Path) -> None:
    live = [load(models / "v0001")]
    for version in ("v0002", "v0003", "v0004"):  # the base may be a version that has an adapter itself
        assert shares_base(models / version, live)
        live = [load(models / version, *live[-1:])]
        expected = load_model(models / version, dtype="float32", device="cpu")
        torch.testing.assert_close(logits(live[0].model), logits(expected.model), atol=1e-5, rtol=1e-4)
    base = load(models / "v0001")
    beside = load(models / "v0002", base)
    assert beside.model.get_parameter("model.norm.weight") is base.model.get_parameter("model.norm.weight")
    changed = "model.layers.0.self_attn.q_proj"
    shared = beside.model.get_submodule(changed).get_parameter("linear.weight")
    assert shared is base.model.get_parameter(f"{changed}.weight")


def test_the_base_keeps_its_numbers(models: Path) -> None:
    base = load(models / "v0001")
    before = logits(base.model)
    load(models / "v0002", base)
    torch.testing.assert_close(logits(base.model), before, atol=0, rtol=0)


def test_without_a_live_base_it_is_read(models: Path, tiny_model: Path) -> None:
    other = load_model(models / "v0004", dtype="float32", device="cpu")  # merged: no base for anybody
    assert other.root is None and not shares_base(models / "v0002", [other])
    alone = load(models / "v0002", other)
    assert alone.root is not None and alone.root.samefile(tiny_model)


def test_adapters_on_adapters_are_one_for_engines_that_take_one(models: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    aside = tmp_path / "combined"
    aside.mkdir()
    write_combined(WeightFiles(models / "v0003"), aside)
    base = AutoModelForCausalLM.from_pretrained(models / "v0001", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, aside)
    expected = load_causal(models / "v0003", torch.float32)
    torch.testing.assert_close(logits(theirs), logits(expected), atol=1e-5, rtol=1e-4)
