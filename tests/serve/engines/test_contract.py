"""What every engine does alike: one suite for all of them, with real models and no engine replaced."""

import asyncio
from pathlib import Path

import pytest

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.protocol import Busy, Engine, EngineFailed, PromptRefused, Stream, UnknownVersion
from tests.serve.engines.kinds import HELLO, OPENERS, Subject, opened, read

LONG = 600  # tokens that nobody waits for


def best(tokens: int) -> Decoding:
    return Decoding(tokens, temperature=0)


async def begun(stream: Stream) -> None:
    """Wait until its first words are written."""
    await anext(aiter(stream))


def test_a_reply_comes_in_order_and_says_what_it_is(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            stream = subject.engine.submit(HELLO, best(30))
            deltas = [delta async for delta in stream]
            assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
            assert deltas[-1].finish_reason in ("stop", "length") and not deltas[-1].cut
            assert (stream.version, stream.completion_tokens) == ("v0001", 30)
            assert stream.prompt_tokens > 5
            again = await read(subject.engine.submit(HELLO, best(30)))
            assert again[0] == "".join(delta.text for delta in deltas)

    asyncio.run(talk())


@pytest.mark.parametrize("coldest", [{"temperature": 1e-40}, {"top_p": 1e-40}], ids=str)
def test_the_coldest_settings_are_the_best_reply_and_harm_nobody(
    kind: str, versions: Path, coldest: dict[str, float]
) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            expected = await read(subject.engine.submit(HELLO, best(12)))
            others = [subject.engine.submit(HELLO, best(12)) for _ in range(2)]
            cold = await read(subject.engine.submit(HELLO, Decoding(12, **coldest)))
            assert cold == expected
            assert [await read(other) for other in others] == [expected] * 2
            assert subject.engine.alive
            assert await read(subject.engine.submit(HELLO, best(12))) == expected

    asyncio.run(talk())


def test_company_does_not_change_a_reply(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            alone = await read(subject.engine.submit(HELLO, best(12)))
            others = [
                subject.engine.submit([Turn("user", "What do you do? " * n)], Decoding(9 + n, seed=n))
                for n in range(1, 6)
            ]
            among = await read(subject.engine.submit(HELLO, best(12)))
            assert among == alone
            ends = [(await read(other))[1] for other in others]
            assert set(ends) <= {"stop", "length"}

    asyncio.run(talk())


def test_a_seed_gives_its_reply_again_where_the_engine_promises_it(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            seeds = [7, 7, 8, 9]
            streams = [subject.engine.submit(HELLO, Decoding(16, temperature=1.0, seed=s)) for s in seeds]
            texts = [(await read(stream))[0] for stream in streams]
            assert len(set(texts)) > 1
            if subject.engine.seeded:
                assert texts[0] == texts[1] and len(set(texts)) == 3

    asyncio.run(talk())


def test_a_stop_string_cuts_the_reply_before_it(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            whole, _, _ = await read(subject.engine.submit(HELLO, best(40)))
            stop = whole[8:12]
            stream = subject.engine.submit(HELLO, best(40), stops=[stop, "never said"])
            deltas = [delta async for delta in stream]
            assert "".join(delta.text for delta in deltas) == whole[: whole.index(stop)]
            assert deltas[-1].finish_reason == "stop" and deltas[-1].cut

    asyncio.run(talk())


def test_a_cancelled_reply_makes_room_for_the_next(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions, max_batch=1, max_queued=2) as subject:
            long = subject.engine.submit(HELLO, Decoding(LONG, temperature=1.0))
            await begun(long)
            waiting = subject.engine.submit(HELLO, best(2))
            subject.engine.submit(HELLO, best(2)).cancel()
            long.cancel()
            assert (await read(waiting))[2] == "v0001"
            assert long.completion_tokens < LONG
            long.cancel()  # once more does nothing
            assert (await read(subject.engine.submit(HELLO, best(2))))[1] == "length"

    asyncio.run(talk())


def test_more_waiting_than_allowed_is_busy(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions, max_batch=1, max_queued=2) as subject:
            streams = [subject.engine.submit(HELLO, Decoding(LONG))]
            await begun(streams[0])
            streams += [subject.engine.submit(HELLO, best(1)) for _ in range(2)]
            with pytest.raises(Busy):
                subject.engine.submit(HELLO, best(1))
            streams[0].cancel()
            await asyncio.gather(*(read(stream) for stream in streams[1:]))
            assert (await read(subject.engine.submit(HELLO, best(1))))[1] == "length"

    asyncio.run(talk())


def test_one_request_that_cannot_be_answered_leaves_the_others(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            fine = subject.engine.submit(HELLO, best(30))
            refused = subject.engine.submit([Turn("system", "Be kind. " * 900), *HELLO], best(5))
            with pytest.raises(PromptRefused):
                await read(refused)
            assert (await read(fine))[1] == "length"
            assert subject.engine.alive

    asyncio.run(talk())


def test_a_swap_under_load_fails_nothing_and_each_reply_is_of_one_version(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions, max_batch=4) as subject:
            expected = {}
            for version in ("v0001", "v0002", "v0003"):
                subject.load(version)
                stream = subject.engine.submit(HELLO, best(20), version=version)
                expected[version] = (await read(stream))[0]
            assert len(set(expected.values())) == 3
            stop, seen = asyncio.Event(), list[str]()

            async def person() -> None:
                while not stop.is_set():
                    text, finish, version = await read(subject.engine.submit(HELLO, best(20)))
                    assert (text, finish) == (expected[version], "length")
                    seen.append(version)

            async def until_seen(version: str) -> None:
                while seen.count(version) < 6 and not any(someone.done() for someone in people):
                    await asyncio.sleep(0.01)

            people = [asyncio.create_task(person()) for _ in range(6)]
            await until_seen("v0001")
            for version in ("v0002", "v0003"):
                await asyncio.to_thread(subject.move_to, version)
                await until_seen(version)
            stop.set()
            await asyncio.gather(*people)
            assert set(seen) == set(expected)

    asyncio.run(talk())


def test_a_reply_under_way_ends_on_the_version_it_began_with(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            expected = await read(subject.engine.submit(HELLO, best(150)))
            old = subject.engine.submit(HELLO, best(150))
            deltas = aiter(old)
            first = await anext(deltas)
            await asyncio.to_thread(subject.move_to, "v0002")
            new = await read(subject.engine.submit(HELLO, best(2)))
            assert subject.engine.version == new[2] == "v0002"
            rest = [delta async for delta in deltas]
            text = first.text + "".join(delta.text for delta in rest)
            assert (text, rest[-1].finish_reason, old.version) == expected
            assert expected[2] == "v0001"

    asyncio.run(talk())


async def gone(engine: Engine, version: str) -> None:
    while version in engine.versions:
        await asyncio.sleep(0.02)


def test_an_old_version_leaves_when_its_last_reply_is_done_unless_it_is_kept(
    kind: str, versions: Path
) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            engine = subject.engine
            subject.load("v0002")
            engine.keep(["v0001", "v0002"])
            engine.swap("v0002")
            by_name = await read(engine.submit(HELLO, best(3), version="v0001"))
            assert by_name[2] == "v0001" and set(engine.versions) == {"v0001", "v0002"}
            engine.swap("v0001")
            assert (await read(engine.submit(HELLO, best(3))))[2] == "v0001"
            engine.keep(["v0001"])
            await asyncio.wait_for(gone(engine, "v0002"), 20)
            assert engine.versions == ["v0001"]

    asyncio.run(talk())


def test_a_version_that_is_not_in_memory_is_unknown(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            with pytest.raises(UnknownVersion):
                subject.engine.submit(HELLO, best(3), version="v0002")
            with pytest.raises(UnknownVersion):
                subject.engine.swap("v0002")
            assert subject.engine.version == "v0001" and subject.engine.versions == ["v0001"]

    asyncio.run(talk())


def test_a_version_that_is_refused_leaves_the_live_one(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions) as subject:
            under_way = subject.engine.submit(HELLO, best(60))
            with pytest.raises(UserError) as refusal:
                await asyncio.to_thread(subject.engine.load, "broken", versions / "broken")
            assert "broken" in str(refusal.value) and str(refusal.value).endswith(".")
            assert (await read(under_way))[1:] == ("length", "v0001")
            assert (await read(subject.engine.submit(HELLO, best(3))))[2] == "v0001"
            assert subject.engine.versions == ["v0001"]

    asyncio.run(talk())


def test_closing_ends_every_reply_with_an_error_and_no_hang(kind: str, versions: Path) -> None:
    async def talk() -> None:
        async with opened(kind, versions, max_batch=1) as subject:
            streams = [subject.engine.submit(HELLO, Decoding(LONG))]
            await begun(streams[0])  # before the others, which could come first over a network and be done
            streams += [subject.engine.submit(HELLO, Decoding(LONG)) for _ in range(2)]
            await asyncio.to_thread(subject.engine.close)
            results = await asyncio.gather(*map(read, streams), return_exceptions=True)
            assert all(isinstance(result, EngineFailed) for result in results)
            with pytest.raises(EngineFailed):
                subject.engine.submit(HELLO, best(1))
            subject.engine.close()  # once more does nothing

    asyncio.run(talk())


def test_a_stream_that_nobody_reads_does_not_stop_the_others(kind: str, versions: Path) -> None:
    async def abandon(subject: Subject) -> None:
        await begun(subject.engine.submit(HELLO, Decoding(LONG, temperature=1.0)))

    async def talk(subject: Subject) -> str:
        return (await read(subject.engine.submit(HELLO, best(5))))[1]

    with OPENERS[kind](versions, max_batch=4) as subject:
        asyncio.run(abandon(subject))  # its event loop is closed while the engine still writes
        assert asyncio.run(talk(subject)) == "length"
        assert subject.engine.alive
