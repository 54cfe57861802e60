"""Blind comparisons over a real engine of two versions: what is told and logged, what cannot be forged."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.app import create_app
from bb3x_ray.serve.compare import Compare
from bb3x_ray.serve.comparison_ids import ComparisonIds
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.protocol import ApiError, CompareRequest
from tests.serve.room import KEY, ListLog, Room, history, two_versions
from tests.tiny import make_tiny_model

ADA = Signer(KEY).pseudonym("ada")


@pytest.fixture(scope="module")
def two(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"v0002": make_tiny_model(tmp_path_factory.mktemp("other"), seed=1), "v0001": tiny_model}


@asynccontextmanager
async def duel(folders: dict[str, Path]) -> AsyncIterator[Room]:
    engine, log = two_versions(folders["v0001"], folders["v0002"]), ListLog()
    app = create_app(engine, log.append, KEY, ChatConfig(max_new_tokens=8), ServeConfig(), events_of=log.of)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://room") as client:
            yield Room(engine, log, client)
    finally:
        engine.close()


async def ask(r: Room, *words: str, **more: Any) -> httpx.Response:
    return await r.client.post("/v1/compare", json={"messages": history(*words), **more})


async def choose(r: Room, comparison_id: str, choice: str, user: str | None = "ada") -> httpx.Response:
    return await r.client.post(f"/v1/compare/{comparison_id}", json={"choice": choice, "user": user})


def about(event: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.details)["comparison"]
    return found


def test_both_answer_blindly_and_the_choice_tells_which_was_which(two: dict[str, Path]) -> None:
    async def talk() -> None:
        async with duel(two) as r:
            asked = await ask(r, "Hello there", user="ada", store=True)
            body = asked.json()
            assert asked.status_code == 200
            assert [reply["slot"] for reply in body["replies"]] == ["a", "b"]
            assert set(body["replies"][0]) == {"slot", "content"}  # nothing tells the version
            chosen = await choose(r, body["id"], "a")
            versions = chosen.json()["versions"]
            assert sorted(versions.values()) == ["v0001", "v0002"]
            replies, choice = r.log.events
            told = about(replies)
            assert {side: told[side]["version"] for side in "ab"} == versions
            assert [told[side]["text"] for side in "ab"] == [one["content"] for one in body["replies"]]
            assert told["messages"] == [{"role": "user", "content": "Hello there"}]
            assert about(choice) == {
                "choice": "a",
                **{side: {"version": versions[side]} for side in "ab"},
            }
            assert {e.kind for e in r.log.events} == {"feedback"} and {e.rating for e in r.log.events} == {
                None
            }
            assert {e.person for e in r.log.events} == {ADA}
            assert {e.message_id for e in r.log.events} == {body["id"]}

    asyncio.run(talk())


def test_without_consent_no_words_are_kept(two: dict[str, Path]) -> None:
    async def talk() -> None:
        async with duel(two) as r:
            body = (await ask(r, "my secret", user="ada", metadata={"simulated": "true"})).json()
            await choose(r, body["id"], "neither")
            assert "secret" not in str(r.log.events)
            assert all("text" not in about(r.log.events[0])[side] for side in "ab")
            assert {e.consent_basis for e in r.log.events} == {"none"}
            assert all(e.simulated for e in r.log.events)

    asyncio.run(talk())


def test_the_order_is_shuffled_and_the_id_does_not_tell_it() -> None:
    ids = ComparisonIds(Signer(KEY))
    pairs = [ids.new(("v0002", "v0001"), "ada", stored=False, simulated=False) for _ in range(200)]
    first = sum(pair.a == "v0001" for pair in pairs)
    assert 60 < first < 140
    assert all(".v0001.v0002." in pair.id for pair in pairs)  # sorted, whichever is A
    assert all(ids.read(pair.id, "ada") == pair for pair in pairs)
    other_key = ComparisonIds(Signer(b"another key of 32 bytes, or about"))
    assert other_key.read(pairs[0].id, "ada") is None


def test_only_who_was_asked_can_choose_and_only_the_first_choice_stands(two: dict[str, Path]) -> None:
    async def talk() -> None:
        async with duel(two) as r:
            body = (await ask(r, "Hello", user="ada")).json()
            forged = body["id"][:-1] + ("0" if body["id"][-1] != "0" else "1")
            stored = body["id"].replace(".n.", ".s.")
            for comparison_id, user in (
                (body["id"], "bob"),
                (body["id"], None),
                (forged, "ada"),
                (stored, "ada"),
            ):
                answer = await choose(r, comparison_id, "a", user)
                assert answer.status_code == 404
                assert answer.json()["error"]["code"] == "comparison_not_found"
            assert len(r.log.events) == 1
            first, second = [(await choose(r, body["id"], choice)).json() for choice in ("a", "b")]
            assert first["versions"] == second["versions"]
            # one event id: the log keeps what came first
            assert (
                len({e.event_id for e in r.log.events[1:]}) == 1 and about(r.log.events[1])["choice"] == "a"
            )
            anonymous = (await ask(r, "Hello")).json()
            assert (await choose(r, anonymous["id"], "both", None)).status_code == 200

    asyncio.run(talk())


def test_with_one_version_in_memory_there_is_nothing_to_compare(two: dict[str, Path]) -> None:
    async def talk() -> None:
        async with duel(two) as r:
            pending = (await ask(r, "Hello", user="ada")).json()
            r.engine.keep([])
            while len(r.engine.versions) > 1:
                await asyncio.sleep(0.01)
            answer = await ask(r, "Hello", user="ada")
            assert answer.status_code == 409
            assert answer.json()["error"]["code"] == "one_version"
            assert (await choose(r, pending["id"], "b")).status_code == 200  # its replies were shown

    asyncio.run(talk())


def test_what_cannot_be_compared_is_refused_and_nothing_is_logged(two: dict[str, Path]) -> None:
    async def talk() -> None:
        async with duel(two) as r:
            for messages in (
                [],
                history("Hello", "Hi"),
                [{"role": "user", "content": " "}],
                [{"role": "user", "content": "x" * 4001}],
                [{"role": "user", "content": "\ud800"}],
            ):
                answer = await r.client.post("/v1/compare", content=json.dumps({"messages": messages}))
                assert answer.status_code == 400, answer.text
            body = (await ask(r, "Hello", user="ada")).json()
            answer = await choose(r, body["id"], "c")
            assert answer.status_code == 400 and answer.json()["error"]["param"] == "choice"
            assert len(r.log.events) == 1
            r.log.broken = True
            assert (await ask(r, "Hello", user="ada")).status_code == 503
            assert (await choose(r, body["id"], "a")).status_code == 503

    asyncio.run(talk())


class _Wary:
    """Finds one word unsafe."""

    def check_message(self, text: str) -> str | None:
        return "other" if "poison" in text else None

    def check_reply(self, heard: Any, reply: str) -> str | None:
        return "other" if heard[0] == "answer badly" else None


def test_what_is_unsafe_is_neither_asked_nor_shown(two: dict[str, Path]) -> None:
    async def talk() -> None:
        engine, kept = two_versions(two["v0001"], two["v0002"]), []

        async def append(events: Any) -> None:
            kept.extend(events)

        chat, serve = ChatConfig(max_new_tokens=4), ServeConfig()
        compare = Compare(engine, append, Signer(KEY), chat, serve, _Wary())
        try:
            for words in ("poison", "answer badly"):
                with pytest.raises(ApiError) as refused:
                    await compare.ask(CompareRequest(messages=history(words)))  # type: ignore[arg-type]
                assert refused.value.status == 409 and not kept
            await compare.ask(CompareRequest(messages=history("Hello")))  # type: ignore[arg-type]
            assert len(kept) == 1
        finally:
            engine.close()

    asyncio.run(talk())


def test_who_only_compares_sees_and_deletes_what_they_said(two: dict[str, Path]) -> None:
    async def talk() -> None:
        async with duel(two) as r:
            asked = (await ask(r, "my words", user="ada", store=True)).json()
            quiet = (await ask(r, "Quietly", user="ada")).json()
            who = {"bb3x-user": "ada", "bb3x-proof": asked["id"]}
            assert (await r.client.get("/v1/memories", headers=who)).status_code == 200
            for user, proof in (("bob", asked["id"]), ("ada", f"{asked['id'][:-1]}x")):
                theirs = {"bb3x-user": user, "bb3x-proof": proof}
                assert (await r.client.get("/v1/conversations", headers=theirs)).status_code == 404

            async def listed() -> dict[str, Any]:
                held = (await r.client.get("/v1/conversations", headers=who)).json()["data"]
                return {one["id"]: one for one in held}

            first = (await listed())[asked["conversation_id"]]
            assert (first["object"], first["choice"]) == ("comparison", None)
            assert [m["content"] for m in first["messages"]] == [
                "my words",
                *(reply["content"] for reply in asked["replies"]),
            ]
            assert "v000" not in str(first["messages"]).replace(asked["id"], ""), "the choice is to be blind"
            versions = (await choose(r, asked["id"], "b")).json()["versions"]
            first = (await listed())[asked["conversation_id"]]
            assert first["choice"] == "b"
            assert [m["model_version"] for m in first["messages"][1:]] == [versions["a"], versions["b"]]
            assert [m["content"] for m in (await listed())[quiet["conversation_id"]]["messages"]] == [
                None
            ] * 2
            one = f"/v1/conversations/{asked['conversation_id']}"
            assert (await r.client.delete(one, headers=who)).status_code == 202
            assert list(await listed()) == [quiet["conversation_id"]]
            body = {"user": "ada", "completion_id": quiet["id"]}
            no = {**body, "store": False}
            assert (await r.client.post("/v1/consent", json=no)).status_code == 200
            assert (await r.client.post("/v1/erasure", json={**body, "user": "bob"})).status_code == 404
            assert (await r.client.post("/v1/erasure", json=body)).status_code == 202
            assert await listed() == {}
            assert (await r.client.get(f"/v1/chat/completions/{quiet['id']}", headers=who)).status_code == 404

    asyncio.run(talk())
