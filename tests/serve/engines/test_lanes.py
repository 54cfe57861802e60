"""What only dynamic batches promise: memory given back, a drain where it is short, adapters on one base."""

import asyncio
import gc
import shutil
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.lanes import Lanes
from bb3x_ray.serve.engines.protocol import EngineFailed
from tests.language.test_weights import adapter_by_peft
from tests.serve.engines.kinds import HELLO, read
from tests.serve.room import lanes

BEST = Decoding(40, temperature=0)


@asynccontextmanager
async def draining(folder: Path, seconds: float) -> AsyncIterator[Lanes]:
    engine = Lanes(
        "v0001",
        folder,
        max_batch=4,
        max_queued=20,
        max_context_tokens=256,
        dtype="float32",
        device="cpu",
        drain_seconds=seconds,
    )
    try:
        yield engine
    finally:
        engine.close()


async def until_gone(thing: weakref.ref[object]) -> bool:
    deadline = time.monotonic() + 20
    while thing() is not None and time.monotonic() < deadline:
        gc.collect()
        await asyncio.sleep(0.05)
    return thing() is None


def model_of(engine: Lanes, version: str) -> weakref.ref[object]:
    return weakref.ref(engine._lanes[version].chat_model.model)


def test_an_old_model_is_let_go_although_nobody_talks_any_more(versions: Path) -> None:
    async def talk() -> None:
        engine = lanes(versions / "v0001")
        try:
            first = model_of(engine, "v0001")
            await read(engine.submit(HELLO, Decoding(3)))
            engine.load("v0002", versions / "v0002")
            engine.swap("v0002")
            assert await until_gone(first)
            assert engine.versions == ["v0002"]
        finally:
            engine.close()

    asyncio.run(talk())


def test_with_memory_for_one_replies_end_first_and_requests_wait(versions: Path) -> None:
    async def talk() -> None:
        async with draining(versions / "v0001", seconds=60) as engine:
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


def test_a_reply_that_outlasts_the_drain_ends_with_an_error(versions: Path) -> None:
    async def talk() -> None:
        async with draining(versions / "v0001", seconds=0.001) as engine:
            long = engine.submit(HELLO, Decoding(700))
            await anext(aiter(long))
            engine.load("v0002", versions / "v0002")
            await asyncio.to_thread(engine.swap, "v0002")
            with pytest.raises(EngineFailed):
                await read(long)
            assert (await read(engine.submit(HELLO, BEST)))[2] == "v0002"

    asyncio.run(talk())


def test_with_memory_for_one_a_refused_version_brings_the_live_one_back(versions: Path) -> None:
    async def talk() -> None:
        async with draining(versions / "v0001", seconds=5) as engine:
            before = await read(engine.submit(HELLO, BEST))
            engine.load("broken", versions / "broken")
            with pytest.raises(UserError, match="holds no weights"):
                await asyncio.to_thread(engine.swap, "broken")
            assert await read(engine.submit(HELLO, BEST)) == before
            assert engine.versions == ["v0001"] and engine.alive
            with pytest.raises(UserError, match=r"serve\.handoff=beside"):
                engine.keep(["v0001", "v0002"])

    asyncio.run(talk())


def test_a_tokenizer_of_another_model_is_refused(versions: Path, tmp_path: Path) -> None:
    engine = lanes(versions / "v0001")
    try:
        foreign = shutil.copytree(versions / "v0002", tmp_path / "foreign")
        tokenizer = foreign / "tokenizer.json"
        added = '"added_tokens": [{"id": 900, "content": "<other>", "single_word": false, "lstrip": false, '
        added += '"rstrip": false, "normalized": false, "special": true},'
        tokenizer.write_text(tokenizer.read_text().replace('"added_tokens": [', added, 1))
        with pytest.raises(UserError, match="another model's"):
            engine.load("v0002", foreign)
        assert engine.versions == ["v0001"]
    finally:
        engine.close()


@pytest.fixture
def adapters(versions: Path, tmp_path: Path) -> Path:
    """v0002 is an adapter on v0001 and v0003 one on v0002."""
    shutil.copytree(versions / "v0001", tmp_path / "v0001")
    adapter_by_peft(tmp_path / "v0001", tmp_path / "v0002", seed=2)
    adapter_by_peft(tmp_path / "v0002", tmp_path / "v0003", seed=3)
    return tmp_path


def weights(engine: Lanes, version: str) -> set[int]:
    """Where the big tensors of a version lie in memory."""
    model = engine._lanes[version].chat_model.model
    return {
        value.data_ptr()
        for name, value in model.named_parameters()
        if "down" not in name and "up" not in name
    }


def test_adapters_answer_beside_each_other_on_one_base(adapters: Path) -> None:
    async def talk() -> None:
        merged = {}
        for version in ("v0001", "v0002", "v0003"):
            alone = lanes(adapters / version, version)
            merged[version] = await read(alone.submit(HELLO, BEST))
            alone.close()
        async with draining(adapters / "v0001", seconds=5) as engine:
            engine.load("v0002", adapters / "v0002")
            engine.keep(["v0001", "v0002"])  # there is memory for two where one is an adapter on the other
            engine.load("v0003", adapters / "v0003")
            streams = [engine.submit(HELLO, BEST, version=v) for v in ("v0001", "v0002", "v0003")]
            for stream, (version, expected) in zip(streams, merged.items(), strict=True):
                assert await read(stream) == expected, version
            assert weights(engine, "v0001") == weights(engine, "v0002") == weights(engine, "v0003")
            engine.swap("v0003")
            engine.keep([])
            while engine.versions != ["v0003"]:
                await asyncio.sleep(0.02)
            assert await read(engine.submit(HELLO, BEST)) == merged["v0003"]

    asyncio.run(talk())
