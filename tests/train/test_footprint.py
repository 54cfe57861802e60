"""The arithmetic of `bb3x plan` against what torch really keeps, and against itself."""

import contextlib
import sys
from dataclasses import replace
from subprocess import run
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from bb3x_ray.config import TrainConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train import footprint, linear_cringe
from bb3x_ray.train.attention import use_packing
from bb3x_ray.train.effort import RoundSize, StepMeter, effort, token_flops
from bb3x_ray.train.footprint import (
    GIB,
    Precision,
    TrainSetup,
    gpu_memory,
    node_memory,
    saved_bytes,
    setup_of,
)
from bb3x_ray.train.gpus import GPUS, find_gpu, gpu_of_device
from bb3x_ray.train.plan import Machines, overrides, plan_setup
from bb3x_ray.train.shapes import shape_from, shape_of

TOKENS = 256
TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
    "vocab_size": 500,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
SETUP = TrainSetup(
    workers=1,
    workers_per_node=1,
    zero_stage=0,
    precision="float32",
    micro_tokens=TOKENS,
    longest_row=TOKENS,
    gradient_checkpointing=False,
    rows_per_step=8,
    epochs=1,
    checks_whole=False,
)
SIZE = RoundSize(rows=800, row_tokens=200, answers=200, judged=400, reply_tokens=40)
H100 = Machines(find_gpu("H100"), per_node=8, node_gib=2048)


