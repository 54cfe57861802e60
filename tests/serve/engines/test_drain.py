"""A hand-over where memory holds one version: replies end, requests wait, what is refused changes nothing."""

import asyncio
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest

from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.continuous import Continuous
from bb3x_ray.serve.engines.lanes import Lanes
from bb3x_ray.serve.engines.protocol import EngineFailed
from tests.serve.engines.kinds import HELLO, draining, read, until_gone

BEST = Decoding(40, temperature=0)


@pytest.fixture(params=["lanes", "continuous"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model_of(engine: Lanes | Continuous, version: str) -> weakref.ref[object]:
    held: Any = engine._lanes if isinstance(engine, Lanes) else engine._models
    return weakref.ref(held[version].chat_model.model)


def test_with_memory_for_one_replies_end_first_and_requests_wait(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with draining(kind, versions / "v0001", seconds=60) as engine:
            expected = await read(engine.submit(HELLO, BEST))
            first = model_of(engine, "v0001")
            old = engine.submit(HELLO, BEST)
            await anext(aiter(old))
            engine.load("v0002", versions / "v0002")
            assert engine.versions == ["v0001"]  # it takes the live one's place, which happens at the swap
            change = asyncio.create_task(asyncio.to_thread(engine.swap, "v0002"))
            while not engine._paused:
                await asyncio.sleep(0)
            waited = engine.submit(HELLO, BEST)
            assert (await read(waited))[2] == "v0002"
            await change
            text = "".join([delta.text async for delta in old])
            assert expected[0].endswith(text) and old.version == "v0001"
            assert engine.versions == ["v0002"] and await until_gone(first)

    asyncio.run(talk())


def test_a_reply_that_outlasts_the_drain_ends_with_an_error(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with draining(kind, versions / "v0001", seconds=0.001) as engine:
            long = engine.submit(HELLO, Decoding(700))
            await anext(aiter(long))
            engine.load("v0002", versions / "v0002")
            await asyncio.to_thread(engine.swap, "v0002")
            with pytest.raises(EngineFailed):
                await read(long)
            assert (await read(engine.submit(HELLO, BEST)))[2] == "v0002"

    asyncio.run(talk())


def test_with_memory_for_one_a_refused_version_brings_the_live_one_back(
    kind: str, versions: Path, tmp_path: Path
) -> None:
    cut_off = shutil.copytree(versions / "v0002", tmp_path / "v0002")
    weights = (cut_off / "model.safetensors").read_bytes()
    (cut_off / "model.safetensors").write_bytes(weights[: len(weights) // 2])

    async def talk() -> None:
        async with draining(kind, versions / "v0001", seconds=5) as engine:
            before = await read(engine.submit(HELLO, BEST))
            with pytest.raises(UserError, match="holds no weights"):
                engine.load("broken", versions / "broken")
            engine.load("v0002", cut_off)
            with pytest.raises(UserError, match="cut off or damaged"):
                await asyncio.to_thread(engine.swap, "v0002")
            assert await read(engine.submit(HELLO, BEST)) == before
            assert engine.versions == ["v0001"] and engine.alive
            with pytest.raises(UserError, match=r"serve\.handoff=beside"):
                engine.keep(["v0001", "v0002"])

    asyncio.run(talk())
