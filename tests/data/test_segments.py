"""What was acknowledged is on disk, in one piece, whatever happens to the writer."""

import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest

from bb3x_ray.data.committer import commit_inbox
from bb3x_ray.data.event_rows import parse_line
from bb3x_ray.data.segments import SegmentWriter, take_over_orphans
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage
from tests.data.make import said, talk


def ids_in(paths: list[Path]) -> list[str]:
    return [json.loads(line)["event_id"] for path in paths for line in path.read_bytes().splitlines()]


def test_append_is_durable_before_it_returns_and_sealed_at_close(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "replica-1", seal_seconds=60, seal_bytes=1_000_000)
    writer.append(talk("c1", 3))
    (open_segment,) = tmp_path.glob("*.open")
    assert ids_in([open_segment]) == ["c1-0", "c1-1", "c1-2"]
    writer.close()
    (sealed,) = tmp_path.iterdir()
    assert sealed.name == open_segment.with_suffix(".jsonl").name
    with pytest.raises(RuntimeError, match="closed"):
        writer.append(talk("c2"))


def test_an_event_survives_the_trip_through_a_line(tmp_path: Path) -> None:
    event = said("c", 0, 'quotes " and \u2028 and \n and 🙂')
    with SegmentWriter(tmp_path, "r", 60, 1_000_000) as writer:
        writer.append([event])
    (sealed,) = tmp_path.glob("*.jsonl")
    (line,) = sealed.read_bytes().splitlines(keepends=False)
    assert parse_line(line) == event


def test_an_idle_segment_is_sealed_by_the_clock(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, "r", seal_seconds=0.2, seal_bytes=1_000_000) as writer:
        writer.append(talk("c1"))
        assert not list(tmp_path.glob("*.jsonl"))
        deadline = time.monotonic() + 5
        while not list(tmp_path.glob("*.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(list(tmp_path.glob("*.jsonl"))) == 1
        writer.append(talk("c2"))
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_large_segment_is_sealed_at_once(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, "r", seal_seconds=60, seal_bytes=500) as writer:
        for number in range(4):
            writer.append(talk(f"c{number}", 2))
        assert len(list(tmp_path.glob("*.jsonl"))) == 4


def test_threads_share_syncs_and_keep_their_lines_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0
    sync = os.fdatasync

    def slow_sync(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        time.sleep(0.01)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", slow_sync)
    with SegmentWriter(tmp_path, "r", 60, 10_000_000) as writer:
        threads = [
            threading.Thread(target=lambda n=n: [writer.append(talk(f"c{n}.{i}", 3)) for i in range(10)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = ids_in(list(tmp_path.glob("*.jsonl")))
    assert len(found) == 240
    appends = [found[i : i + 3] for i in range(0, 240, 3)]
    assert all([one.rsplit("-", 1)[1] for one in append] == ["0", "1", "2"] for append in appends)
    assert all(len({one.rsplit("-", 1)[0] for one in append}) == 1 for append in appends)
    assert syncs < 60  # 80 appends


def test_a_full_disk_is_told_to_the_appender_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, "r", 60, 1_000_000)
    writer.append(talk("before"))
    write = os.write
    full = True

    def half_write(fd: int, data: bytes) -> int:
        if full:
            write(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", half_write)
    with pytest.raises(UserError, match="no space left"):
        writer.append(talk("lost"))
    full = False
    writer.append(talk("after"))
    writer.close()
    take_over_orphans(tmp_path)
    assert sorted(ids_in(list(tmp_path.glob("*.jsonl")))) == ["after-0", "after-1", "before-0", "before-1"]


def test_a_bad_event_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, "r", 60, 1_000_000) as writer:
        with pytest.raises(UserError, match="surrogate") as refused:
            writer.append([said("c", 0, "secret \ud800 words")])
        assert "secret" not in str(refused.value)
        with pytest.raises(UserError, match="conversation_id"):
            writer.append([said("", 0)])
    assert not list(tmp_path.iterdir())


def test_the_committer_leaves_a_living_writer_alone(tmp_path: Path, storage: Storage) -> None:
    with SegmentWriter(storage.path("inbox"), "r", 60, 1_000_000) as writer:
        writer.append(talk("c1"))
        assert commit_inbox(storage).committed == 0
        writer.append(talk("c2"))
    assert commit_inbox(storage).committed == 4


def test_a_torn_last_line_is_ignored(storage: Storage) -> None:
    inbox = storage.path("inbox")
    inbox.mkdir(parents=True)
    with SegmentWriter(inbox, "r", 60, 1_000_000) as writer:
        writer.append(talk("c1", 3))
    (sealed,) = inbox.glob("*.jsonl")
    orphan = sealed.with_suffix(".open")  # as a killed writer leaves it: no lock, cut anywhere
    sealed.rename(orphan)
    orphan.write_bytes(orphan.read_bytes()[:-20])
    report = commit_inbox(storage)
    assert (report.committed, report.rejected) == (2, 0)
