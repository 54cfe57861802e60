"""One conversation of a person is erased: nothing else of theirs is."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bb3x_ray.data.inbox import open_inbox
from bb3x_ray.data.lookup import Lookup
from bb3x_ray.data.tombstones import Request, Tombstones, ask_for_erasure, pending, withdraw
from bb3x_ray.data.verify import verify
from bb3x_ray.rounds import erasure
from bb3x_ray.rounds.ledger import only_run
from bb3x_ray.schemas.event import ONE_CONVERSATION, Event
from bb3x_ray.storage import Storage
from tests.rounds.test_erasure import SECRET, append, decoded, said, storage
from tests.serve.served import served

__all__ = ["storage"]  # the fixture: two people, two rounds
AGAIN = SECRET + " again"


def ask(
    storage: Storage, conversation: str, at: int = 50, reasons: tuple[str, ...] = (ONE_CONVERSATION,)
) -> None:
    event = Event("e-1", "erasure", at, conversation, "ada", "served", "none", False, reasons=reasons)
    append(storage, [event], seal=False)


def test_one_conversation_goes_and_the_others_stay(storage: Storage) -> None:
    ask(storage, "ada-talk-2")
    (stone,) = erasure.carry_out(storage)
    left = decoded(storage.root)
    assert AGAIN not in left and "ada-talk-2" not in left
    assert SECRET in left and "ada-talk-1" in left and "see you" in left
    assert stone.done and stone.of_conversation and stone.removed["interactions"] == 4
    assert stone.models == ["models/v0003", "rewards/v0002"], "the first round knew nothing of it"
    assert verify(storage).damages == [] and not list(pending(storage))


def test_what_comes_back_is_refused_and_what_is_said_there_later_is_not(storage: Storage) -> None:
    ask(storage, "ada-talk-2")
    (stone,) = erasure.carry_out(storage)
    append(storage, said("ada", 2, AGAIN, "late", ""))
    assert AGAIN not in decoded(storage.root)
    late = said("ada", 2, "a new word", "yes", "", at=stone.at + 1)
    append(storage, [Event.from_dict({**e.to_dict(), "event_id": f"new-{e.event_id}"}) for e in late])
    append(storage, said("ada", 3, "elsewhere", "yes", ""))
    words = [event.text for event in Lookup(storage).of_person("ada")]
    assert "a new word" in words and "elsewhere" in words and SECRET in words and AGAIN not in words
    assert len(Tombstones(storage)) == 1


@pytest.mark.parametrize("only", ["ada-talk-2", ""])
def test_what_is_said_after_it_was_asked_for_and_before_it_is_done_stays(storage: Storage, only: str) -> None:
    ask(storage, only or "ada-talk-2", at=50, reasons=(ONE_CONVERSATION,) if only else ())
    later = [
        Event.from_dict({**event.to_dict(), "event_id": f"later-{event.event_id}"})
        for event in said("ada", 2, "a later word", "a later reply", "", at=60)
    ]
    append(storage, later)
    assert len(list(pending(storage))) == 1
    held = [event.text for event in Lookup(storage).of_person("ada")]
    assert AGAIN not in held and "a later word" in held
    (stone,) = erasure.carry_out(storage)
    assert stone.at == 50
    left = decoded(storage.root)
    assert AGAIN not in left and "a later word" in left and "a later reply" in left
    held = [event.text for event in Lookup(storage).of_person("ada")]
    assert AGAIN not in held and "a later word" in held
    assert verify(storage).damages == []


def test_asked_twice_the_later_time_counts_also_while_it_is_carried_out(tmp_path: Path) -> None:
    storage, first = Storage(tmp_path), Request("ada", ("Ada",), at=20)
    ask_for_erasure(storage, first)
    ask_for_erasure(storage, Request("ada", at=10))
    assert list(pending(storage)) == [first]
    ask_for_erasure(storage, Request("ada", at=30))
    withdraw(storage, first)  # which was carried out meanwhile
    assert [(one.at, one.names) for one in pending(storage)] == [(30, ("Ada",))]
    withdraw(storage, next(pending(storage)))
    assert not any(pending(storage))


def test_beside_a_server_words_leave_the_disk_without_any_round(tmp_path: Path) -> None:
    storage, told, stopped = Storage(tmp_path), list[str](), threading.Event()
    append(storage, said("ada", 2, AGAIN, "hm", ""))
    watch = threading.Thread(
        target=erasure.watch,
        args=(storage, open_inbox(str(tmp_path)), 0.0, told.append, stopped, 0.05),
    )
    watch.start()
    try:
        with only_run(storage):  # a run does it itself, before its next step
            ask(storage, "ada-talk-2")
            wait_for(lambda: any(pending(storage)))
            assert AGAIN in decoded(storage.root) and not told
        wait_for(lambda: not any(pending(storage)) and bool(told))
    finally:
        stopped.set()
        watch.join()
    assert AGAIN not in decoded(storage.root)
    assert "erased: 4 from interactions" in told[0] and "ada" not in told[0]


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_conversation_that_its_person_deletes_over_http_leaves_the_disk(
    tiny_model: Path, tmp_path: Path
) -> None:
    root = tmp_path / "served"
    asked = {"user": "ada", "store": True, "max_tokens": 1}
    with (
        served(tiny_model, root) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=300) as client,
    ):
        first, second = (
            client.post(
                "/v1/chat/completions", json={**asked, "messages": [{"role": "user", "content": words}]}
            )
            for words in (SECRET, "hello")
        )
        who = {"bb3x-user": "ada", "bb3x-proof": second.json()["id"]}
        held = client.get("/v1/conversations", headers=who).json()["data"]
        gone = next(one["id"] for one in held if one["messages"][0]["content"] == SECRET)
        assert client.delete(f"/v1/conversations/{gone}", headers=who).status_code == 202
        left = client.get("/v1/conversations", headers=who).json()["data"]
        assert [one["messages"][0]["content"] for one in left] == ["hello"]
        assert SECRET in decoded(root)
    erasure.carry_out(Storage(root))
    assert SECRET not in decoded(root) and "hello" in decoded(root)
    with (
        served(tiny_model, root) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=300) as client,
    ):
        assert client.get("/v1/conversations", headers=who).json()["data"] == left
        fetched = client.get(f"/v1/chat/completions/{first.json()['id']}", headers=who)
        assert fetched.status_code == 404
