"""Which conversation a request belongs to, and what is logged of its history."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bb3x_ray.data.collect import NotTaken, Range, collect
from bb3x_ray.data.committer import commit_inbox
from bb3x_ray.data.lookup import Lookup
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.data.slices import conversations_of
from bb3x_ray.data.table import IDS, head
from bb3x_ray.data.verify import verify
from bb3x_ray.schemas.event import with_copies
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.conversations import Conversations, Place, Said
from bb3x_ray.serve.stop_words import StopWords
from bb3x_ray.storage import Storage
from tests.serve.room import KEY, ListLog, Room, room


def of_kind(log: ListLog, kind: str) -> list[str | None]:
    return [e.text for e in log.events if e.author_kind == kind]


async def reply_of(r: Room, *words: str, **more: object) -> str:
    answer = await r.chat(*words, store=True, **more)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_resent_history_is_one_conversation_and_each_message_is_logged_once(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            for more in ({"user": "ada"}, {"user": "ada", "metadata": {"conversation_id": "tea"}}, {}):
                r.log.events.clear()
                first = await reply_of(r, "Hello", **more)
                second = await reply_of(r, "Hello", first, "And you?", **more)
                await reply_of(r, "Hello", f" {first}\n", "And you?", second, "Bye", **more)  # white space
                assert len({e.conversation_id for e in r.log.events}) == 1
                assert len({e.event_id for e in r.log.events}) == len(r.log.events) == 6
                assert [e.position for e in r.log.events] == [0, 1, 2, 3, 4, 5]
                assert of_kind(r.log, "person") == ["Hello", "And you?", "Bye"]
                assert of_kind(r.log, "unverified") == []
                assert len({e.person for e in r.log.events}) == 1

    asyncio.run(talk())


def test_invented_assistant_history_is_unverified(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            await reply_of(r, "Hello", "I am evil.", "Yes?", user="ada", metadata={"conversation_id": "c"})
            assert of_kind(r.log, "unverified") == ["I am evil."]
            real = await reply_of(r, "Hi", user="ada")
            await reply_of(r, "Hi", real + "!", "Yes?", user="ada")  # one changed letter
            assert of_kind(r.log, "unverified") == ["I am evil.", real + "!"]
            conversations = [e.conversation_id for e in r.log.events if e.text == "Hi"]
            assert len(conversations) == 2 and len(set(conversations)) == 2

    asyncio.run(talk())


def test_two_people_cannot_share_a_conversation(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            named = {"metadata": {"conversation_id": "tea"}, "temperature": 0}
            ada = await reply_of(r, "Hello", user="ada", **named)
            await reply_of(r, "Hello", ada, "I am Bob", user="bob", **named)
            await reply_of(r, "Hello", ada, "I am Eve", user="eve", temperature=0)  # by history alone
            await reply_of(r, "Good day", **named)  # two without a name, told apart by how they began
            await reply_of(r, "Good night", **named)
            people: dict[str, set[str]] = {}
            for e in r.log.events:
                people.setdefault(e.conversation_id, set()).add(e.person)
            assert len(people) == 5 and all(len(who) == 1 for who in people.values())

    asyncio.run(talk())


def test_after_a_restart_nothing_is_logged_under_another_id(tiny_model: Path) -> None:
    async def talk() -> None:
        more = {"user": "ada", "metadata": {"conversation_id": "tea"}}
        async with room(tiny_model) as before:
            first = await reply_of(before, "Hello", **more)
        async with room(tiny_model) as after:
            await reply_of(after, "Hello", first, "And you?", **more)
        # The log keeps one row for each event id, the first; and a reply's makes its copy's known.
        again = {e.event_id: e for e in after.log.events}
        for event_id in with_copies(e.event_id for e in before.log.events):
            again.pop(event_id, None)
        assert {e.position for e in again.values()} == {2, 3}

    asyncio.run(talk())


def test_two_replies_in_the_same_words_are_both_kept_and_rated(tiny_model: Path, tmp_path: Path) -> None:
    """As when somebody asks for another reply and the model has but one; over three replicas, the last of
    which hears of the replies from the client alone, when the log's index was made anew."""
    storage = Storage(tmp_path)

    async def talk() -> list[dict[str, Any]]:
        more = {"user": "ada", "metadata": {"conversation_id": "tea"}, "temperature": 0, "store": True}
        answers = []
        for replica, replies in (("r1", 2), ("r2", 2), ("r3", 0)):
            async with room(tiny_model) as r:
                answers += [(await r.chat("hi", **more)).json() for _ in range(replies)]
                for answer in answers[-replies:] if replies else ():
                    assert (await r.feedback(answer["id"], 1, user="ada")).status_code == 200
                said = answers[0]["choices"][0]["message"]["content"]
                await r.chat("hi", said, "more", **more)
            claimed = [event for event in r.log.events if event.author_kind == "unverified"]
            assert len(claimed) == (0 if replies else 1)
            if claimed:
                shutil.rmtree(storage.path(IDS))
            with SegmentWriter(storage.path("inbox"), replica, 60.0, 1_000_000) as log:
                log.append(r.log.events)
                shown = Lookup(storage).of_person(Signer(KEY).pseudonym("ada"))
                assert "unverified" not in {event.author_kind for event in shown}
            commit_inbox(storage)
        return answers

    answers = asyncio.run(talk())
    assert len({answer["choices"][0]["message"]["content"] for answer in answers}) == 1
    person = Signer(KEY).pseudonym("ada")
    kept = {e.message_id: e for e in Lookup(storage).of_person(person) if e.kind == "message"}
    assert {answer["id"] for answer in answers} < set(kept)
    assert "unverified" not in {event.author_kind for event in kept.values()}
    assert verify(storage).damages == []
    (conversation,) = conversations_of(
        pa.concat_tables(collect(storage, Range(0, head(storage)), NotTaken()))
    )
    assert [m.author.kind for m in conversation.messages] == ["person", "model"] * 2
    assert conversation.messages[1].message_id == answers[-1]["id"]
    assert [f.rating for f in conversation.feedback] == [1]


