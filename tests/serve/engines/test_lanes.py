"""What only dynamic batches promise: memory given back at once, and adapters on one base."""

import asyncio
import shutil
import weakref
from pathlib import Path

import pytest

from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.lanes import Lanes
from tests.language.test_weights import adapter_by_peft
from tests.serve.engines.kinds import HELLO, draining, read, until_gone
from tests.serve.room import lanes

BEST = Decoding(40, temperature=0)


def test_an_old_model_is_let_go_although_nobody_talks_any_more(versions: Path) -> None:
    async def talk() -> None:
        engine = lanes(versions / "v0001")
        try:
            first = weakref.ref(engine._lanes["v0001"].chat_model.model)
            await read(engine.submit(HELLO, Decoding(3)))
            engine.load("v0002", versions / "v0002")
            engine.swap("v0002")
            assert await until_gone(first)
            assert engine.versions == ["v0002"]
        finally:
            engine.close()

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
    """Where the weights of a version lie in memory, its adapter aside."""
    model = engine._lanes[version].chat_model.model
    return {
        value.data_ptr() for name, value in model.named_parameters() if not name.endswith((".down", ".up"))
    }


def test_adapters_answer_beside_each_other_on_one_base(adapters: Path) -> None:
    async def talk() -> None:
        expected = {}
        for version in ("v0001", "v0002", "v0003"):
            alone = lanes(adapters / version, version)
            expected[version] = await read(alone.submit(HELLO, BEST))
            alone.close()
        assert len({text for text, _, _ in expected.values()}) == 3
        async with draining("lanes", adapters / "v0001", seconds=5) as engine:
            assert isinstance(engine, Lanes)
            engine.load("v0002", adapters / "v0002")
            engine.keep(["v0001", "v0002"])  # there is memory for two where one is an adapter on the other
            engine.load("v0003", adapters / "v0003")
            streams = [engine.submit(HELLO, BEST, version=v) for v in ("v0001", "v0002", "v0003")]
            for stream, (version, reply) in zip(streams, expected.items(), strict=True):
                assert await read(stream) == reply, version
            assert weights(engine, "v0001") == weights(engine, "v0002") == weights(engine, "v0003")
            engine.swap("v0003")
            engine.keep([])
            while engine.versions != ["v0003"]:
                await asyncio.sleep(0.02)
            assert await read(engine.submit(HELLO, BEST)) == expected["v0003"]

    asyncio.run(talk())
