"""A whole turn over HTTP with a real, tiny model: modules, trace, memories, arms.

It makes nonsense of modules; what counts is that each of them is asked, logged and harmless.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bb3x_ray.config import ModulesConfig
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.local_search import LocalSearch
from bb3x_ray.serve.memory import Memories
from bb3x_ray.serve.modules.bb3 import BB3
from bb3x_ray.serve.reply import Parts
from bb3x_ray.serve.safety_replies import SafetyReplies
from tests.serve.room import KEY, Room, room
from tests.serve.test_safety_replies import WordDetector, break_model

ADA = Signer(KEY).pseudonym("ada")


def thinking(folder: Path, **config: object) -> Parts:
    memories = Memories(folder)
    settings = ModulesConfig.model_validate({"enabled": True, **config})
    return Parts(memories=memories, modules=BB3(settings, memories, LocalSearch()))


def talk(folder: Path, parts: Parts, about: Callable[[Room], object]) -> None:
    async def run() -> None:
        async with room(folder, parts=parts) as r:
            await about(r)  # type: ignore[misc]

    asyncio.run(run())


def test_every_module_is_asked_logged_and_shown_to_who_asks(tiny_model: Path, tmp_path: Path) -> None:
    parts = thinking(tmp_path, search="always", memory="always", entity="always", opener="never")
    assert parts.memories is not None
    parts.memories.add(ADA, "I like green tea.", "person", 1)

    async def about(r: Room) -> None:
        answer = await r.chat("Hello", user="ada", store=True, metadata={"trace": "true"})
        body, reply = answer.json(), r.log.events[-1]
        details = json.loads(reply.details or "")
        assert body["trace"] == details and reply.author_kind == "model"
        asked = {step["module"] for step in details["trace"]}
        assert asked >= {"search_query", "memory_knowledge", "entity_knowledge", "memory_generation"}
        assert details["memories"] == ["person: I like green tea."]
        assert (details["search_decision"], details["memory_decision"]) == ("search", "access memory")
        assert details["model_version"] == "v0001" and details["reply_module"].endswith("_reply")
        assert all(step["ms"] >= 0 for step in details["trace"])
        chunks = await r.stream("Hello", user="ada", store=True, metadata={"trace": "true"})
        assert chunks[-2]["trace"]["trace"] and chunks[-2]["choices"][0]["finish_reason"] in (
            "stop",
            "length",
        )
        assert "trace" not in (await r.chat("Hello", user="ada")).json()

    talk(tiny_model, parts, about)


def test_without_consent_nothing_is_remembered_used_or_logged_in_words(
    tiny_model: Path, tmp_path: Path
) -> None:
    parts = thinking(tmp_path, search="always")
    assert parts.memories is not None
    parts.memories.add(ADA, "I like green tea.", "person", 1)

    async def about(r: Room) -> None:
        await r.chat("A secret zebra", user="ada")
        details = json.loads(r.log.events[-1].details or "")
        assert "memories" not in details and "search_query" not in details and details["trace"]
        assert not any("output" in step for step in details["trace"])
        assert "zebra" not in str(r.log.events)
        await r.chat("I keep a zebra", store=True)  # nobody that could come back
        memories = parts.memories
        assert memories is not None and [m.used for m in memories.of(ADA)] == [0]
        assert memories.of(r.log.events[-1].person) == []

    talk(tiny_model, parts, about)


def test_who_takes_consent_back_or_asks_to_be_erased_is_forgotten_at_once(
    tiny_model: Path, tmp_path: Path
) -> None:
    memories = Memories(tmp_path)

    async def about(r: Room) -> None:
        mine = (await r.chat("Hello", user="ada", store=True)).json()["id"]
        here = r.log.events[-1].conversation_id
        for path, more, left in (
            ("consent", {"store": False}, 1),
            ("consent", {"store": False, "scope": "everything"}, 0),
            ("erasure", {}, 0),
        ):
            for place, text in ((here, "I like green tea."), ("elsewhere", "I keep a zebra.")):
                memories.add(ADA, text, "person", 1 << 62, place)
            body = {"completion_id": mine, "user": "ada", **more}
            assert (await r.client.post(f"/v1/{path}", json=body)).status_code in (200, 202)
            assert len(memories.of(ADA)) == left, path

    talk(tiny_model, Parts(memories=memories), about)


def test_neither_unsafe_words_nor_failures_are_remembered(tiny_model: Path, tmp_path: Path) -> None:
    parts = thinking(tmp_path)
    guarded = replace(parts, safety=SafetyReplies(WordDetector()))

    async def unsafe(r: Room) -> None:
        body = (await r.chat("zounds, I keep a zebra", user="ada", store=True)).json()
        assert body["canned"] == "other"
        assert json.loads(r.log.events[-1].details or "")["trace"] == []

    async def broken(r: Room) -> None:
        break_model(r)
        more = {"user": "ada", "store": True, "metadata": {"apology": "true"}}
        assert (await r.chat("I keep a zebra", **more)).json()["canned"] == "failure"
        assert json.loads(r.log.events[-1].details or "")["from_model_crash"] is True

    talk(tiny_model, guarded, unsafe)
    talk(tiny_model, parts, broken)
    assert list(tmp_path.rglob("*.json")) == []


def test_the_arm_is_written_into_the_log(tiny_model: Path) -> None:
    asked: list[tuple[str, str]] = []

    def arm(person: str, conversation_id: str) -> str | None:
        asked.append((person, conversation_id))
        return "v0009" if len(asked) > 1 else None

    async def about(r: Room) -> None:
        for _ in range(2):  # the second is of a version that has just left memory
            await r.chat("Hello", user="ada")
            details = json.loads(r.log.events[-1].details or "")
            assert details.pop("latency_ms") > 0
            assert details == {"arm": "champion", "failed": False, "model_version": "v0001"}
        event = r.log.events[-1]
        assert asked[-1] == (event.person, event.conversation_id) == (ADA, event.conversation_id)

    talk(tiny_model, Parts(arm=arm), about)
