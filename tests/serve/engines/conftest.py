"""Versions of the tiny model, and the engines that are installed here."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from tests.language.test_weights import adapter_by_peft
from tests.serve.engines.kinds import KINDS
from tests.tiny import make_tiny_model


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def versions(request: pytest.FixtureRequest, made: Callable[[bool], Path]) -> Path:
    """v0001 to v0003 answer differently; `broken` has no weights.

    vLLM holds one set of weights and wants wide heads: there the later ones are adapters on a wider v0001.
    """
    return made("kind" in request.fixturenames and request.getfixturevalue("kind") == "vllm")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    @cache
    def make(adapters: bool) -> Path:
        root = tmp_path_factory.mktemp("versions")
        make_talkative(make_tiny_model(root / "v0001", seed=1, hidden=256 if adapters else 48))
        for seed, version in ((2, "v0002"), (3, "v0003")):
            if adapters:
                adapter_by_peft(root / "v0001", root / version, seed=seed)
            else:
                make_talkative(make_tiny_model(root / version, seed=seed))
        shutil.copytree(root / "v0001", root / "broken")
        (root / "broken" / "model.safetensors").unlink()
        return root

    return make


def make_talkative(folder: Path) -> None:
    """Large random weights, so that versions differ and repeat no token; and it never stops by itself."""
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if "norm" not in name and "embed" not in name:
            value *= 10
    end = AutoConfig.from_pretrained(folder).eos_token_id
    weights["model.embed_tokens.weight"][end] = 0  # its logit is 0, and that of many others above
    weights["model.norm.weight"] *= 20
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
