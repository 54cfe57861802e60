"""A person's events are found wherever the log has them, and nobody else's."""

from dataclasses import replace

from bb3x_ray.data.committer import commit_inbox
from bb3x_ray.data.compact import compact
from bb3x_ray.data.lookup import Lookup
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.data.tombstones import Request, ask_for_erasure
from bb3x_ray.schemas.event import ONE_CONVERSATION, Event
from bb3x_ray.storage import Storage
from tests.data.make import said, thumb


def talk(person: str, conversation: str, at: int) -> list[Event]:
    return [said(conversation, i, f"{conversation}, {i}", at=at + i, person=person) for i in range(2)]


def write(storage: Storage, events: list[Event]) -> None:
    with SegmentWriter(storage.path("inbox"), "r", 60.0, 1_000_000) as log:
        log.append(events)


def ids(lookup: Lookup, person: str) -> list[str]:
    return [event.event_id for event in lookup.of_person(person)]


def test_open_and_sealed_segments_and_the_table_are_one(storage: Storage) -> None:
    lookup = Lookup(storage)
    assert ids(lookup, "ada") == []
    for at, conversation in ((10, "first"), (20, "second")):
        write(storage, [*talk("ada", conversation, at), *talk("bob", f"{conversation}-b", at)])
        commit_inbox(storage)
    write(storage, [*talk("ada", "third", 30), thumb("t", "first-m1", 1, at=31, conversation="first")])
    with SegmentWriter(storage.path("inbox"), "r", 60.0, 1_000_000) as log:
        log.append([*talk("bob", "fourth-b", 40), *talk("ada", "fourth", 40)])
        expected = ["first-0", "first-1", "second-0", "second-1", "third-0", "third-1", "t"]
        expected = sorted(expected, key=lambda name: name == "t")
        for _ in range(2):  # the second time from what is remembered
            found = ids(lookup, "ada")
            assert sorted(found) == sorted([*expected, "fourth-0", "fourth-1"])
            assert [event.at for event in lookup.of_person("ada")] == sorted(
                event.at for event in lookup.of_person("ada")
            )
            assert {event.person for event in lookup.of_person("ada")} == {"ada"}
    assert len(ids(lookup, "ada")) == 9, "sealed by now"
    commit_inbox(storage)
    assert len(ids(lookup, "ada")) == 9, "and committed"
    compact(storage)
    assert len(ids(lookup, "ada")) == 9 == len(ids(Lookup(storage), "ada"))
    event = lookup.of_person("ada")[0]
    assert (event.text, event.author_kind, event.comment, event.reasons) == ("first, 0", "person", "", ())


def test_names_and_words_that_look_like_a_line_find_nobody_else(storage: Storage) -> None:
    odd = 'o"x\\ñ'
    said_so = [replace(event, text='"person": "ada"') for event in talk(odd, "odd", 1)]
    write(storage, [*said_so, *talk("ada", "mine", 1)])
    lookup = Lookup(storage)
    for _ in range(2):
        assert [len(ids(lookup, name)) for name in (odd, "ada", "o", "", "ad")] == [2, 2, 0, 0, 0]
    commit_inbox(storage)
    assert [len(ids(lookup, name)) for name in (odd, "ada", "o", "", "ad")] == [2, 2, 0, 0, 0]


def test_what_waits_to_be_erased_is_not_shown(storage: Storage) -> None:
    write(storage, [*talk("ada", "first", 10), *talk("ada", "second", 10), *talk("bob", "b", 10)])
    lookup = Lookup(storage)
    gone = Event("e", "erasure", 20, "first", "ada", "served", "none", False, reasons=(ONE_CONVERSATION,))
    write(storage, [gone, said("first", 2, "later", at=21)])
    assert ids(lookup, "ada") == ["second-0", "second-1", "first-2"]
    commit_inbox(storage)  # which makes the request; it is carried out by whoever looks next
    assert ids(lookup, "ada") == ["second-0", "second-1", "first-2"]
    ask_for_erasure(storage, Request("ada", at=20))
    assert ids(lookup, "ada") == ["first-2"]
    ask_for_erasure(storage, Request("ada"))
    assert ids(lookup, "ada") == [] and len(ids(lookup, "bob")) == 2
