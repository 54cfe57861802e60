"""ZeRO stage 3 reads a model once: the first worker its values, the others nothing but headers.

Two gloo workers without Ray, which takes as long as a cluster does.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import multiprocessing
from transformers import AutoConfig, AutoModelForCausalLM

from bb3x_ray.config import LoraConfig, TrainConfig
from bb3x_ray.language.weights import load_causal
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train import export
from bb3x_ray.train.adapters import add_adapters
from bb3x_ray.train.on_ray import engine

pytestmark = pytest.mark.ray

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 2000,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}
EXPERTS: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}
MIB = 2**20
NAME = "model.layers.1.mlp.up_proj.weight"


def made(folder: Path, about: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**about, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size="50MB")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """tiny; adapter: one on it; renamed: tiny with a weight under another name; large: 330 MiB in several
    files; experts: of which transformers joins tensors while it reads them."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copytree(tiny_model, folder / "tiny")
    renamed = shutil.copytree(tiny_model, folder / "renamed") / "model.safetensors"
    weights = load_file(renamed)
    weights["model.odd"] = weights.pop(NAME)
    save_file(weights, renamed, metadata={"format": "pt"})
    made(folder / "large", LLAMA)
    made(folder / "experts", EXPERTS)
    model = add_adapters(export.load_parent(folder / "tiny"), LoraConfig(r=4))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    state = export.whole_state(model, None, keep=True, adapter_only=True)
    export.write_adapter(model, state, folder / "tiny", folder / "adapter")
    return folder


@pytest.fixture(scope="module")
def seen(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two workers saw, from `worker` below."""
    out = tmp_path_factory.mktemp("seen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "MALLOC_MMAP_THRESHOLD_", "65536"
        )  # what is freed is given back: a peak is what was used
        multiprocessing.spawn(worker, args=(store, out), nprocs=2)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


def worker(rank: int, store: Path, out: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
    half = TrainConfig(zero_stage=3, dtype="bfloat16")
    seen: dict[str, Any] = {}
    for name, config in (
        ("tiny", half),
        ("adapter", TrainConfig(zero_stage=3)),
        ("experts", TrainConfig(zero_stage=3, offload="all")),
    ):
        seen[name] = compared(engine.load_sharded(folder_of(store, name, rank, out), config), store / name)
    with pytest.raises(UserError) as refused:
        engine.load_sharded(store / "renamed", TrainConfig(zero_stage=3))
    seen["renamed"] = str(refused.value)
    # Imports are paid for by now.
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    model = engine.load_sharded(store / "large", TrainConfig(zero_stage=3))
    seen["peak"] = memory("VmHWM") - before
    seen["large"] = compared(model, store / "large")
    (out / f"{rank}.json").write_text(json.dumps(seen))


def folder_of(store: Path, name: str, rank: int, out: Path) -> Path:
    """The second worker's copy of the base has headers alone: where values would be it has zeros."""
    if rank == 0:
        return store / name
    mine = shutil.copytree(store, out / name, ignore=shutil.ignore_patterns("large"))
    for path in mine.glob("*/model*.safetensors"):
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(8 + int.from_bytes(file.read(8), "little"))
            file.truncate(size)
    return mine / name


def compared(model: Any, folder: Path) -> dict[str, Any]:
    """The sharded model against the whole one, weight by weight; what this worker keeps of it."""
    import deepspeed

    whole = load_causal(folder, torch.float32)
    theirs, buffers = dict(whole.named_parameters()), dict(whole.named_buffers())
    wrong = []
    for name, weight in model.named_parameters():
        with deepspeed.zero.GatheredParameters([weight]):
            if not torch.equal(weight.data, theirs[name].data.to(weight.dtype)):
                wrong.append(name)
    wrong += [name for name, value in model.named_buffers() if not torch.equal(value, buffers[name])]
    ours, tied = (m.get_output_embeddings().weight is m.get_input_embeddings().weight for m in (model, whole))
    return {
        "wrong": wrong,
        "tied": ours == tied,
        "weights": len(theirs) == len(list(model.named_parameters())),
        "dtypes": sorted({str(weight.dtype) for weight in model.parameters()}),
        "kept": sum(weight.ds_tensor.numel() for weight in model.parameters()),
        "of": sum(weight.numel() for weight in theirs.values()),
    }


def memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


@pytest.mark.parametrize("name", ["tiny", "adapter", "experts", "large"])
def test_sharded_weights_are_the_whole_ones(seen: list[dict[str, Any]], name: str) -> None:
    for found in (worker[name] for worker in seen):
        assert found["wrong"] == [] and found["tied"] and found["weights"]
        assert found["dtypes"] == ["torch.bfloat16" if name == "tiny" else "torch.float32"]
        assert found["kept"] <= 0.51 * found["of"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_worker_but_the_first_ever_holds_the_model(seen: list[dict[str, Any]], store: Path) -> None:
    """A share is half of it. The second worker has read no value: its files of the other models hold none."""
    whole = sum(path.stat().st_size for path in (store / "large").glob("*.safetensors"))
    assert whole > 300 * MIB
    assert seen[1]["peak"] < 0.7 * whole
    assert seen[0]["peak"] > whole, "pages of the files themselves, which it reads through a map"


def test_a_weight_under_another_name_is_missing_to_all(seen: list[dict[str, Any]]) -> None:
    for worker in seen:
        assert worker["renamed"].endswith(f"renamed: its files lack {NAME}; import the model again.")


@pytest.mark.parametrize("harm", ["lacking", "unknown", "narrow"])
def test_files_that_do_not_fit_are_refused(tiny_model: Path, tmp_path: Path, harm: str) -> None:
    """Told by their headers, by every worker alike, before anything is shared out."""
    folder = shutil.copytree(tiny_model, tmp_path / "v0001")
    path = folder / "model.safetensors"
    weights = load_file(path)
    value = weights.pop(NAME)
    more = {"unknown": {NAME: value, "model.odd": value + 1}, "narrow": {NAME: value[1:].clone()}}
    save_file(weights | more.get(harm, {}), path, metadata={"format": "pt"})
    odd = "model.odd" if harm == "unknown" else NAME
    with pytest.raises(UserError, match=rf"v0001: its files hold [\d,]+ weights where .* is {odd}; import"):
        engine.load_sharded(folder, TrainConfig(zero_stage=3))
