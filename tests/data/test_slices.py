"""A round's own copy: what is loaded is what was pinned, whatever the log does afterwards."""

from dataclasses import replace
from pathlib import Path

import pytest

from bb3x_ray.data import slices
from bb3x_ray.data.deidentify import Deidentifier
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage
from tests.data.make import commit, load, read_conversations, said, talk, thumb, to_table

NAME = "rounds/0001/collect"


def test_a_slice_holds_what_the_range_held(storage: Storage) -> None:
    score = Event("score", "annotation", 9, "c1", "ada", "served", "store", False, rating=4)
    upto = commit(
        storage,
        *talk("c1", 4),
        thumb("t1", "c1-m1", 1),
        thumb("t2", "c1-m3", -1),
        score,
        *talk("c2", person="bob"),
    )
    commit(storage, said("no", 0, None, consent="none"))
    info = slices.pin(storage, NAME, 0, upto + 1)
    assert info == slices.SliceInfo(2, 3, 1, 1, 2, 0, upto + 1, {"no_consent": 1})
    assert slices.info(storage, NAME) == info
    assert load(storage, NAME) == read_conversations(storage, 0, upto)
    (table,) = slices.open_slice(storage, NAME).tables(["conversation_id", "annotation"])
    assert [tuple(row.values()) for row in table.to_pylist()] == [("c1", 4), ("c2", None)]


def test_a_slice_holds_texts_as_they_may_leave_the_log(storage: Storage) -> None:
    opened = said("c1", 0, "I am ada@lovelace.example and I am 25")
    upto = commit(storage, opened, said("c1", 1, "hello", person="ada"), thumb("t1", "c1-m1", -1))
    clean = Deidentifier(b"a key of this test, 32 bytes long")
    slices.pin(storage, NAME, 0, upto, clean=clean)
    (conversation,) = load(storage, NAME)
    text = conversation.messages[0].text
    assert "lovelace" not in text and text.startswith("I am ") and text.endswith(" and I am 25")
    (kept,) = read_conversations(storage, 0, upto)
    assert kept.messages[0].text == opened.text, "the log itself is not touched"


def test_a_pinned_slice_stays_as_it_is(storage: Storage) -> None:
    upto = commit(storage, *talk("c1"))
    slices.pin(storage, NAME, 0, upto)
    before = load(storage, NAME)
    upto = commit(storage, *talk("c2"), thumb("t", "c1-m1", 1))
    assert slices.pin(storage, NAME, 0, upto).conversations == 1
    assert load(storage, NAME) == before


def test_an_altered_slice_is_refused(storage: Storage) -> None:
    slices.pin(storage, NAME, 0, commit(storage, *talk("c1")))
    path = storage.path(NAME, "conversations.parquet")
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="altered"):
        load(storage, NAME)


def test_nothing_to_learn_from_is_said_in_a_sentence(storage: Storage) -> None:
    with pytest.raises(UserError, match="no conversation that an earlier round has not taken"):
        slices.pin(storage, NAME, 0, 0)
    upto = commit(storage, said("no", 0, None, consent="none"))
    with pytest.raises(UserError, match="1 no_consent"):
        slices.pin(storage, NAME, 0, upto)
    assert not storage.path(NAME).exists()


def taught_now(storage: Storage, name: str) -> list[str]:
    """Messages that no earlier slice held."""
    return [
        message["message_id"]
        for table in slices.open_slice(storage, name).tables()
        for messages in table["messages"].to_pylist()
        for message in messages
        if not message["taught_before"]
    ]


def test_groups_hold_the_conversations_in_their_order(storage: Storage, tmp_path: Path) -> None:
    upto = commit(storage, *(event for c in range(11) for event in talk(f"c{c}", 1 + c % 4)))
    slices.pin(storage, NAME, 0, upto)
    (table,) = slices.open_slice(storage, NAME).tables()
    path = tmp_path / "some.parquet"
    slices.write(path, [table.slice(0, 2), table.slice(2, 7), table.slice(9)], group=4)
    copy = slices.Slice(path)
    assert [len(copy.table(group)) for group in range(copy.groups)] == [4, 4, 3]
    assert list(copy.conversations()) == load(storage, NAME) == read_conversations(storage, 0, upto)
    tables = [to_table([c]) for c in copy.conversations()]
    assert [c for one in tables for c in slices.conversations_of(one)] == list(copy.conversations())


def test_groups_stay_small_in_bytes_too(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upto = commit(storage, *(said(f"c{c}", 0, "x" * 1000) for c in range(20)))
    slices.pin(storage, NAME, 0, upto)
    monkeypatch.setattr("bb3x_ray.data.slices._GROUP_BYTES", 5000)
    copy = slices.Slice(tmp_path / "some.parquet")
    slices.write(
        copy.path,
        [table.slice(i, 1) for table in slices.open_slice(storage, NAME).tables() for i in range(20)],
    )
    assert 4 < copy.groups <= 10
    assert list(copy.conversations()) == load(storage, NAME)


def test_over_rounds_each_turn_is_given_out_once(storage: Storage) -> None:
    """Whatever the order in which conversations go on and fall quiet."""
    given: list[str] = []
    previous, after = None, 0
    for number in range(1, 6):
        events = [
            said(f"c{c}", number - 1, at=number * 10 if (c + number) % 3 else number * 100) for c in range(6)
        ]
        upto = commit(storage, *(replace(e, event_id=f"{number}-{e.event_id}") for e in events))
        name = f"rounds/{number:04d}/collect"
        try:
            slices.pin(storage, name, after, upto, quiet_before_us=number * 100, previous=previous)
        except UserError:
            pytest.fail("every range has a quiet conversation")
        given += taught_now(storage, name)
        previous, after = name, upto
    commit(storage, said("last", 0, at=0))
    slices.pin(storage, "rounds/0006/collect", after, after + 1, quiet_before_us=10_000, previous=previous)
    given += taught_now(storage, "rounds/0006/collect")
    assert len(given) == len(set(given)) == 31
