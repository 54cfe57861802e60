"""The bookkeeping of versions: what stays, what leaves and when, which version writes a reply."""

import threading

import pytest

from bb3x_ray.serve.engines.held import Held
from bb3x_ray.serve.engines.protocol import UnknownVersion


def held() -> Held[str]:
    """v0001 answers; what it takes is called v0001's."""
    return Held("v0001", "v0001's")


def test_what_was_added_stays_although_replies_of_others_end() -> None:
    versions = held()
    versions.begin("hello", None)
    versions.add("v0002", "v0002's")
    assert versions.end("hello") == [] and versions.names == ["v0002", "v0001"]
    versions.begin("by name", "v0002")
    assert versions.writing("by name") == ("v0002", "v0002's")
    assert versions.end("by name") == [] and "v0002" in versions.names
    assert versions.keep(["v0002"]) == versions.keep(["v0001", "v0002"]) == []
    assert versions.keep([]) == ["v0002's"] and versions.names == ["v0001"]


def test_the_version_before_leaves_with_its_last_reply_unless_it_is_kept() -> None:
    versions = held()
    versions.add("v0002", "v0002's")
    for reply in ("first", "second"):
        versions.begin(reply, None)
    assert versions.move_to("v0002") == [] and versions.current == "v0002"
    assert versions.writing("first") == ("v0001", "v0001's")
    assert versions.end("first") == [] and versions.end("second") == ["v0001's"]
    versions.add("v0003", "v0003's")
    versions.keep(["v0002", "v0003"])
    assert versions.move_to("v0003") == [] and set(versions.names) == {"v0002", "v0003"}


def test_one_that_leaves_and_is_wanted_again_stays() -> None:
    versions = held()
    versions.add("v0002", "v0002's")
    versions.begin("hello", None)
    versions.move_to("v0002")
    assert versions.stays("v0001") and not versions.stays("v0003")
    assert versions.end("hello") == [] and "v0001" in versions.names
    assert versions.move_to("v0001") == ["v0002's"]


def test_a_version_that_is_not_held_is_unknown_and_changes_nothing() -> None:
    versions = held()
    with pytest.raises(UnknownVersion):
        versions.begin("hello", "v0002")
    with pytest.raises(UnknownVersion):
        versions.move_to("v0002")
    assert versions.current == "v0001" and versions.move_to("v0001") == []
    assert versions.end("never begun") == [] and versions.names == ["v0001"]


def test_replies_that_wait_for_a_replaced_version_are_written_by_the_new_one() -> None:
    versions = held()
    versions.add("v0002", "v0002's")
    versions.begin("waits", "v0002")
    versions.begin("waits too", None)
    assert versions.replace_all("v0003", "v0003's") == ["v0001's", "v0002's"]
    assert versions.current == "v0003" and versions.names == ["v0003"]
    assert versions.writing("waits") == versions.writing("waits too") == ("v0003", "v0003's")
    versions.add("v0004", "v0004's")
    assert versions.move_to("v0004") == []  # they are its own now, and it stays for them
    assert versions.end("waits") == [] and versions.end("waits too") == ["v0003's"]


def test_at_every_moment_of_a_change_there_is_a_version_that_answers() -> None:
    """Replies begin and end in one thread while another replaces everything: none misses a version."""
    versions, done = held(), threading.Event()

    def change() -> None:
        for number in range(2, 3000):
            name = f"v{number:04}"
            if number % 2:
                versions.add(name, f"{name}'s")
                versions.move_to(name)
            else:
                versions.replace_all(name, f"{name}'s")
        done.set()

    thread = threading.Thread(target=change)
    thread.start()
    reply = 0
    while not done.is_set():
        reply += 1
        versions.begin(reply, None)
        name, opened = versions.writing(reply)
        assert opened == f"{name}'s"
        versions.end(reply)
    thread.join()
    assert versions.names == [versions.current]
