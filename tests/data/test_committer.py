"""Each event once in the table, whatever crashes between; no text where none may be."""

import errno
import json
import os
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake.exceptions import DeltaError

from bb3x_ray.data import committer
from bb3x_ray.data.committer import commit_inbox, committing
from bb3x_ray.data.known_ids import KnownIds
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.data.table import APP_ID, head, open_table, scan
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import EVENT_SCHEMA, Event
from bb3x_ray.storage import Storage
from tests.data.make import said, talk, thumb


def put(storage: Storage, events: list[Event]) -> None:
    with SegmentWriter(storage.path("inbox"), "r", 60, 10_000_000) as writer:
        writer.append(events)


def rows(storage: Storage) -> list[dict[str, object]]:
    table = open_table(storage)
    assert table is not None
    found: list[dict[str, object]] = (
        scan(storage, table, EVENT_SCHEMA.names, None).sort_by("commit_seq").to_pylist()
    )
    return found


def test_events_become_rows_in_order(storage: Storage) -> None:
    assert head(storage) == 0
    put(storage, talk("c1", 3))
    put(storage, [thumb("t1", "c1-m1", -1)])
    report = commit_inbox(storage)
    assert (report.committed, report.duplicates, report.rejected) == (4, 0, 0)
    found = rows(storage)
    assert [(r["commit_seq"], r["event_id"]) for r in found] == [
        (1, "c1-0"),
        (2, "c1-1"),
        (3, "c1-2"),
        (4, "t1"),
    ]
    assert found[3]["rating"] == -1 and found[3]["reasons"] == ["rude"]
    assert head(storage) == 4
    assert not list(storage.path("inbox").glob("*.jsonl"))
    assert len(list(storage.path("archive").rglob("*.jsonl"))) == 2


def test_an_empty_inbox_commits_nothing(storage: Storage) -> None:
    assert commit_inbox(storage).committed == 0
    assert head(storage) == 0


def test_an_event_sent_twice_is_one_row(storage: Storage) -> None:
    put(storage, [*talk("c1"), *talk("c1")])
    first = commit_inbox(storage)
    assert (first.committed, first.duplicates) == (2, 2)
    put(storage, [*talk("c2"), *talk("c1")])
    second = commit_inbox(storage)
    assert (second.committed, second.duplicates) == (2, 2)
    assert [r["event_id"] for r in rows(storage)] == ["c1-0", "c1-1", "c2-0", "c2-1"]


