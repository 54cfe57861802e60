"""Which engine a config opens, and what is said where it cannot be had."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from bb3x_ray.config import ChatConfig, ModelConfig, ServeConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.choose import engine_kind, open_engine


def opened(folder: Path, **serve: object) -> str:
    config = ServeConfig(max_batch=2, max_reply_tokens=16, **serve)  # type: ignore[arg-type]
    engine = open_engine("v0001", folder, config, ChatConfig(), ModelConfig(dtype="float32"))
    engine.close()
    return type(engine).__name__


def test_auto_is_dynamic_batches_on_a_cpu_and_continuous_batching_on_a_gpu(versions: Path) -> None:
    expected = "continuous" if torch.cuda.is_available() else "lanes"
    assert engine_kind(ServeConfig()) == expected
    assert opened(versions / "v0001", engine="lanes", handoff="drain") == "Lanes"
    assert opened(versions / "v0001", engine="continuous") == "Continuous"


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_cure_is_named(versions: Path) -> None:
    with pytest.raises(UserError, match=r"pip install 'bb3x-ray\[vllm\]'"):
        opened(versions / "v0001", engine="vllm")


def test_somebodys_server_needs_its_address(versions: Path) -> None:
    with pytest.raises(ValidationError, match="engine=openai needs engine_url"):
        ServeConfig(engine="openai")
    with pytest.raises(UserError, match="no list of models"):
        opened(versions / "v0001", engine="openai", engine_url="http://127.0.0.1:9/v1")
