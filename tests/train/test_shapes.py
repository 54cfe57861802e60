"""Parameter counts are those of the real classes, for every family that is claimed."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bb3x_ray.config_file import load_config
from bb3x_ray.registry import Bootstrap, Registry
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage
from bb3x_ray.train.shapes import FAMILIES, ModelShape, read_shape, shape_from, shape_of
from tests.tiny import make_tiny_model

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 200,
    "max_position_embeddings": 64,
}
GROUPED: dict[str, object] = {"num_key_value_heads": 2, "intermediate_size": 96}
MOE: dict[str, object] = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "head_dim": 16,
}
# What a family's config has beside TINY, and the cases in which it counts differently.
CASES: list[tuple[str, dict[str, object]]] = [
    *((name, {**GROUPED, "pad_token_id": 0}) for name in ("llama", "mistral", "smollm3", "qwen2", "phi3")),
    (
        "llama",
        GROUPED | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 20},
    ),
    *((name, GROUPED | {"head_dim": 16}) for name in ("qwen3", "gemma", "gemma2", "gemma3_text")),
    ("mixtral", GROUPED | {"num_local_experts": 8, "num_experts_per_tok": 2}),
    ("qwen3_moe", GROUPED | MOE),
    ("qwen3_moe", GROUPED | MOE | {"mlp_only_layers": [0]}),
    ("gpt_neox", {"intermediate_size": 96}),
    ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 48}),
    ("gpt2", {}),
    ("bloom", {}),
]


def real_parameters(folder: Path) -> int:
    """As transformers counts them, without memory for the weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model.tie_weights()
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("model_type", "extra"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_parameters_are_those_of_the_real_class(
    model_type: str, extra: dict[str, object], tmp_path: Path
) -> None:
    AutoConfig.for_model(model_type, **TINY, **extra).save_pretrained(tmp_path)
    assert read_shape(tmp_path / "config.json", "tiny").parameters == real_parameters(tmp_path)


def test_every_family_is_among_the_cases() -> None:
    assert {name for name, _ in CASES} == set(FAMILIES)


@pytest.mark.parametrize(
    ("source", "total"),
    [
        ("smollm2", 134_515_008),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384),
        ("Qwen/Qwen3-4B-Instruct-2507", 4_022_468_096),
        ("Qwen/Qwen2.5-32B-Instruct", 32_763_876_352),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507", 235_093_634_560),
    ],
)
def test_known_models_have_the_published_sizes(source: str, total: int) -> None:
    shape = shape_of(source)
    assert shape.parameters == total
    # Only the last is a mixture; its name says 22B.
    assert round(shape.active_parameters / 1e9) == (22 if shape.experts else round(total / 1e9))


def test_every_shipped_config_can_be_planned_without_a_network() -> None:
    for path in CONFIGS.glob("*.yaml"):
        assert shape_of(load_config(path).model.source).parameters > 0, path


def test_a_folder_and_the_champion_come_before_the_table(tmp_path: Path, storage: Storage) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    from_folder = shape_of(str(folder))
    assert from_folder.layers == 2 and str(folder) in from_folder.origin
    registry = Registry(storage, "models")
    version = registry.reserve()
    with registry.publish(version, {"source": "smollm2"}, "card") as out:
        (out / "config.json").write_text((folder / "config.json").read_text())
    registry.move_champion(Bootstrap(version), expected=None)
    assert shape_of("smollm2", storage.root).layers == 2
    # A champion that began as another model says nothing of this one.
    assert shape_of("Qwen/Qwen2.5-32B-Instruct", storage.root).layers == 64


def test_planning_writes_nothing(tmp_path: Path) -> None:
    shape_of("smollm2", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"hidden_size": 8}))
    with pytest.raises(UserError, match="num_attention_heads is missing"):
        read_shape(path, "broken")
    with pytest.raises(UserError, match="the hub gives no config"):
        shape_of("no-such/model-anywhere")


def test_an_unknown_type_is_counted_as_a_llama_and_says_so() -> None:
    shape = shape_from({**TINY, "model_type": "novel"}, "n", "here")
    assert "novel is counted as a Llama" in shape.origin


def test_adapters_are_rank_times_both_sides_of_each_matrix() -> None:
    shape = shape_of("smollm2")
    assert isinstance(shape, ModelShape)
    assert shape.adapter_parameters(8, ["q_proj"]) == 30 * 8 * (576 + 576)
    attention = 2 * (576 + 576) + 2 * (576 + 192)
    assert shape.adapter_parameters(8) == 30 * 8 * (attention + 3 * (576 + 1536))