@pytest.mark.parametrize("lost", ["archive", "index"])
def test_a_crash_after_the_delta_commit_adds_nothing_twice(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """`archive`: before the segments were moved. `index`: before the known ids were written, too."""

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    put(storage, talk("c1"))
    with monkeypatch.context() as patch:
        if lost == "archive":
            patch.setattr(committer, "_archive", crash)
        else:
            patch.setattr(KnownIds, "add", crash)
        with pytest.raises(KeyboardInterrupt):
            commit_inbox(storage)
    assert head(storage) == 2
    assert len(list(storage.path("inbox").glob("*.jsonl"))) == 1
    put(storage, [*talk("c2"), *talk("c1")])
    report = commit_inbox(storage)
    assert (report.committed, report.duplicates) == (2, 2)  # the crashed segment is not even read again
    assert [r["event_id"] for r in rows(storage)] == ["c1-0", "c1-1", "c2-0", "c2-1"]
    assert not list(storage.path("inbox").glob("*.jsonl"))


def test_a_crash_before_the_delta_commit_loses_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    put(storage, talk("c1"))
    with monkeypatch.context() as patch:
        patch.setattr(committer, "write_deltalake", crash)
        with pytest.raises(KeyboardInterrupt):
            commit_inbox(storage)
    assert commit_inbox(storage).committed == 2


def test_a_crash_in_the_middle_of_archiving_is_mended(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, talk("c1"))
    put(storage, talk("c2"))
    replace, moved = os.replace, 0

    def crash(source: Path, target: Path) -> None:
        nonlocal moved
        if "archive" in str(target):
            moved += 1
            if moved == 2:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            commit_inbox(storage)
    report = commit_inbox(storage)
    assert (report.committed, report.duplicates) == (0, 0)
    assert len(rows(storage)) == 4
    assert len(list(storage.path("archive").rglob("*.jsonl"))) == 2


def test_the_known_ids_can_be_rebuilt_from_the_table(storage: Storage) -> None:
    put(storage, talk("c1", 4))
    commit_inbox(storage)
    for path in storage.path("interactions_ids").iterdir():
        path.unlink()
    put(storage, talk("c1", 5))
    report = commit_inbox(storage)
    assert (report.committed, report.duplicates) == (1, 4)


def test_known_ids_stay_few_files_however_many_commits(tmp_path: Path) -> None:
    known = KnownIds(tmp_path, 0, lambda after: [])
    total = 0
    for commit in range(60):
        ids = [f"{commit}.{i}" for i in range(commit % 7 + 1)]
        assert known.new(ids).all()
        total += len(ids)
        known.add(ids, total)
    assert len(list(tmp_path.iterdir())) <= total.bit_length()
    reopened = KnownIds(tmp_path, total, lambda after: pytest.fail("nothing is missing"))
    seen = [f"{commit}.{i}" for commit in range(60) for i in range(commit % 7 + 1)]
    assert not reopened.new(seen).any()
    assert reopened.new(["new", "0.0", "new"]).tolist() == [True, False, False]


def test_corrupt_lines_are_counted_and_kept_with_line_and_reason(storage: Storage) -> None:
    put(storage, talk("c1", 3))
    (segment,) = storage.path("inbox").glob("*.jsonl")
    lines = segment.read_bytes().split(b"\n")
    bad_type = json.dumps({**said("c1", 9).to_dict(), "at": "yesterday"}).encode()
    lines[1:1] = [b'{"event_id": "cut of', bad_type, b"[1, 2]", b"\xff\xfe"]
    segment.write_bytes(b"\n".join(lines))
    report = commit_inbox(storage)
    assert (report.committed, report.rejected) == (3, 4)
    (rejects,) = storage.path("rejects").iterdir()
    kept = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(k["line"], k["reason"]) for k in kept] == [
        (2, "not valid JSON at column 14"),
        (3, "at must be microseconds since 1970"),
        (4, "not a JSON object"),
        (5, "not valid UTF-8"),
    ]


def test_what_people_said_is_in_the_table_but_not_in_its_log(storage: Storage) -> None:
    secret = "zebracrossing"
    for batch in range(3):
        put(storage, [said(f"c{batch}", 0, f"{secret} {batch}", person=f"{secret}-person")])
        commit_inbox(storage)
    table = open_table(storage)
    assert table is not None
    table.create_checkpoint()
    for path in storage.path("interactions", "_delta_log").iterdir():
        if path.suffix == ".parquet":
            assert secret not in str(pq.read_table(path).to_pylist())
        else:
            assert secret not in path.read_text()
            assert path.name == "_last_checkpoint" or "commit" in path.read_text()
    assert all(secret in str(r["text"]) for r in rows(storage))
    assert table.transaction_version(APP_ID) == 3


def test_two_committers_wait_for_each_other(storage: Storage) -> None:
    for number in range(6):
        put(storage, talk(f"c{number}"))
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(commit_inbox(storage))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.committed for r in reports) == [0, 0, 12]
    assert len(rows(storage)) == 12


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left"), DeltaError("Generic error: No space left (os error 28)")],
)
def test_a_full_disk_ends_in_a_sentence_and_the_next_run_goes_on(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    put(storage, talk("c1"))
    with monkeypatch.context() as patch:
        patch.setattr(committer, "write_deltalake", full)
        with pytest.raises(UserError, match="no space left"):
            commit_inbox(storage)
    assert commit_inbox(storage).committed == 2


def test_bulk_appends_go_through_the_same_door(storage: Storage) -> None:
    with committing(storage) as log:
        assert log.append(talk("c1")) == 2
        assert log.append(talk("c1", 3)) == 1
    assert head(storage) == 3
