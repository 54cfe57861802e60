"""Thumbs: with a token or as a user, sent twice, revised and taken back."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from bb3x_ray.schemas.event import Event
from bb3x_ray.serve.completion_ids import Signer
from tests.serve.room import KEY, Room, room


async def rate(r: Room, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await r.client.post("/v1/feedback", json=body, headers=headers)


def thumbs(r: Room) -> list[Event]:
    return [event for event in r.log.events if event.kind == "feedback"]


def test_a_token_rates_its_own_completion_and_no_other(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            one = (await r.chat("Hello", user="ada", store=True)).json()
            stream = await r.stream("Hello", user="ada", stream_options={"include_usage": True})
            bobs = (await r.chat("Hello", user="bob")).json()
            nobodys = (await r.chat("Hello")).json()
            last, usage = stream[-3], stream[-2]
            assert last["feedback_token"] == usage["feedback_token"] and "feedback_token" not in stream[0]
            tokens = [body["feedback_token"] for body in (one, last, bobs, nobodys)]
            ids = [body["id"] for body in (one, last, bobs, nobodys)]
            for token, own in zip(tokens, ids, strict=True):
                for completion_id in ids:
                    got = await rate(r, completion_id=completion_id, rating=1, token=token)
                    assert got.status_code == (200 if completion_id == own else 404)
            people = [event.person for event in thumbs(r)]
            ada, bob = Signer(KEY).pseudonym("ada"), Signer(KEY).pseudonym("bob")
            assert people[:3] == [ada, ada, bob] and people[3].startswith("anon-")
            assert not any(ada.removeprefix("u-") in token for token in tokens)
            for forged in ("", "fb-u-" + "0" * 20 + "-" + "0" * 24, tokens[0][:-1] + "g", tokens[0] + "0"):
                assert (await rate(r, completion_id=ids[0], rating=1, token=forged)).status_code == 404

    asyncio.run(talk())


def test_the_same_key_and_body_is_one_feedback_also_after_a_restart(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            mine = (await r.chat("Hello", user="ada", store=True)).json()
            said = {"completion_id": mine["id"], "rating": -1, "reasons": ["rude"], "source": "page-1.0"}
            first = await rate(r, "k1", **said, user="ada")
            assert first.status_code == 200 and first.json()["source"] == "page-1.0"
            again = [
                await rate(r, "k1", **said, user="ada"),
                await rate(r, "k1", **said, token=mine["feedback_token"]),
            ]
            assert [answer.json() for answer in again] == [first.json()] * 2 and len(thumbs(r)) == 1
            log = r.log
            assert json.loads(thumbs(r)[0].details or "")["client"] == "page-1.0"
        async with room(tiny_model, around={"events_of": log.of}) as after:
            assert (await rate(after, "k1", **said, user="ada")).json() == first.json()
            assert thumbs(after) == []
            other = await rate(after, "k1", **{**said, "rating": 1}, user="ada")
            assert other.status_code == 409
            assert other.json()["error"]["code"] == "idempotency_key_reused"
            assert (await rate(after, "k2", **said, user="ada")).json()["id"] != first.json()["id"]
            assert (await rate(after, **said, user="ada")).json()["id"] != first.json()["id"]

    asyncio.run(talk())


def test_two_at_once_with_one_key_are_one(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            mine = (await r.chat("Hello", user="ada")).json()["id"]
            bobs = (await r.chat("Hello", user="bob")).json()["id"]
            ask = [rate(r, "k", completion_id=mine, rating=1, user="ada") for _ in range(5)]
            ask += [rate(r, "k", completion_id=mine, rating=-1, user="ada") for _ in range(5)]
            ask += [rate(r, "k", completion_id=bobs, rating=-1, user="bob")]
            answers = await asyncio.gather(*ask)
            assert [a.status_code for a in answers] == [200] * 5 + [409] * 5 + [200]
            assert len(thumbs(r)) == 2 and len({event.event_id for event in thumbs(r)}) == 2

    asyncio.run(talk())


def test_a_key_whose_feedback_was_not_saved_is_free(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            mine = (await r.chat("Hello", user="ada")).json()["id"]
            r.log.broken = True
            assert (await rate(r, "k", completion_id=mine, rating=1, user="ada")).status_code == 503
            r.log.broken = False
            assert (await rate(r, "k", completion_id=mine, rating=-1, user="ada")).status_code == 200

    asyncio.run(talk())


def test_a_thumb_is_revised_and_taken_back(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            mine = (await r.chat("Hello", user="ada", store=True)).json()["id"]
            for rating, reasons in ((-1, ["rude", "rude"]), (1, []), (None, [])):
                got = await rate(r, completion_id=mine, rating=rating, reasons=reasons, user="ada")
                assert (got.json()["rating"], got.json()["reasons"]) == (rating, reasons[:1])
            assert [event.rating for event in thumbs(r)] == [-1, 1, None]
            assert [event.at for event in thumbs(r)] == sorted(event.at for event in thumbs(r))
            for source in ("a name", "x" * 33, "a\n", "<b>"):
                got = await rate(r, completion_id=mine, rating=1, user="ada", source=source)
                assert got.status_code == 400 and got.json()["error"]["param"] == "source"

    asyncio.run(talk())


@pytest.mark.parametrize("scope", ["conversation", "everything"])
def test_words_are_not_kept_once_consent_was_taken_back(tiny_model: Path, scope: str) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            mine = (await r.chat("Hello", user="ada", store=True)).json()
            other = (await r.chat("Bye", user="ada", store=True)).json()
            said = {"rating": -1, "comment": "my words", "correction": "my words", "user": "ada"}

            async def consent(store: bool) -> None:
                body = {"user": "ada", "completion_id": mine["id"], "store": store, "scope": scope}
                assert (await r.client.post("/v1/consent", json=body)).status_code == 200

            await consent(store=False)
            await rate(r, completion_id=mine["id"], **said)
            await rate(r, completion_id=other["id"], **said)
            await consent(store=True)
            await rate(r, completion_id=mine["id"], **said)
            kept = [(event.consent_basis, event.comment, event.correction) for event in thumbs(r)]
            words, none = ("store", "my words", "my words"), ("none", "", "")
            assert kept == [none, words if scope == "conversation" else none, words]
            assert [event.rating for event in thumbs(r)] == [-1, -1, -1]

    asyncio.run(talk())
