"""The engine's thread: swaps under load, cancelling, failures, and that nothing depends on the batch."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.serve.engine import Busy, Engine, EngineFailed, Stream
from tests.serve.room import room, tiny

HELLO = [Turn("user", "Hello")]


@asynccontextmanager
async def engine_of(folder: Path, max_batch: int = 8, max_queued: int = 50) -> AsyncIterator[Engine]:
    engine = Engine("v0001", tiny(folder), max_batch=max_batch, max_queued=max_queued, max_context_tokens=256)
    try:
        yield engine
    finally:
        engine.close()


async def read(stream: Stream) -> tuple[str, str, str]:
    """(text, finish reason, version)"""
    text, finish = "", ""
    async for delta in stream:
        text += delta.text
        finish = delta.finish_reason or ""
    return text, finish, stream.version


def test_a_swap_under_load_fails_nothing_and_each_reply_is_of_one_version(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            stop = asyncio.Event()
            seen: list[str] = []

            async def person(name: str) -> None:
                while not stop.is_set():
                    chunks = await r.stream("Hello", user=name, max_tokens=20)
                    versions = {chunk["model_version"] for chunk in chunks[:-1]}
                    assert len(versions) == 1 and chunks[-1] == {}
                    seen.append(versions.pop())

            async def until_seen(version: str) -> None:
                while seen.count(version) < 6 and not any(person.done() for person in people):
                    await asyncio.sleep(0.01)

            people = [asyncio.create_task(person(f"p{i}")) for i in range(6)]
            await until_seen("v0001")
            for version in ("v0002", "v0003"):
                model = await asyncio.to_thread(tiny, tiny_model)
                r.engine.swap(version, model)
                await until_seen(version)
            stop.set()
            await asyncio.gather(*people)
            assert set(seen) == {"v0001", "v0002", "v0003"}
            assert (await r.chat("Hello")).json()["model_version"] == "v0003"
            assert {e.author_name for e in r.log.events if e.author_kind == "model"} == set(seen)

    asyncio.run(talk())


def test_a_reply_under_way_ends_on_the_version_it_began_with(tiny_model: Path) -> None:
    async def talk() -> None:
        async with engine_of(tiny_model) as engine:
            old = engine.submit(HELLO, Decoding(120, temperature=0))
            alone = engine.submit(HELLO, Decoding(120, temperature=0))
            expected = await read(alone)
            again = engine.submit(HELLO, Decoding(120, temperature=0))
            first = await anext(aiter(again))
            model = tiny(tiny_model)
            engine.swap("v0002", model)
            new = await read(engine.submit(HELLO, Decoding(2, temperature=0)))
            assert engine.versions[0] == engine.version == new[2] == "v0002"
            rest = await read(again)
            assert (first.text + rest[0], rest[1], rest[2]) == expected
            assert (await read(old)) == expected and expected[2] == "v0001"

    asyncio.run(talk())


def test_an_old_model_is_let_go_when_its_last_reply_is_done(tiny_model: Path) -> None:
    async def talk() -> None:
        async with engine_of(tiny_model) as engine:
            first = weakref.ref(engine._lanes[0]._chat_model.model)
            await read(engine.submit(HELLO, Decoding(3)))
            engine.swap("v0002", tiny(tiny_model))
            deadline = time.monotonic() + 10
            while first() is not None and time.monotonic() < deadline:
                gc.collect()
                await asyncio.sleep(0.05)
            assert first() is None  # although nobody has talked since
            assert engine.versions == ["v0002"]

    asyncio.run(talk())


def test_a_cancelled_reply_makes_room_for_the_next(tiny_model: Path) -> None:
    async def talk() -> None:
        async with engine_of(tiny_model, max_batch=1, max_queued=2) as engine:
            long = engine.submit(HELLO, Decoding(700, temperature=1.0))
            await anext(aiter(long))
            waiting = engine.submit(HELLO, Decoding(2))
            engine.submit(HELLO, Decoding(2)).cancel()
            long.cancel()
            began = time.monotonic()
            assert (await read(waiting))[2] == "v0001"
            assert time.monotonic() - began < 2 and long.completion_tokens < 600

    asyncio.run(talk())


def test_more_waiting_than_allowed_is_busy(tiny_model: Path) -> None:
    async def talk() -> None:
        async with engine_of(tiny_model, max_batch=1, max_queued=2) as engine:
            streams = [engine.submit(HELLO, Decoding(300))]
            await anext(aiter(streams[0]))
            streams += [engine.submit(HELLO, Decoding(1)) for _ in range(2)]
            with pytest.raises(Busy):
                engine.submit(HELLO, Decoding(1))
            streams[0].cancel()
            await asyncio.gather(*(read(stream) for stream in streams[1:]))

    asyncio.run(talk())


def test_closing_ends_every_reply_with_an_error_and_no_hang(tiny_model: Path) -> None:
    async def talk() -> None:
        async with engine_of(tiny_model, max_batch=1) as engine:
            streams = [engine.submit(HELLO, Decoding(700)) for _ in range(3)]
            await anext(aiter(streams[0]))
            await asyncio.to_thread(engine.close)
            results = await asyncio.gather(*map(read, streams), return_exceptions=True)
            assert all(isinstance(result, EngineFailed) for result in results)
            with pytest.raises(EngineFailed):
                engine.submit(HELLO, Decoding(1))

    asyncio.run(talk())


def test_a_stream_that_nobody_reads_does_not_stop_the_others(tiny_model: Path) -> None:
    async def abandon(engine: Engine) -> None:
        engine.submit(HELLO, Decoding(400, temperature=1.0))

    async def talk(engine: Engine) -> str:
        return (await read(engine.submit(HELLO, Decoding(5))))[1]

    engine = Engine("v0001", tiny(tiny_model), max_batch=4, max_queued=4, max_context_tokens=256)
    try:
        asyncio.run(abandon(engine))  # its event loop is closed while the engine still writes
        assert asyncio.run(talk(engine)) in ("stop", "length")
        assert engine.alive
    finally:
        engine.close()
