"""Real DeepSpeed under Ray Train on the tiny model: sharding changes nothing, and failures say why."""

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bb3x_ray.config import LoraConfig, TrainConfig
from bb3x_ray.language.loading import load_model
from bb3x_ray.registry import Registry
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import TRAINING_SCHEMA
from bb3x_ray.storage import Storage
from bb3x_ray.train.effort import StepMeter
from bb3x_ray.train.on_ray import TrainingError, forget, train
from bb3x_ray.train.shapes import read_shape

pytestmark = pytest.mark.ray
FLOAT16 = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="DeepSpeed wants a processor with float16"
    ),
]

# Large enough a rate that every step moves weights by much more than the tolerance below.
CONFIG = TrainConfig(
    lr=1e-3, rows_per_step=4, epochs=4, micro_tokens=64, dtype="float32", cpus_per_worker=0.5, k=2
)
STEPS = 12
# Another order of summation moves float32 gradients in the last digits; Adam divides them by their own
# size, which can make more of it where a gradient is next to zero. Weights move by about lr a step.
TOLERANCE = 0.05 * CONFIG.lr
LOSS_TOLERANCE = 1e-4  # of a step's loss, relative


@pytest.fixture(scope="module")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine rows: steps of three rows, so that two workers never have the same number; two without labels."""
    made = random.Random(0)
    rows = []
    for i in range(9):
        length = made.randint(5, 30)
        label = [made.choice("ia.") if i not in (2, 5) else "." for _ in range(length)]
        rows.append(
            {
                "row_id": f"r{i}",
                "source": "test",
                "person": "p",
                "input_ids": [made.randrange(3, 350) for _ in range(length)],
                "imitate": [mark == "i" for mark in label],
                "avoid": [mark == "a" for mark in label],
            }
        )
    path = tmp_path_factory.mktemp("set") / "training_set.parquet"
    pq.write_table(pa.Table.from_pylist(rows, TRAINING_SCHEMA), path)
    return path


def trained(training_set: Path, parent: Path, folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """The exported weights of one run, which is called "t"."""
    config = CONFIG.model_copy(update=changes)
    train(training_set, parent, folder / "out", config, run_name="t", storage_path=folder / "runs", seed=1)
    return load_file(folder / "out" / "model.safetensors")


@pytest.fixture(scope="module")
def one_worker(
    ray_cluster: None, training_set: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, float], list[dict[str, Any]]]:
    """One worker with ZeRO stage 1: the run that the others are compared with."""
    folder, told = tmp_path_factory.mktemp("one"), []
    metrics = train(
        training_set,
        tiny_model,
        folder / "out",
        CONFIG,
        run_name="one",
        storage_path=folder / "runs",
        seed=1,
        on_step=told.append,
    )
    return folder, metrics, told


def test_one_worker_learns_and_exports(one_worker: Any, training_set: Path, tiny_model: Path) -> None:
    folder, metrics, told = one_worker
    assert [line["step"] for line in told] == list(range(1, STEPS + 1)) and told[0]["steps"] == STEPS
    assert metrics["steps"] == STEPS and metrics["loss_last"] == told[-1]["loss"]
    labels = pq.read_table(training_set).to_pylist()
    imitated, avoided = (
        CONFIG.epochs * sum(sum(row[name][1:]) for row in labels) for name in ("imitate", "avoid")
    )
    assert (metrics["ce_target_tokens"], metrics["ct_target_tokens"]) == (imitated, avoided)
    assert metrics["tokens"] == CONFIG.epochs * sum(len(row["input_ids"]) for row in labels)
    assert metrics["seconds"] > metrics["startup_seconds"] > 0
    meter = StepMeter(
        read_shape(tiny_model / "config.json", "tiny"),
        [[len(row["input_ids"])] for row in labels],
        workers=1,
        adapters=False,
        peak=None,
    )
    flops = 1e12 * sum(line["tflops_per_second"] * line["seconds"] for line in told)
    seen = [*range(len(labels))] * CONFIG.epochs
    assert flops == pytest.approx(meter.flops(seen, imitated, avoided))
    assert metrics["tflops_per_second"] > 0 and "mfu" not in metrics, "a CPU's peak is not known"
    before, after = load_file(tiny_model / "model.safetensors"), load_file(folder / "out/model.safetensors")
    assert before.keys() == after.keys()
    assert {value.dtype for value in after.values()} == {torch.float32}
    assert all(not torch.equal(before[name], after[name]) for name in before)
    model = AutoModelForCausalLM.from_pretrained(folder / "out")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight, "tied head"
    assert len(list(folder.glob("runs/one-*/plan.json"))) == 1


def test_the_same_run_twice_gives_the_same_bits(
    one_worker: Any, training_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    first = load_file(one_worker[0] / "out" / "model.safetensors")
    second = trained(training_set, tiny_model, tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)


def largest(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 2, "zero_stage": 3},
        pytest.param({"workers": 2}, marks=pytest.mark.slow),
        {"zero_stage": 3, "offload": "all", "gradient_checkpointing": True},
        pytest.param({"zero_stage": 0}, marks=pytest.mark.slow),
        pytest.param({"workers": 2, "zero_stage": 0}, marks=pytest.mark.slow),
        pytest.param({"workers": 2, "zero_stage": 2}, marks=pytest.mark.slow),
        pytest.param({"zero_stage": 2, "offload": "optimizer"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_workers_sharding_and_offload_change_nothing(
    one_worker: Any, training_set: Path, tiny_model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    one = load_file(one_worker[0] / "out" / "model.safetensors")
    assert largest(one, trained(training_set, tiny_model, tmp_path, **changes)) < TOLERANCE
    (path,) = tmp_path.glob("runs/t-*/progress.jsonl")
    losses = [json.loads(line)["loss"] for line in path.read_text().splitlines()]
    assert losses == pytest.approx([line["loss"] for line in one_worker[2]], rel=LOSS_TOLERANCE)
    assert len(losses) == STEPS
    assert largest(one, load_file(tiny_model / "model.safetensors")) > 20 * TOLERANCE


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"dtype": "float16"}, marks=FLOAT16),
        {"dtype": "bfloat16"},
        {"dtype": "bfloat16", "zero_stage": 0},
        {"dtype": "bfloat16", "workers": 2, "zero_stage": 3},
        pytest.param({"dtype": "float16", "workers": 2, "zero_stage": 3}, marks=FLOAT16),
    ],
    ids=str,
)
@pytest.mark.slow  # the test below learns in bfloat16 as well
def test_half_precision_learns_about_the_same(
    one_worker: Any, training_set: Path, tiny_model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Adam's first steps go by a gradient's sign: where it is next to zero, half precision may turn it."""
    start = load_file(tiny_model / "model.safetensors")
    one = load_file(one_worker[0] / "out" / "model.safetensors")
    half = trained(training_set, tiny_model, tmp_path, **changes)
    moved, apart = (torch.cat([(x[n].float() - start[n]).flatten() for n in start]) for x in (one, half))
    assert float(torch.cosine_similarity(moved, apart, dim=0)) > 0.9


