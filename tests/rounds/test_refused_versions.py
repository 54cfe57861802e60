"""A version that was altered, or does not fit, is refused in a sentence, and the live one answers on."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.registry import Registry
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.protocol import Engine
from bb3x_ray.storage import Storage
from tests.serve.room import lanes


def publish(models: Registry, source: Path, harm: Callable[[Path], object], **lineage: object) -> None:
    """`harm` comes before the manifest: a folder that was wrong from the beginning."""
    with models.publish(models.reserve(), lineage, "") as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        harm(folder)


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def more_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    about = json.loads(path.read_text())
    about["added_tokens"].append({**about["added_tokens"][-1], "id": 5000, "content": "<|new|>"})
    path.write_text(json.dumps(about))


def other_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    about = json.loads(path.read_text())
    one, other, *_ = about["model"]["vocab"]
    vocabulary = about["model"]["vocab"]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(about))


def index_of_a_shard_that_is_gone(folder: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


AFTER = {
    "altered": (flip_a_byte, "v0002/model.safetensors was altered"),
    "missing": (lambda folder: (folder / "model.safetensors").unlink(), "v0002/model.safetensors is missing"),
    "swapped tokenizer": (other_tokens, "v0002/tokenizer.json was altered"),
}
BEFORE = {
    "missing shard": (index_of_a_shard_that_is_gone, "model-00002-of-00002.safetensors is missing"),
    "too many tokens": (more_tokens, "has 5001 tokens and the model's embedding"),
    "another tokenizer": (other_tokens, "v0002/tokenizer.json is not that of models/v0001"),
}


async def reply(engine: Engine) -> str:
    stream = engine.submit([Turn("user", "hello")], Decoding(4, temperature=0.0))
    async for _ in stream:
        pass
    return stream.version


@pytest.mark.parametrize("kind", [*AFTER, *BEFORE])
def test_it_is_refused_and_the_live_one_stays(storage: Storage, tiny_model: Path, kind: str) -> None:
    models = Registry(storage)
    publish(models, tiny_model, lambda _: None, parent=None)
    harm, words = {**AFTER, **BEFORE}[kind]
    publish(models, tiny_model, harm if kind in BEFORE else lambda _: None, parent="v0001")
    if kind in AFTER:
        harm(storage.path("models", "v0002"))
    engine = lanes(models.folder("v0001"), max_batch=2, max_queued=2, context=64)
    try:
        with pytest.raises(UserError, match=words) as refused:
            # as a replica does: the folder first, verified, then the model beside the live one
            engine.load("v0002", models.folder("v0002"))
            engine.swap("v0002")
        assert "\n" not in str(refused.value) and "models/v0002" in str(refused.value)
        assert asyncio.run(reply(engine)) == "v0001" and engine.versions == ["v0001"]
    finally:
        engine.close()
