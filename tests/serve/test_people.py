"""What a person can see, and what they can delete; nobody else can do either."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from bb3x_ray.serve.memory import Memories
from bb3x_ray.serve.reply import Parts
from tests.serve.room import Room, history, room


async def get(r: Room, path: str, user: str | None, proof: str | None, method: str = "GET") -> httpx.Response:
    sent = {"bb3x-user": user, "bb3x-proof": proof}
    return await r.client.request(method, path, headers={k: v for k, v in sent.items() if v is not None})


async def reply(r: Room, *words: str, **more: Any) -> dict[str, Any]:
    answer = await r.chat(*words, **more)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_conversations_are_listed_for_their_person_in_order(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            first = await reply(r, "Hello", user="ada", store=True, metadata={"conversation_id": "tea"})
            said = first["choices"][0]["message"]["content"]
            await reply(r, "Hello", said, "More", user="ada", store=True, metadata={"conversation_id": "tea"})
            quiet = await reply(r, "Quietly", user="ada")
            bobs = await reply(r, "I am Bob", user="bob", store=True)
            for proof in (first["id"], quiet["id"]):
                got = (await get(r, "/v1/conversations", "ada", proof)).json()
                told = {c["id"]: [m["content"] for m in c["messages"]] for c in got["data"]}
                assert len(told) == 2 and [None, None] in told.values()
                tea = next(c for c in got["data"] if c["id"].startswith("tea."))
                assert [m["content"] for m in tea["messages"]][:3] == ["Hello", said, "More"]
                assert [m["role"] for m in tea["messages"]] == ["user", "assistant"] * 2
                assert tea["messages"][1]["model_version"] == "v0001"
                assert tea["messages"][1]["id"] == first["id"]
                assert tea["messages"][0]["model_version"] is None
            for user, proof in (("bob", first["id"]), ("ada", bobs["id"]), ("ada", "x")):
                assert (await get(r, "/v1/conversations", user, proof)).status_code == 404
            for user, proof in (("ada", None), (None, first["id"]), ("", first["id"])):
                assert (await get(r, "/v1/conversations", user, proof)).status_code == 400

    asyncio.run(talk())


def test_who_has_no_name_is_shown_a_completion_and_no_conversation(tiny_model: Path) -> None:
    """Two who open with the same words under the same name are one to the log, and not to each other."""

    async def talk() -> None:
        async with room(tiny_model) as r:
            named = {"metadata": {"conversation_id": "tea"}, "store": True, "temperature": 0}
            one = await reply(r, "Hello", **named)
            said = one["choices"][0]["message"]["content"]
            await reply(r, "Hello", said, "My secret", **named)
            other = await reply(r, "Hello", said, "Nothing", **named)
            assert len({event.person for event in r.log.events}) == 1
            for user in (None, ""):
                for path in ("/v1/conversations", "/v1/memories"):
                    assert (await get(r, path, user, other["id"])).status_code == 400
            fetched = await get(r, f"/v1/chat/completions/{other['id']}", None, None)
            assert fetched.status_code == 200 and "secret" not in fetched.text

    asyncio.run(talk())


def test_a_name_may_hold_any_sign(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            named = await reply(r, "Grüezi", user="Zoë 50% 🙂", store=True)
            sent = "Zo%C3%AB%2050%25%20%F0%9F%99%82"
            assert (await get(r, "/v1/conversations", sent, named["id"])).status_code == 200

    asyncio.run(talk())


def test_a_conversation_is_deleted_by_its_person_alone(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            first = await reply(r, "Hello", user="ada", store=True)
            second = await reply(r, "Bye", user="ada", store=True)
            bobs = await reply(r, "I am Bob", user="bob", store=True)
            listed = (await get(r, "/v1/conversations", "ada", first["id"])).json()["data"]
            place = next(c["id"] for c in listed if c["messages"][0]["content"] == "Hello")
            path = f"/v1/conversations/{place}"
            for user, proof in (("bob", first["id"]), ("bob", bobs["id"]), (None, first["id"])):
                assert (await get(r, path, user, proof, "DELETE")).status_code in (400, 404)
            assert not [e for e in r.log.events if e.kind == "erasure"]
            done = await get(r, path, "ada", second["id"], "DELETE")
            assert (done.status_code, done.json()["deleted"]) == (202, True)
            event = r.log.events[-1]
            assert (event.kind, event.conversation_id, event.reasons) == ("erasure", place, ("conversation",))
            left = (await get(r, "/v1/conversations", "ada", first["id"])).json()["data"]
            assert [c["messages"][0]["content"] for c in left] == ["Bye"]
            assert (await get(r, path, "ada", second["id"], "DELETE")).status_code == 404

    asyncio.run(talk())


def test_a_completion_is_fetched_and_deleted_by_its_person_alone(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            mine = await reply(r, "Hello", user="ada", store=True)
            path = f"/v1/chat/completions/{mine['id']}"
            for user in ("bob", None):
                for method in ("GET", "DELETE"):
                    assert (await get(r, path, user, None, method)).status_code == 404
            got = (await get(r, path, "ada", None)).json()
            assert got["choices"] == mine["choices"] and got["feedback_token"] == mine["feedback_token"]
            gone = await get(r, path, "ada", None, "DELETE")
            assert gone.status_code == 202 and gone.json()["object"] == "chat.completion.deleted"
            assert (await get(r, path, "ada", None)).status_code == 404
            quiet = await reply(r, "Quietly", user="ada")
            assert (await get(r, f"/v1/chat/completions/{quiet['id']}", "ada", None)).status_code == 404

    asyncio.run(talk())


def test_a_reply_that_a_stop_string_cut_is_fetched_as_it_was_answered(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            whole = await reply(r, "Hello", user="ada", store=True, seed=3)
            text = whole["choices"][0]["message"]["content"]
            cut = await reply(r, "Hello", user="ada", store=True, seed=3, stop=text[3:6])
            assert cut["choices"][0]["finish_reason"] == "stop"
            assert r.log.events[-1].finish_reason == "length", "the model did not end it"
            got = (await get(r, f"/v1/chat/completions/{cut['id']}", "ada", None)).json()
            assert got == {**cut, "usage": None, "created": got["created"]}

    asyncio.run(talk())


def test_memories_are_seen_and_deleted_by_their_person_alone(tiny_model: Path, tmp_path: Path) -> None:
    async def talk() -> None:
        memories = Memories(tmp_path)
        async with room(tiny_model, parts=Parts(memories=memories)) as r:
            ada, bob = [await reply(r, "Hello", user=user) for user in ("ada", "bob")]
            person = r.log.events[0].person
            tea = memories.add(person, "I drink tea.", "person", said_at=1)
            teaches = memories.add(person, "I teach music.", "bot", said_at=1)
            assert tea and teaches
            got = (await get(r, "/v1/memories", "ada", ada["id"])).json()["data"]
            about = {"text": "I drink tea.", "about": "person", "created": tea.created // 1_000_000}
            assert got[0] == {"id": tea.id, **about}
            assert (await get(r, "/v1/memories", "bob", bob["id"])).json()["data"] == []
            path = f"/v1/memories/{tea.id}"
            assert (await get(r, path, "bob", bob["id"], "DELETE")).status_code == 404
            assert (await get(r, path, "bob", ada["id"], "DELETE")).status_code == 404
            assert (await get(r, path, "ada", ada["id"], "DELETE")).json()["deleted"]
            assert [memory.id for memory in memories.of(person)] == [teaches.id]
        async with room(tiny_model) as without:
            mine = await reply(without, "Hello", user="ada")
            empty = await get(without, "/v1/memories", "ada", mine["id"])
            assert empty.json() == {"object": "list", "data": []}
            assert (await get(without, path, "ada", mine["id"], "DELETE")).status_code == 404

    asyncio.run(talk())


def test_a_log_that_cannot_be_read_is_told_as_503(tiny_model: Path) -> None:
    def broken(person: str) -> Any:
        raise OSError("no such device: hidden-words")

    async def talk() -> None:
        async with room(tiny_model, around={"events_of": broken}) as r:
            mine = await reply(r, "Hello", user="ada", store=True)
            got = await get(r, "/v1/conversations", "ada", mine["id"])
            assert got.status_code == 503 and "hidden-words" not in got.text
            key = {"Idempotency-Key": "k"}
            body = {"completion_id": mine["id"], "rating": 1, "user": "ada"}
            assert (await r.client.post("/v1/feedback", json=body, headers=key)).status_code == 503
            assert (await r.chat(*[m["content"] for m in history("Hello")], user="ada")).status_code == 200

    asyncio.run(talk())
