"""What only the library's continuous batching can meet: one version's generation dies, the others go on."""

import asyncio
from pathlib import Path

import pytest

from bb3x_ray.language.generation import Decoding
from bb3x_ray.serve.engines.continuous import Continuous
from bb3x_ray.serve.engines.protocol import EngineFailed, UnknownVersion
from tests.serve.engines.kinds import HELLO, kill, open_continuous, read

BEST = Decoding(12, temperature=0)


def test_a_version_that_dies_beside_the_live_one_is_unknown_and_can_be_loaded_again(versions: Path) -> None:
    async def talk() -> None:
        with open_continuous(versions) as subject:
            engine = subject.engine
            assert isinstance(engine, Continuous)
            subject.load("v0002")
            engine.keep(["v0002"])
            expected = await read(engine.submit(HELLO, BEST, version="v0002"))
            under_way = engine.submit(HELLO, Decoding(600), version="v0002")
            await anext(aiter(under_way))
            kill(engine, "v0002")
            with pytest.raises(UnknownVersion):  # from the first request on
                engine.submit(HELLO, BEST, version="v0002")
            with pytest.raises(EngineFailed):
                await read(under_way)
            assert engine.alive and (await read(engine.submit(HELLO, BEST)))[2] == "v0001"
            while "v0002" in engine.versions:
                await asyncio.sleep(0.02)
            with pytest.raises(UnknownVersion):
                engine.swap("v0002")
            subject.load("v0002")
            assert await read(engine.submit(HELLO, BEST, version="v0002")) == expected

    asyncio.run(asyncio.wait_for(talk(), 60))


def test_a_version_that_dies_while_nobody_talks_to_it_leaves_memory(versions: Path) -> None:
    async def talk() -> None:
        with open_continuous(versions) as subject:
            engine = subject.engine
            assert isinstance(engine, Continuous)
            subject.load("v0002")
            engine.keep(["v0002"])
            kill(engine, "v0002")
            while "v0002" in engine.versions:
                await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(talk(), 60))


def test_a_load_takes_the_place_of_a_version_that_has_just_died(versions: Path) -> None:
    async def talk() -> None:
        with open_continuous(versions) as subject:
            engine = subject.engine
            assert isinstance(engine, Continuous)
            subject.load("v0002")
            kill(engine, "v0002")
            subject.move_to("v0002")
            assert (await read(engine.submit(HELLO, BEST)))[2] == engine.version == "v0002"

    asyncio.run(asyncio.wait_for(talk(), 60))


def test_an_engine_whose_live_version_dies_is_dead(versions: Path) -> None:
    async def talk() -> None:
        with open_continuous(versions) as subject:
            assert isinstance(subject.engine, Continuous)
            subject.load("v0002")
            kill(subject.engine, "v0001")
            assert not subject.engine.alive
            with pytest.raises(EngineFailed):
                subject.engine.submit(HELLO, BEST)

    asyncio.run(asyncio.wait_for(talk(), 60))