def kept_by_torch(tiny: dict[str, Any], setup: TrainSetup) -> int:
    """Bytes that autograd keeps of one forward pass without the head; no weights."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**tiny, use_cache=False, pad_token_id=0)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()
    if setup.precision == "bfloat16":
        model.to(torch.bfloat16)
    if setup.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(0, tiny["vocab_size"], (1, TOKENS))
    packed: dict[str, Any] = {}
    if not setup.flash:
        use_packing(model, "segments")
        packed = {"segments": ((0, 100), (100, TOKENS))}
    products = (
        torch.autocast("cpu", torch.bfloat16) if setup.precision == "mixed" else contextlib.nullcontext()
    )
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), products:
        model.base_model(input_ids=ids, **packed)
    return sum(storage.nbytes() for storage in kept.values())


def predicted(tiny: dict[str, Any], setup: TrainSetup) -> float:
    """The same by arithmetic: with checkpointing, before the layer that is computed again."""
    shape = shape_from(tiny, "tiny", "here")
    whole = saved_bytes(shape, setup) + footprint.weight_casts(shape, setup)
    if setup.gradient_checkpointing:
        again = saved_bytes(shape, replace(setup, gradient_checkpointing=False))
        without = saved_bytes(
            replace(shape, layers=shape.layers - 1), replace(setup, gradient_checkpointing=False)
        )
        whole -= again - without
    return whole


@pytest.mark.parametrize("flash", [False, True], ids=["segments", "one kernel"])
@pytest.mark.parametrize("precision", ["float32", "mixed", "bfloat16"])
def test_activations_are_what_autograd_keeps(precision: Precision, flash: bool) -> None:
    setup = replace(SETUP, precision=precision, flash=flash)
    assert predicted(TINY, setup) == pytest.approx(kept_by_torch(TINY, setup), rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_checkpointing_keeps_the_inputs_of_layers(precision: Precision) -> None:
    setup = replace(SETUP, precision=precision, gradient_checkpointing=True)
    # Rotary tables are held by a closure then, where they cannot be counted.
    assert predicted(TINY, setup) == pytest.approx(kept_by_torch(TINY, setup), rel=0.1)
    assert predicted(TINY, setup) < 0.3 * predicted(TINY, replace(setup, gradient_checkpointing=False))


@pytest.mark.parametrize(
    "other",
    [
        {"model_type": "qwen3", "head_dim": 32},
        {"model_type": "qwen2"},
        {"model_type": "gemma3_text", "head_dim": 32, "hidden_activation": "gelu"},
        {"model_type": "gpt_neox"},
    ],
    ids=lambda other: other["model_type"],
)
def test_other_families_are_near(other: dict[str, Any]) -> None:
    tiny = TINY | other
    assert predicted(tiny, SETUP) == pytest.approx(kept_by_torch(tiny, SETUP), rel=0.25)


def test_weights_gradients_and_adam_are_what_torch_holds() -> None:
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**TINY))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.randint(0, 500, (1, 8))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    memory = gpu_memory(shape_from(TINY, "tiny", "here"), SETUP)
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in model.parameters())
    moments = [v for state in optimizer.state.values() for v in state.values() if v.ndim]
    assert memory.optimizer == sum(v.nbytes for v in moments)


def test_the_loss_works_in_the_chunks_that_are_planned() -> None:
    assert footprint.CHUNK_LOGITS == linear_cringe.CHUNK_LOGITS


def test_planning_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys, bb3x_ray.rounds.planning\n"
        "sys.exit([m for m in ('torch', 'ray', 'transformers', 'deepspeed') if m in sys.modules] or 0)"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# sharding


def test_each_stage_shards_one_thing_more() -> None:
    shape = shape_of("Qwen/Qwen3-4B-Instruct-2507")
    count = shape.parameters
    of_stage = [
        gpu_memory(shape, replace(SETUP, zero_stage=stage, workers=8, precision="bfloat16"))
        for stage in range(4)
    ]
    assert [m.optimizer for m in of_stage] == [12 * count, *[12 * count / 8] * 3]
    assert [m.gradients for m in of_stage] == [2 * count, 2 * count, 2 * count / 8, 2 * count / 8]
    assert [m.weights for m in of_stage] == [2 * count, 2 * count, 2 * count, 2 * count / 8]


def test_what_is_offloaded_leaves_the_gpu_for_the_node() -> None:
    shape = shape_of("Qwen/Qwen3-4B-Instruct-2507")
    setup = replace(SETUP, zero_stage=3, workers=8, workers_per_node=8, precision="bfloat16")
    none, optimizer, everything = (
        replace(setup, offload=offload) for offload in ("none", "optimizer", "all")
    )
    assert gpu_memory(shape, none).optimizer > 0 == gpu_memory(shape, optimizer).optimizer
    assert gpu_memory(shape, optimizer).weights > 0 == gpu_memory(shape, everything).weights
    assert node_memory(shape, none).offload == 0
    assert node_memory(shape, optimizer).offload == 18 * shape.parameters
    assert node_memory(shape, everything).offload == 20 * shape.parameters


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_first_worker_exports_in_float32_on_its_node_and_compares_on_its_gpu(stage: int) -> None:
    shape = shape_of("Qwen/Qwen3-4B-Instruct-2507")
    setup = replace(SETUP, zero_stage=stage, precision="bfloat16", checks_whole=True)
    assert node_memory(shape, setup).export == 4 * shape.parameters
    assert gpu_memory(shape, setup).export == 2 * shape.parameters


def test_adapters_have_gradients_and_the_rest_has_none() -> None:
    shape = shape_of("Qwen/Qwen3-4B-Instruct-2507")
    setup = replace(SETUP, lora_rank=16, precision="bfloat16")
    memory = gpu_memory(shape, setup)
    assert memory.weights == 2 * shape.parameters
    assert memory.gradients == 2 * shape.adapter_parameters(16)
    assert memory.optimizer == 12 * shape.adapter_parameters(16) < 0.1 * memory.weights
    assert memory.logits < gpu_memory(shape, replace(setup, lora_rank=0)).logits - 4 * shape.embedding


def test_the_setup_is_that_of_the_config() -> None:
    config = TrainConfig(workers=16, zero_stage=3, micro_tokens=2048, gradient_checkpointing=True)
    setup = setup_of(config, find_gpu("A100"), longest_row=1024, per_node=8)
    assert (setup.workers, setup.workers_per_node, setup.zero_stage) == (16, 8, 3)
    assert setup.precision == "mixed" and setup.packed_tokens == 2048 and setup.gradient_checkpointing
    assert setup_of(config, find_gpu("T4"), 4096, 8).precision == "float32"  # which has no bfloat16
    assert setup_of(config, find_gpu("T4"), 4096, 8).packed_tokens == 4096  # a row is never cut


# FLOPs and time


def test_flops_are_six_a_parameter_and_eight_with_recomputation() -> None:
    shape = shape_of("Qwen/Qwen2.5-32B-Instruct")
    plain = token_flops(shape, SETUP, row_tokens=200)
    assert (plain.forward + plain.backward) / shape.matrices == pytest.approx(6, rel=0.01)
    again = token_flops(shape, replace(SETUP, gradient_checkpointing=True), row_tokens=200)
    assert (again.total - again.head) / shape.matrices == pytest.approx(8, rel=0.01)
    # Logits of every labelled token; both gradients of them for those to imitate.
    assert plain.head == pytest.approx(0.5 * (0.8 * 6 + 0.2 * 2) * shape.embedding)


METER = StepMeter(shape_from(TINY, "tiny", "here"), ((40,), (8, 24), (16,)), 2, adapters=False, peak=1e9)


def test_the_flops_of_a_step_are_those_of_its_conversations() -> None:
    """By hand, for 2 layers with hidden 128, keys of 2 · 16, MLP of 384, vocabulary of 500."""
    matrices = 2 * (128 * (2 * 128 + 2 * 32) + 3 * 128 * 384)
    pairs = 40**2 + 8**2 + 24**2
    forward = 2 * matrices * (40 + 8 + 24) + 2 * 2 * 128 * pairs
    head = 2 * 500 * 128
    assert METER.flops((0, 1), imitate=30, avoid=5) == 3 * forward + head * (3 * 30 + 5)
    adapters = replace(METER, adapters=True)
    assert adapters.flops((0, 1), imitate=30, avoid=5) == 2 * forward + head * (2 * 30 + 5)


def test_forward_flops_are_those_that_torch_counts() -> None:
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**TINY), attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model.base_model(input_ids=torch.randint(0, 500, (1, 40)), use_cache=False)
    unseen = 2 * 2 * 128 * 40**2  # eager attention multiplies with what comes later, too
    # Rotary angles are a product of their own.
    assert METER.flops((0,), 0, 0) / 3 == pytest.approx(counter.get_total_flops() - unseen, rel=0.001)


@pytest.mark.parametrize("rank", [0, 4])
def test_the_flops_of_a_step_are_those_planned(rank: int) -> None:
    setup = replace(SETUP, lora_rank=rank, labelled_share=0.5, avoid_share=0.25)
    meter = StepMeter(METER.shape, [(40,)] * 8, 1, adapters=rank > 0, peak=None)
    planned = token_flops(METER.shape, setup, row_tokens=40).total * 8 * 40
    assert meter.flops(range(8), imitate=8 * 15, avoid=8 * 5) == pytest.approx(planned)


def test_rates_are_of_one_worker_and_mfu_needs_a_peak() -> None:
    metrics = {"seconds": 2.0, "ce_target_tokens": 30.0, "ct_target_tokens": 5.0}
    flops = METER.flops((0, 1), 30, 5)
    found = METER.read((0, 1), metrics)
    assert found["tflops_per_second"] == pytest.approx(flops / 2 / 2 / 1e12)
    assert found["mfu"] == pytest.approx(flops / 2 / 2 / 1e9)
    assert replace(METER, peak=None).read((0, 1), metrics).keys() == {"tflops_per_second"}
    assert METER.read((2,), {"seconds": 2.0}) == {"tflops_per_second": 0.0, "mfu": 0.0}


def test_a_token_meets_only_its_experts() -> None:
    shape = shape_of("Qwen/Qwen3-235B-A22B-Instruct-2507")
    assert token_flops(shape, SETUP, 200).forward == pytest.approx(2 * 21.5e9, rel=0.05)


def test_time_falls_with_gpus_and_rises_with_iterations() -> None:
    shape, gpu = shape_of("Qwen/Qwen3-4B-Instruct-2507"), find_gpu("H100")
    setup = replace(SETUP, precision="bfloat16", zero_stage=1, rows_per_step=80)
    one = effort(shape, setup, gpu, 1, SIZE, mfu=0.4)
    assert 1 < one.training / (one.total_flops / (0.4 * 989e12)) < 1.5  # Adam takes the rest
    eight = effort(shape, replace(setup, workers=8, workers_per_node=8), gpu, 8, SIZE, mfu=0.4)
    assert eight.training < one.training / 4
    more = effort(shape, replace(setup, iterations=3), gpu, 1, SIZE, mfu=0.4)
    assert more.tokens == 3 * one.tokens and more.answering > one.answering == 0


def test_gathering_weights_between_nodes_may_decide() -> None:
    shape = shape_of("Qwen/Qwen2.5-32B-Instruct")
    setup = replace(SETUP, zero_stage=3, workers=16, workers_per_node=8, precision="bfloat16")
    setup, size = replace(setup, rows_per_step=16000), replace(SIZE, rows=16000)
    short = effort(shape, setup, find_gpu("H100"), 16, size, mfu=0.4)
    long = effort(shape, replace(setup, micro_tokens=65536), find_gpu("H100"), 16, size, mfu=0.4)
    assert short.waits_for_network and not long.waits_for_network


# what does not fit, and what would make it fit


def plan_of(source: str, **train: Any) -> Any:
    """As training is planned where the export is compared without a second model on the GPU."""
    config = TrainConfig(**{"dtype": "bfloat16", "gpus_per_worker": 1, **train})
    setup = replace(setup_of(config, H100.gpu, longest_row=1024, per_node=8), checks_whole=False)
    return plan_setup(shape_of(source), setup, H100, SIZE)


def test_what_fits_has_no_cure() -> None:
    plan = plan_of("HuggingFaceTB/SmolLM2-1.7B-Instruct")
    assert plan.fits and plan.cure is None


def test_the_cheapest_cure_comes_first() -> None:
    # Too many activations: recomputing them is enough, and nothing else is touched.
    plan = plan_of("HuggingFaceTB/SmolLM2-1.7B-Instruct", micro_tokens=32768)
    assert "activations" in plan.problems[0]
    assert plan.cure.startswith("It fits with train.gradient_checkpointing=true: ")
    # Too much on each of sixteen: they share the weights as well.
    plan = plan_of("Qwen/Qwen2.5-32B-Instruct", workers=16, zero_stage=1, gradient_checkpointing=True)
    assert plan.cure.startswith("It fits with train.zero_stage=3: ")
    # Four are too few for that: the optimizer goes to the node.
    plan = plan_of("Qwen/Qwen2.5-32B-Instruct", workers=4, zero_stage=3, gradient_checkpointing=True)
    assert plan.cure.startswith("It fits with train.offload=optimizer: ")
    # A node without memory for it: more of them share the weights.
    cure = plan_setup(plan.shape, plan.setup, replace(H100, node_gib=600), SIZE).cure
    assert cure is not None and cure.startswith("It fits with train.workers=8: ")
    # One machine without a GPU, and no memory for a model's optimizer: adapters.
    alone = Machines(replace(find_gpu("T4"), name="CPU", memory_gib=24), per_node=1, node_gib=24)
    cure = plan_setup(shape_of("HuggingFaceTB/SmolLM2-1.7B-Instruct"), SETUP, alone, SIZE).cure
    assert cure is not None and cure.startswith("It fits with train.lora.r=16: ")


def test_more_gpus_come_before_adapters() -> None:
    shape = shape_of("Qwen/Qwen3-4B-Instruct-2507")
    setup = replace(SETUP, zero_stage=3, precision="bfloat16", gradient_checkpointing=True)
    small = Machines(find_gpu("L40S"), per_node=8, node_gib=130)
    cure = plan_setup(shape, setup, small, SIZE).cure
    assert cure is not None and cure.startswith("It fits with train.offload=optimizer: ")
    cure = plan_setup(shape, setup, replace(small, node_gib=64), SIZE).cure
    assert cure is not None and cure.startswith("It fits with train.workers=2: ")


def test_the_cure_really_fits() -> None:
    setup = replace(SETUP, workers=16, workers_per_node=8, precision="bfloat16")
    plan = plan_setup(shape_of("Qwen/Qwen2.5-32B-Instruct"), setup, H100, SIZE)
    assert plan.cure is not None and "train.zero_stage=3: " in plan.cure
    assert plan_setup(plan.shape, replace(setup, zero_stage=3), H100, SIZE).fits


def test_overrides_name_what_changed() -> None:
    changed = replace(SETUP, zero_stage=3, precision="bfloat16", gradient_checkpointing=True, lora_rank=16)
    assert overrides(SETUP, changed) == [
        "train.gradient_checkpointing=true",
        "train.zero_stage=3",
        "train.dtype=bfloat16",
        "train.lora.r=16",
    ]


def test_a_model_that_no_gpu_holds_whole_starts_only_sharded_and_cannot_answer() -> None:
    settings = {"workers": 64, "zero_stage": 3, "gradient_checkpointing": True}
    plan = plan_of("Qwen/Qwen3-235B-A22B-Instruct-2507", **settings)
    assert "load a version whole onto one GPU" in plan.problems[0] and len(plan.problems) == 1
    whole = plan_setup(plan.shape, replace(plan.setup, zero_stage=2), H100, SIZE)
    assert "every worker first reads the whole model" in " ".join(whole.problems)
    checked = plan_setup(plan.shape, replace(plan.setup, checks_whole=True), H100, SIZE)
    assert "to compare the export" in checked.problems[0] and checked.cure.startswith("Nothing")


def test_in_stage_3_a_worker_reads_its_share_and_the_first_one_a_matrix_at_a_time() -> None:
    shape = shape_of("Qwen/Qwen2.5-32B-Instruct")
    setup = replace(SETUP, zero_stage=3, workers=16, workers_per_node=8, precision="bfloat16")
    assert gpu_memory(shape, setup).start == 2 * (shape.parameters / 16 + shape.embedding)
    assert node_memory(shape, setup).start == 4 * shape.embedding
    before = replace(setup, zero_stage=2)
    assert gpu_memory(shape, before).start == 2 * shape.parameters
    assert node_memory(shape, before).start == 8 * 4 * shape.parameters


def test_the_server_beside_takes_its_part() -> None:
    shape = shape_of("HuggingFaceTB/SmolLM2-1.7B-Instruct")
    crowded = replace(H100, beside=60 * GIB)
    plan = plan_setup(shape, replace(SETUP, precision="bfloat16"), crowded, SIZE)
    assert "most of it for beside" in plan.problems[0]


def test_the_names_that_cuda_gives_are_known() -> None:
    names = {
        "NVIDIA H200": "H200",
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA A100-SXM4-80GB": "A100",
        "NVIDIA A100-PCIE-40GB": "A100",
        "NVIDIA L40S": "L40S",
        "NVIDIA A10G": "A10G",
        "NVIDIA GeForce RTX 4090": "RTX4090",
        "Tesla T4": "T4",
    }
    for called, name in names.items():
        gpu = gpu_of_device(called)
        assert gpu is not None and gpu.name == name
    for other in ("NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA L40", "Quadro RTX 8000"):
        assert gpu_of_device(other) is None


def test_gpus_are_found_however_they_are_written() -> None:
    assert find_gpu("h100").name == find_gpu("H100-80GB").name == find_gpu("nvidia h100").name == "H100"
    assert find_gpu("A100 80GB").memory_gib == 79.1 and find_gpu("a100-40gb").memory_gib == 39.4
    assert all(find_gpu(gpu.name) is gpu for gpu in GPUS)
    with pytest.raises(UserError, match="known are H200, H100"):
        find_gpu("H1000")
