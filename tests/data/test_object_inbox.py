"""`log.ack: shared` in a real object store: what was acknowledged survives node, disk and committer."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

import obstore
import pytest

from bb3x_ray.data.committer import commit_inbox, restore_archive
from bb3x_ray.data.inbox import Inbox, open_inbox
from bb3x_ray.data.object_inbox import ObjectInbox
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage
from tests.data.log_checks import committed_ids
from tests.data.make import said, talk
from tests.seaweed import Seaweed, running_store


@pytest.fixture
def inbox(object_store: Seaweed) -> Inbox:
    return open_inbox(f"{object_store.address}/{uuid.uuid4().hex}")


def put(inbox: Inbox, *conversations: str) -> None:
    writer = inbox.writer("replica", 60, 1_000_000)
    for conversation in conversations:
        writer.append(talk(conversation))
    writer.close()


def test_an_append_is_one_object_and_the_committer_archives_many_as_one(
    storage: Storage, inbox: Inbox
) -> None:
    put(inbox, "c1", "c2", "c3")
    waiting = inbox.waiting()
    assert len(waiting) == 3 and [s.name for s in waiting] == sorted(s.name for s in waiting)
    report = commit_inbox(storage, inbox)
    assert (report.committed, report.duplicates, report.rejected) == (6, 0, 0)
    assert committed_ids(storage) == ["c1-0", "c1-1", "c2-0", "c2-1", "c3-0", "c3-1"]
    assert inbox.waiting() == []
    (archived,) = inbox.archived()
    (data,) = inbox.read_archived([archived.name])
    assert data.count(b"\n") == 6


def test_threads_share_puts_and_keep_their_lines_together(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts, gate, put = 0, threading.Event(), obstore.put

    def counted(*args: object, **options: object) -> object:
        nonlocal puts
        puts += 1
        if puts == 1:  # all the others come to wait meanwhile
            gate.wait(10)
        return put(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(obstore, "put", counted)
    writer = inbox.writer("replica", 60, 1_000_000)
    threads = [threading.Thread(target=lambda n=n: writer.append(talk(f"c{n}", 3))) for n in range(8)]
    for thread in threads:
        thread.start()
    while len(writer._group._waiting) < 7:  # type: ignore[attr-defined]
        threading.Event().wait(0.01)
    gate.set()
    for thread in threads:
        thread.join()
    writer.close()
    assert puts == 2
    lines = b"".join(inbox.read([s.name for s in inbox.waiting()])).splitlines()
    assert len(lines) == 24


def test_what_waits_under_the_storage_root_is_committed_beside(storage: Storage, inbox: Inbox) -> None:
    put(open_inbox(str(storage.root)), "before")
    put(inbox, "after")
    assert commit_inbox(storage, inbox).committed == 4
    assert committed_ids(storage) == ["before-0", "before-1", "after-0", "after-1"]


@pytest.mark.parametrize("fails", ["put", "delete"])
def test_a_crash_while_archiving_loses_and_doubles_nothing(
    storage: Storage, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    put(inbox, "c1", "c2")
    with monkeypatch.context() as patch:
        patch.setattr(obstore, fails, crash)
        with pytest.raises(KeyboardInterrupt):
            commit_inbox(storage, inbox)
    put(inbox, "c3")
    report = commit_inbox(storage, inbox)
    assert (report.committed, report.duplicates) == (2, 0)
    assert len(committed_ids(storage)) == 6
    assert inbox.waiting() == []
    assert len(inbox.archived()) == 2


def test_a_store_that_does_not_answer_refuses_the_event(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nothing listens
    writer = ObjectInbox(inbox.address).writer("replica", 60, 1_000_000)
    with pytest.raises(UserError, match="did not take") as refused:
        writer.append([said("c", 0, "secret words")])
    assert "secret" not in str(refused.value)


def test_lines_of_a_person_leave_inbox_and_archive(storage: Storage, inbox: Inbox) -> None:
    put(inbox, "stays", "goes")
    commit_inbox(storage, inbox)
    put(inbox, "goes too")
    assert inbox.rewrite(lambda line: b'"goes' not in line) == 4
    left = inbox.read_archived([s.name for s in inbox.archived()])
    left += inbox.read([s.name for s in inbox.waiting()])
    assert b"stays" in b"".join(left) and b"goes" not in b"".join(left)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UserError, match="ftp:// is not known"):
        open_inbox("ftp://somewhere/else")


WRITER = """
import sys, threading
from bb3x_ray.data.inbox import open_inbox
from tests.data.make import talk
writer = open_inbox(sys.argv[1]).writer("victim", 0.1, 20_000)
lock = threading.Lock()
def work(n):
    for i in range(100_000):
        name = f"{sys.argv[2]}-{n}-{i}"
        writer.append(talk(name))
        with lock:
            sys.stdout.write(name + "\\n"); sys.stdout.flush()
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
"""


def acknowledged_until_killed(address: str, run: str, count: int, home: Path) -> set[str]:
    """Conversations that a writing process acknowledged before it was killed, in a home that is its own."""
    home.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, address, run],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HOME": str(home), "TMPDIR": str(home)},
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.wait()
    # The last line may be cut by the kill: it counts only when it is whole.
    return {line.strip() for line in lines if line.endswith("\n")}


def events_of(conversations: Sequence[str] | set[str]) -> set[str]:
    return {f"{name}-{position}" for name in conversations for position in (0, 1)}


def test_a_lost_node_and_its_disk_lose_nothing_that_was_acknowledged(tmp_path: Path, inbox: Inbox) -> None:
    """The node has replica, committer and storage root; of two acknowledged lots one was committed there."""
    node = tmp_path / "node"
    node.mkdir()
    first = acknowledged_until_killed(inbox.address, "first", 20, node / "home1")
    commit_inbox(Storage(node / "store"), inbox)
    second = acknowledged_until_killed(inbox.address, "second", 20, node / "home2")
    shutil.rmtree(node)  # and with it storage root, table, lease and plan
    storage = Storage(tmp_path / "another node")
    restore_archive(storage, inbox)
    commit_inbox(storage, inbox)
    assert len(first) >= 20 and len(second) >= 20
    assert events_of(first | second) <= set(committed_ids(storage))
    assert inbox.waiting() == []


def test_a_killed_store_still_has_what_it_took(tmp_path: Path, storage: Storage) -> None:
    with running_store(tmp_path / "seaweed") as store:
        put(open_inbox(f"{store.address}/log"), "c1", "c2")
        store.kill()
        store.start()
        assert commit_inbox(storage, open_inbox(f"{store.address}/log")).committed == 4
