"""float16 in every ZeRO stage learns what float32 does, and publishes it.

Real DeepSpeed in one gloo worker without Ray. DeepSpeed refuses float16 where the processor is slow at it,
which torch does not: the test lifts that.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from bb3x_ray.config import TrainConfig
from bb3x_ray.train import export
from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.batches import micro_batches
from bb3x_ray.train.objectives import Objective
from bb3x_ray.train.on_ray import engine as deep
from bb3x_ray.train.step import ConversationLoss, train_step
from tests.train.test_step import talk

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = 4


@pytest.fixture(scope="module")
def seen(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("float16")
    multiprocessing.spawn(worker, args=(tiny_model, out), nprocs=1)
    found: dict[str, Any] = json.loads((out / "seen.json").read_text())
    return found


def worker(rank: int, parent: Path, out: Path) -> None:
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    CPU_Accelerator.is_fp16_supported = lambda self: True
    CPU_Accelerator.supported_dtypes = lambda self: [torch.float32, torch.bfloat16, torch.float16]
    dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=0, world_size=1)
    norms, full = learned(parent, TrainConfig(dtype="float32", zero_stage=1))
    seen: dict[str, Any] = {"norms": norms}
    for stage in range(4):
        norms, half = learned(parent, TrainConfig(dtype="float16", zero_stage=stage))
        cosine = float(torch.cosine_similarity(full, half, dim=0))
        seen[str(stage)] = {"norms": norms, "cosine": cosine, "size": float(half.norm() / full.norm())}
    (out / "seen.json").write_text(json.dumps(seen))


def learned(parent: Path, config: TrainConfig) -> tuple[list[float], torch.Tensor]:
    """(the gradient's norm in each step, how far the published weights went); steps below float16's own."""
    config = config.model_copy(update={"lr": 5e-6, "weight_decay": 0.0})
    model = deep.load_sharded(parent, config) if config.zero_stage == 3 else export.load_parent(parent)
    packing = choose_packing(model, torch.device("cpu"), half=False)
    engine = deep.make_engine(ConversationLoss(model, Objective(), packing), config)
    deep.begin_exactly(engine, parent, config)
    engine.train()
    steps = [train_step(engine, micro_batches(talk(6), 2, 80, 0), step) for step in range(STEPS)]
    state = export.whole_state(model, deep.gather(engine), keep=True, learned=deep.learned(engine))
    begun = dict(export.load_parent(parent).named_parameters())
    went = torch.cat([(state[name].double() - begun[name].detach().double()).flatten() for name in begun])
    return [line["grad_norm"] for line in steps], went


@pytest.mark.parametrize("stage", "0123")
def test_float16_learns_what_float32_does(seen: dict[str, Any], stage: str) -> None:
    """Where the loss is not scaled but the gradient is unscaled, Adam's steps are smaller."""
    found = seen[stage]
    assert found["norms"] == pytest.approx(seen["norms"], rel=0.01)
    assert found["cosine"] > 0.99 and found["size"] == pytest.approx(1, rel=0.02)