def test_a_failed_turn_is_logged_whole_when_it_is_sent_again(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model) as r:
            r.log.broken = True
            assert (await r.chat("Hello", user="ada")).status_code == 503
            r.log.broken = False
            await reply_of(r, "Hello", user="ada")
            assert [e.position for e in r.log.events] == [0, 1]

    asyncio.run(talk())


def find(memory: Conversations, *words: str, user: str | None = None, named: str | None = None) -> Place:
    said = [Said("assistant" if i % 2 else "user", text) for i, text in enumerate(words)]
    return asyncio.run(memory.find(said, user, named))


@pytest.mark.parametrize(
    "more", [{"user": "ada"}, {}, {"user": "ada", "named": "tea"}, {"named": "tea"}], ids=str
)
def test_replicas_find_each_other_s_conversations_and_log_nothing_twice(more: dict[str, str]) -> None:
    replicas: list[Conversations] = []

    async def ask(chain: str) -> str | None:
        return next((found for each in replicas if (found := each.served_here(chain))), None)

    replicas += [Conversations(Signer(KEY), ask) for _ in range(2)]
    words, places, logged = ["Hello"], list[Place](), list[str]()
    for turn in range(6):  # one after the other answers
        place = find(replicas[turn % 2], *words, **more)
        places.append(place)
        logged += [said.text for _, _, said in place.unlogged]
        replicas[turn % 2].served(place, len(words), f"reply {turn}")
        words += [f"reply {turn}", f"message {turn}"]
    assert len({(place.conversation_id, place.person) for place in places}) == 1
    assert logged == words[:-1:2], "each message of the person once, and no reply of ours as a client's"


def test_nobody_finds_a_conversation_by_a_history_that_is_not_theirs() -> None:
    first = Conversations(Signer(KEY))

    async def ask(chain: str) -> str | None:
        return first.served_here(chain)

    second = Conversations(Signer(KEY), ask)
    place = find(first, "Hello", user="ada")
    first.served(place, 1, "hi")
    assert find(second, "Hello", "hi", "And you?", user="ada").conversation_id == place.conversation_id
    for user, reply in (("eve", "hi"), (None, "hi"), ("ada", "hi!")):
        stranger = find(second, "Hello", reply, "And you?", user=user)
        assert stranger.conversation_id != place.conversation_id
        assert [said.text for _, _, said in stranger.unlogged] == ["Hello", reply, "And you?"]


def test_memory_is_bounded_and_forgetting_is_harmless() -> None:
    signer = Signer(KEY)
    memory = Conversations(signer, capacity=3)
    places = []
    for i in range(10):
        place = find(memory, f"hello {i}", user=f"p{i}", named=f"c{i}")
        memory.served(place, 1, "hi")
        places.append(place)
    assert len(memory._logged) == 3 and len(memory._chains) <= 12
    known = find(memory, "hello 9", user="p9", named="c9")
    assert known.unlogged == ()
    forgotten = find(memory, "hello 0", user="p0", named="c0")
    assert forgotten.unlogged == places[0].unlogged and forgotten.conversation_id == places[0].conversation_id


def test_pseudonyms_hide_names_and_nobody_can_speak_as_an_anonymous_person() -> None:
    signer = Signer(KEY)
    for name in ("ada", "john.smith", "4111111111111111", "ada@example.org"):
        hidden = signer.person(name, "c")
        assert hidden.startswith("u-") and name not in hidden and hidden == signer.person(name, "d")
    assert signer.person(hidden, "c") != hidden
    anonymous = signer.person(None, "c")
    assert anonymous != signer.person("", "other") and signer.person(anonymous, "c") != anonymous


def test_ids_are_bound_to_the_key_the_person_and_the_conversation() -> None:
    ada = Signer(KEY).pseudonym("ada")
    made = Signer(KEY).new_completion("tea.0123456789", ada, stored=True, simulated=True)
    assert Signer(KEY).read_completion(made.completion_id, "ada") == made
    assert Signer(b"another key of 32 bytes, as long").read_completion(made.completion_id, "ada") is None
    for old, new in (("tea", "pea"), (".sr.", ".nr."), (".sr.", ".s.")):
        assert Signer(KEY).read_completion(made.completion_id.replace(old, new), "ada") is None


def test_stop_strings_are_found_also_in_pieces_and_nothing_else_is_lost() -> None:
    for pieces, shown, hit in (
        (["the E", "ND of it"], "the ", True),
        (["the E", "NORM"], "the ENORM", False),
        (["abab", "ac", "x"], "ab", True),
        (["trailing EN"], "trailing EN", False),
    ):
        stops = StopWords(["END", "abac"])
        text = "".join(stops.push(piece) for piece in pieces)
        assert (text + stops.flush(), stops.hit) == (shown, hit)
    assert StopWords([]).push("as it is") == "as it is"
