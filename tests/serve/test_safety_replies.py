"""Unsafe on either side: a canned reply that is flagged, that teaches nothing and is not remembered."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.pairs import Pair
from bb3x_ray.data.safety_messages import load_safety_messages
from bb3x_ray.schemas.conversation import Author
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.reply import Parts
from bb3x_ray.serve.safety_replies import (
    FAILURE,
    KINDS,
    OTHER,
    SERIOUS,
    CannedReplies,
    KindWords,
    SafetyReplies,
)
from tests.serve.room import Room, room

TOPICS = json.loads((Path(__file__).parents[2] / "bb3x_ray/serve/safety/replies.json").read_text())["topics"]


class WordDetector:
    """Unsafe is what holds the word; replies are told from messages by their context."""

    threshold, reply_threshold = 0.5, 0.7

    def __init__(self, of_message: str = "zounds", of_reply: str = "") -> None:
        self._of_message, self._of_reply = of_message, of_reply
        self.heard: list[str] = []

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        self.heard += [pair.context for pair in pairs]
        return np.array([self._one(pair) for pair in pairs])

    def _one(self, pair: Pair) -> float:
        if not pair.context:
            return 0.6 if self._of_message in pair.reply else 0.1
        # .6 is above the messages' threshold only
        return 0.6 if self._of_reply == "" else 0.9


def with_safety(detector: WordDetector) -> Parts:
    return Parts(safety=SafetyReplies(detector))


async def canned(r: Room, text: str, **more: object) -> dict[str, object]:
    answer = await r.chat(text, user="ada", store=True, **more)
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


def test_an_unsafe_message_gets_a_canned_reply_that_is_flagged(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model, parts=with_safety(WordDetector())) as r:
            body = await canned(r, "zounds, you idiot")
            assert body["canned"] == "insult" and body["failed"] is False
            (choice,) = body["choices"]  # type: ignore[misc]
            assert choice["finish_reason"] == "content_filter"
            assert any(choice["message"]["content"].endswith(topic) for topic in TOPICS)
            question, reply = r.log.events
            assert question.author_kind == "person" and question.details is None
            assert (reply.author_kind, reply.author_name) == ("canned", "safety")
            assert reply.finish_reason is None and reply.text == choice["message"]["content"]
            details = json.loads(reply.details or "")
            assert details["is_safety_controlled_response"] is True
            assert details["previous_interaction_failure"] == "unsafe_Human"
            assert (details["safety_kind"], details["model_version"]) == ("insult", "v0001")
            assert not Author("canned", "safety").can_be_trained_on
            assert body["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

    asyncio.run(talk())


def test_an_unsafe_reply_is_never_shown(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as plain:
            own = (await plain.chat("Hello", seed=3)).json()["choices"][0]["message"]["content"]
        detector = WordDetector(of_reply="any")
        async with room(tiny_model, parts=with_safety(detector)) as r:
            chunks = await r.stream("Hello", seed=3, user="ada", store=True)
            text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1])
            assert text == r.log.events[-1].text and r.log.events[-1].author_kind == "canned"
            assert own not in text
            assert chunks[-2]["choices"][0]["finish_reason"] == "content_filter"
            assert chunks[-2]["canned"] == OTHER and chunks[-1] == {}
            details = json.loads(r.log.events[-1].details or "")
            assert details["previous_interaction_failure"] == "unsafe_BlenderBot3"
            assert "Hello" in detector.heard, "a reply is judged in its context"

    asyncio.run(talk())


def test_where_both_are_safe_the_reply_is_the_models_own(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as plain:
            own = (await plain.chat("Hello", seed=3)).json()["choices"][0]
        async with room(tiny_model, parts=with_safety(WordDetector())) as r:
            body = (await r.chat("Hello", seed=3)).json()
            assert body["choices"][0] == own and "canned" not in body
            chunks = await r.stream("Hello", seed=3)
            text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1])
            assert text == own["message"]["content"]
            assert {e.author_kind for e in r.log.events if e.position == 1} == {"model"}

    asyncio.run(talk())


def test_without_consent_no_word_of_a_canned_turn_is_logged(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model, parts=with_safety(WordDetector())) as r:
            await r.chat("zounds my secret", user="ada")
            assert all(event.text is None for event in r.log.events)
            assert (
                "secret" not in str(r.log.events) and json.loads(r.log.events[1].details or "")["safety_kind"]
            )

    asyncio.run(talk())


def test_one_can_disagree_that_the_topic_was_sensitive(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model, parts=with_safety(WordDetector())) as r:
            body = await canned(r, "zounds!")
            answer = await r.feedback(str(body["id"]), None, user="ada", sensitive=False)
            assert answer.status_code == 200
            event = r.log.events[-1]
            assert (event.kind, event.rating) == ("feedback", None)
            assert json.loads(event.details or "")["sensitive"] is False
            assert (await r.feedback(str(body["id"]), None, user="ada", sensitive="x")).status_code == 400

    asyncio.run(talk())


def break_model(r: Room, version: str = "v0001") -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    r.engine._lanes[version].chat_model.model.forward = fail  # type: ignore[method-assign]


def test_a_failure_is_an_error_for_programs_and_an_apology_for_who_asks_for_one(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            break_model(r)
            plain = await r.chat("Hello", user="ada", store=True)
            assert plain.status_code == 500 and plain.json()["error"]["code"] == "model_failed"
            assert [event.kind for event in r.log.events] == ["feedback"]  # nobody said anything
            body = await canned(r, "Hello", metadata={"apology": "true"})
            assert (body["canned"], body["failed"]) == (FAILURE, True)
            reply = r.log.events[-1]
            assert (reply.author_kind, reply.author_name) == ("canned", FAILURE)
            details = json.loads(reply.details or "")
            assert details["from_model_crash"] is True
            assert details["previous_interaction_failure"] == "unsafe_model_crash"
            chunks = await r.stream("Hello", user="ada", metadata={"apology": "true"})
            assert chunks[-1] == {} and chunks[-2]["failed"] is True

    asyncio.run(talk())


def test_what_is_serious_needs_no_classifier_and_gets_no_change_of_topic() -> None:
    calm = SafetyReplies(WordDetector())
    assert calm.check_message("Some days I just want to die.") == "self_harm"
    assert calm.check_message("I’m suicidal") == "self_harm"
    assert calm.check_message("I think he is having a stroke") == "medical"
    for harmless in (
        "she is nice",
        "This traffic is killing me!",
        "I could murder a curry",
        "My doctor is nice",
    ):
        assert calm.check_message(harmless) is None
    replies = CannedReplies()
    for kind in (*KINDS, OTHER, FAILURE):
        chosen = {replies.choose(kind, f"key {n}") for n in range(40)}
        assert len(chosen) >= 3
        changes = {any(text.endswith(topic) for topic in TOPICS) for text in chosen}
        assert changes == {kind not in SERIOUS}


def test_the_same_canned_reply_is_not_given_twice_in_a_row() -> None:
    replies = CannedReplies()
    first = replies.choose("insult", "key")
    assert first == replies.choose("insult", "key") != replies.choose("insult", "key", [first])


def test_a_detector_that_gives_no_number_finds_everything_unsafe() -> None:
    class Broken(WordDetector):
        def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
            return np.full(len(pairs), np.nan)

    assert SafetyReplies(Broken()).check_message("hello") == OTHER


def test_kinds_are_told_by_words_on_our_own_messages() -> None:
    """Only the choice of a canned reply hangs on it: better than one reply for all."""
    words = KindWords()
    ours = {
        "theft": "illegal",
        "hacking": "illegal",
        "drugs": "illegal",
        "weapons": "illegal",
        "fraud": "illegal",
    }
    right = total = 0
    for message in load_safety_messages():
        kind = ours.get(message.kind, message.kind)
        if message.unsafe and kind in KINDS:
            right, total = right + (words.kind_of(message.text) == kind), total + 1
    assert total > 80 and right / total > 0.5
    calm = [m for m in load_safety_messages() if not m.unsafe]
    assert not [m.text for m in calm if words.alone(m.text)]


def test_damaged_data_files_are_told_in_a_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "replies.json"
    for text in ("{", "[]", '{"insult": []}'):
        bad.write_text(text)
        for reader in (CannedReplies, KindWords):
            with pytest.raises(UserError, match=r"replies\.json"):
                reader(bad)


def test_a_canned_reply_is_fetched_as_it_was_answered(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model, parts=with_safety(WordDetector())) as r:
            await fetched_again(r, await canned(r, "zounds, you idiot"))
        async with room(tiny_model) as r:
            break_model(r)
            failed = await canned(r, "Hello", metadata={"apology": "true"})
            assert failed["failed"] is True
            await fetched_again(r, failed)

    asyncio.run(talk())


async def fetched_again(r: Room, answered: dict[str, object]) -> None:
    got = await r.client.get(f"/v1/chat/completions/{answered['id']}", headers={"bb3x-user": "ada"})
    assert got.status_code == 200
    assert got.json() == {**answered, "usage": None, "created": got.json()["created"]}
