"""A whole turn over HTTP with a real, tiny model: modules, trace, memories, arms.

It makes nonsense of modules; what counts is that each of them is asked, logged and harmless.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bb3x_ray.config import ModulesConfig
from bb3x_ray.data.event_rows import check_event
from bb3x_ray.schemas.event import FAILED_TURN, FAILED_TURN_ID
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


def split(r: Room, candidate: Path) -> None:
    """As during a canary: v0002 is in memory beside v0001."""
    r.engine.load("v0002", candidate)
    r.engine.keep(["v0002"])


def told(r: Room) -> dict[str, object]:
    details: dict[str, object] = json.loads(r.log.events[-1].details or "{}")
    return details


def test_the_arm_is_written_into_the_log(tiny_model: Path) -> None:
    asked: list[tuple[str, str]] = []

    def arm(person: str, conversation_id: str) -> str | None:
        asked.append((person, conversation_id))
        return [None, "v0002", "v0009"][len(asked) - 1]

    async def about(r: Room) -> None:
        split(r, tiny_model)
        for expected in ("champion", "v0001"), ("candidate", "v0002"):
            await r.chat("Hello", user="ada")
            details = told(r)
            assert float(str(details.pop("latency_ms"))) > 0
            assert details == {"arm": expected[0], "failed": False, "model_version": expected[1]}
        event = r.log.events[-1]
        assert asked[-1] == (event.person, event.conversation_id) == (ADA, event.conversation_id)
        # Of a version that has just left memory: the champion answers somebody who is not of its arm.
        await r.chat("Hello", user="ada")
        assert r.log.events[-1].author_name == "v0001" and told(r) == {}

    talk(tiny_model, Parts(arm=arm), about)


def test_who_names_a_version_is_in_no_arm(tiny_model: Path) -> None:
    async def about(r: Room) -> None:
        split(r, tiny_model)
        for version in ("v0001", "v0002"):
            await r.chat("Hello", user="ada", model=version)
            assert r.log.events[-1].author_name == version and told(r) == {}

    talk(tiny_model, Parts(arm=lambda *_: "v0002"), about)


def test_what_is_said_in_the_candidates_place_is_booked_on_the_candidate(tiny_model: Path) -> None:
    async def about(r: Room) -> None:
        split(r, tiny_model)
        body = (await r.chat("zounds, you idiot", user="ada")).json()
        assert body["canned"] == "insult" and body["model"] == "v0002"
        assert (told(r)["arm"], told(r)["model_version"]) == ("candidate", "v0002")
        break_model(r, "v0002")
        await r.chat("Hello", user="ada", metadata={"apology": "true"})
        details = told(r)
        assert (details["arm"], details["model_version"], details["failed"]) == ("candidate", "v0002", True)

    talk(tiny_model, Parts(safety=SafetyReplies(WordDetector()), arm=lambda *_: "v0002"), about)


def test_a_turn_that_fails_leaves_its_arm_and_version_and_no_talk(tiny_model: Path) -> None:
    async def about(r: Room) -> None:
        split(r, tiny_model)
        break_model(r, "v0002")
        assert (await r.chat("A secret", user="ada", store=True)).status_code == 500
        (event,) = r.log.events
        assert (event.kind, event.rating, event.text, event.person) == ("feedback", None, None, ADA)
        assert event.event_id == FAILED_TURN_ID + event.message_id
        assert told(r) == {FAILED_TURN: {"arm": "candidate", "model_version": "v0002", "failed": True}}
        check_event(event)  # as the committer does, which rejects what it cannot read
        assert (await r.chat("Hello", user="ada", model="v0001")).status_code == 200
        assert (await r.chat("Hello", user="ada", model="v0002")).status_code == 500
        assert told(r) == {FAILED_TURN: {"model_version": "v0002", "failed": True}}
        metrics = (await r.client.get("/metrics")).text
        assert 'bb3x_reply_failures_total{replica="0",version="v0002"} 2.0' in metrics

    talk(tiny_model, Parts(arm=lambda *_: "v0002"), about)


def test_an_engine_that_has_stopped_fails_turns_as_one_that_stumbles(tiny_model: Path) -> None:
    async def about(r: Room) -> None:
        r.engine.close()
        assert (await r.chat("Hello", user="ada")).status_code == 500
        assert told(r) == {FAILED_TURN: {"arm": "champion", "model_version": "v0001", "failed": True}}
        assert (await r.chat("Hello", metadata={"apology": "true"})).json()["canned"] == "failure"

    talk(tiny_model, Parts(arm=lambda *_: None), about)


def test_modules_calls_are_paid_for_and_usage_is_the_replys_own(tiny_model: Path, tmp_path: Path) -> None:
    parts = thinking(tmp_path, search="always", entity="always")

    async def run() -> None:
        async with room(tiny_model, parts=parts) as r:
            usage = (await r.chat("Hello", seed=1)).json()["usage"]
        assert usage["completion_tokens"] <= 12 < usage["prompt_tokens"]
        allowed = usage["total_tokens"] + 50
        async with room(tiny_model, parts=parts, tokens_per_minute=allowed) as r:
            assert (await r.chat("Hello", seed=1)).status_code == 200
            # The reply alone would leave 50 tokens for the next.
            answer = await r.chat("Hello", seed=1)
            assert answer.status_code == 429 and int(answer.headers["Retry-After"]) > 10

    asyncio.run(run())