# At a weight of 0.02 half a bfloat16 step is 6e-5: three of these are lost where weights are rounded.
FINE = {"lr": 5e-6, "weight_decay": 0.0, "epochs": 1}


def changes_of(folder: Path, parent: Path) -> torch.Tensor:
    before, after = load_file(parent / "model.safetensors"), load_file(folder / "out" / "model.safetensors")
    assert {value.dtype for value in after.values()} == {torch.float32}
    assert json.loads((folder / "out" / "config.json").read_text())["dtype"] == "float32"
    return torch.cat([(after[name].double() - before[name].double()).flatten() for name in before])


@pytest.fixture(scope="module")
def fine_changes(
    ray_cluster: None, training_set: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> torch.Tensor:
    """What float32 weights learn in three small steps."""
    folder = tmp_path_factory.mktemp("fine")
    trained(training_set, tiny_model, folder, **FINE)
    return changes_of(folder, tiny_model)


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "bfloat16", "workers": 2, "zero_stage": 3},
        pytest.param({"dtype": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param({"dtype": "bfloat16", "zero_stage": 0}, marks=pytest.mark.slow),
        pytest.param({"dtype": "bfloat16", "zero_stage": 2}, marks=pytest.mark.slow),
        pytest.param({"dtype": "float16", "workers": 2}, marks=FLOAT16),
        pytest.param({"dtype": "float16", "zero_stage": 0}, marks=FLOAT16),
        pytest.param({"dtype": "bfloat16", "zero_stage": 3, "offload": "all"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_half_precision_publishes_what_was_learned_not_what_it_is_rounded_to(
    fine_changes: torch.Tensor, training_set: Path, tiny_model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    trained(training_set, tiny_model, tmp_path, **FINE, **changes)
    half = changes_of(tmp_path, tiny_model)
    assert float(torch.cosine_similarity(fine_changes, half, dim=0)) > 0.9
    assert float(half.norm()) == pytest.approx(float(fine_changes.norm()), rel=0.1)
    moved = fine_changes.abs() > FINE["lr"]
    assert moved.sum() > 1000
    assert float((fine_changes[moved].sign() == half[moved].sign()).double().mean()) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("stage", [3, 0])
def test_adapters_of_half_precision_are_merged_into_the_parent_s_own_weights(
    ray_cluster: None, training_set: Path, tiny_model: Path, tmp_path: Path, stage: int
) -> None:
    """What changed has the adapter's rank, to float32's last digits: nothing was rounded to 16 bits."""
    lora = LoraConfig(r=4, targets=("q_proj",))
    before = load_file(tiny_model / "model.safetensors")
    after = trained(
        training_set, tiny_model, tmp_path, lora=lora, lr=1e-4, dtype="bfloat16", zero_stage=stage
    )
    for name, weight in before.items():
        if "q_proj" not in name:
            assert torch.equal(weight, after[name])
            continue
        sizes = torch.linalg.svdvals(after[name].double() - weight.double())
        assert float(sizes[0]) > 1e-6 and float(sizes[4]) < 0.01 * float(sizes[0])
        rounded = torch.linalg.svdvals(after[name].bfloat16().double() - weight.double())
        assert float(rounded[4]) > 0.01 * float(rounded[0]), "what 16 bits would have lost is seen"


def test_adapters_learn_and_are_merged(
    ray_cluster: None, training_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    lora = LoraConfig(r=4, targets=("q_proj",))
    start = load_file(tiny_model / "model.safetensors")
    weights = trained(training_set, tiny_model, tmp_path, lora=lora, workers=2, zero_stage=3)
    changed = {name for name in start if not torch.equal(start[name], weights[name])}
    assert weights.keys() == start.keys()
    assert changed == {name for name in start if "q_proj" in name}


@torch.no_grad()
def logits_of(folder: Path) -> torch.Tensor:
    return load_model(folder, "float32", "cpu").model(torch.tensor([[5, 6, 7, 8, 9, 10]])).logits


def test_adapters_are_published_alone_round_after_round(
    ray_cluster: None, training_set: Path, tiny_model: Path, storage: Storage
) -> None:
    """Each on the version before, weights sharded: by two workers in float32, then in bfloat16."""
    models = Registry(storage, "models")
    with models.publish(models.reserve(), {}, "") as folder:
        shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    lora = LoraConfig(r=4, publish="adapter")
    config = CONFIG.model_copy(update={"lora": lora, "workers": 2, "zero_stage": 3})
    one = CONFIG.model_copy(update={"lora": lora, "dtype": "bfloat16", "zero_stage": 3})
    logits = [logits_of(models.folder("v0001"))]
    for parent, settings in (("v0001", config), ("v0002", one)):
        version = models.reserve()
        with models.publish(version, {"parent": parent}, "") as folder:
            train(
                training_set,
                models.folder(parent),
                folder,
                settings,
                run_name=version,
                storage_path=storage.path("runs"),
                seed=1,
            )
        assert [path.name for path in models.folder(version).glob("*.safetensors")] == [
            "adapter_model.safetensors"
        ]
        assert models.lineage(version)["base"] == parent
        logits.append(logits_of(models.folder(version)))
    assert all(float((b - a).abs().max()) > 1e-3 for a, b in itertools.pairwise(logits))


def kill_workers_after(step: int, killed: list[int]) -> Callable[[dict[str, Any]], None]:
    """An `on_step` that kills Ray's training workers once, without a word, behind the given step."""

    def on_step(line: dict[str, Any]) -> None:
        if line["step"] >= step and not killed:
            for process in psutil.process_iter(["cmdline"]):
                if "RayTrainWorker" in " ".join(process.info["cmdline"] or []) and is_ours(process):
                    killed.append(process.pid)
                    process.kill()

    return on_step


def is_ours(process: psutil.Process) -> bool:
    """Of the Ray that this test session started: other runs on the machine go on."""
    return any(parent.pid == os.getpid() for parent in process.parents())


def test_a_killed_worker_s_run_ends_with_the_same_weights(
    ray_cluster: None, training_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"epochs": 8, "checkpoint_every": 2, "workers": 2, "zero_stage": 2})
    killed: list[int] = []
    weights, lines = [], []
    for name, on_step in (("undisturbed", None), ("killed", kill_workers_after(3, killed))):
        folder = tmp_path / name
        train(
            training_set,
            tiny_model,
            folder / "out",
            config,
            run_name="t",
            storage_path=folder / "runs",
            seed=1,
            on_step=on_step,
        )
        weights.append(load_file(folder / "out" / "model.safetensors"))
        (told,) = folder.glob("runs/t-*/progress.jsonl")
        lines.append([json.loads(line)["step"] for line in told.read_text().splitlines()])
        assert list(folder.glob("runs/t-*/checkpoints/latest.json")), "nobody said yet that `out` is safe"
        forget("t", folder / "runs")
        assert not list(folder.glob("runs/t-*/checkpoints"))
    assert killed, "the run ended before it was killed: give it more epochs"
    assert lines[0] == list(range(1, 25))
    assert sorted(set(lines[1])) == lines[0]
    assert lines[1].count(1) == 1, "it went on from a checkpoint, not from the beginning"
    assert largest(*weights) == 0


def test_weights_that_are_not_finite_end_in_one_sentence(
    ray_cluster: None, training_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = torch.inf
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"training step 1: the loss is nan.*lower train\.lr") as caught:
        trained(training_set, broken, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_worker_that_fails_ends_in_one_sentence(
    ray_cluster: None, training_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match=r"^training failed in worker 0: .+") as caught:
        trained(training_set, broken, tmp_path, max_failures=0)
    assert "\n" not in str(caught.value)


def test_what_can_be_told_before_ray_starts(training_set: Path, tiny_model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.parquet"
    pq.write_table(TRAINING_SCHEMA.empty_table(), empty)
    with pytest.raises(UserError, match="no token to learn from"):
        trained(empty, tiny_model, tmp_path)
    with pytest.raises(UserError, match=r"no config\.json"):
        trained(training_set, tmp_path, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "something").touch()
    with pytest.raises(UserError, match="is not empty"):
        trained(training_set, tiny_model, tmp_path)
