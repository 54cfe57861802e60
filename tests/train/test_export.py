"""The exported folder is the trained model, or the run fails."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train import export
from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.batches import Batch, collate
from tests.train.test_batches import row


def probe() -> Batch:
    return collate([row([5, 6, 7, 8, 9], "....x"), row([9, 10, 11], "..x")], pad_id=0)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_reloads_with_equal_logits(tiny_model: Path, tmp_path: Path, sharded: bool) -> None:
    model = export.load_parent(tiny_model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    packing = choose_packing(model, torch.device("cpu"), half=False)
    live = export.live_logits(model, probe(), packing)
    state = export.whole_state(model, (lambda _: nullcontext()) if sharded else None, keep=True)
    export.write_model(model, state, tiny_model, tmp_path / "out")
    assert export.check_export(tmp_path / "out", probe(), live, packing) == 0
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert reloaded.dtype == torch.float32
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "out", tiny_model))
    assert ours.chat_template == theirs.chat_template and ours("Hello there") == theirs("Hello there")


def test_other_weights_are_noticed(tiny_model: Path, tmp_path: Path) -> None:
    model = export.load_parent(tiny_model)
    export.write_model(model, export.whole_state(model, None, keep=True), tiny_model, tmp_path)
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    with pytest.raises(RuntimeError, match="not the trained one"):
        export.check_export(tmp_path, probe(), export.live_logits(model, probe(), "none"), "none")


def test_what_is_compared_goes_to_the_live_model_s_device_in_its_type(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A float32 model beside a live one of 16 bits is more than the GPU was planned for."""
    model = export.load_parent(tiny_model)
    export.write_model(model, export.whole_state(model, None, keep=True), tiny_model, tmp_path)
    model.bfloat16()
    live = export.live_logits(model, probe(), "none")
    moved: list[set[torch.dtype]] = []
    move = torch.nn.Module.to

    def to(module: torch.nn.Module, *where: object) -> torch.nn.Module:
        moved.append({parameter.dtype for parameter in module.parameters()})
        return move(module, *where)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    export.check_export(tmp_path, probe(), live, "none", torch.bfloat16)
    assert moved == [{torch.bfloat16}]


def test_weights_without_values_are_noticed(tiny_model: Path, tmp_path: Path) -> None:
    model = export.load_parent(tiny_model)
    state = export.whole_state(model, None, keep=True)
    state["model.norm.weight"] = torch.empty(0)
    with pytest.raises(RuntimeError, match=r"without values: model\.norm\.weight"):
        export.write_model(model, state, tiny_model, tmp_path)


def test_the_parents_own_records_are_not_copied(tiny_model: Path, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    model = export.load_parent(tiny_model)
    export.write_model(model, export.whole_state(model, None, keep=True), tiny_model, parent)
    for name in ("MANIFEST.json", "lineage.json", "model.safetensors.index.json"):
        (parent / name).write_text(json.dumps({}))
    (parent / "README.md").write_text("the parent's card")
    (parent / "pytorch_model.bin").write_bytes(b"pickle")
    export.write_model(model, export.whole_state(model, None, keep=True), parent, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in tiny_model.iterdir()
    )


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="no safetensors"):
        export.load_parent(tmp_path)
