"""`bb3x log`: what the log says of itself, fewer files with the same rows, and every damage told."""

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from bb3x_ray.data import compact as compact_module
from bb3x_ray.data import slices
from bb3x_ray.data.committer import commit_inbox, committing, restore_archive
from bb3x_ray.data.compact import compact, sections
from bb3x_ray.data.inbox import open_inbox
from bb3x_ray.data.log_status import log_status, status_lines
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.data.table import DataFile, data_files, head, open_table, scan
from bb3x_ray.data.verify import verify
from bb3x_ray.schemas.event import EVENT_SCHEMA, Event
from bb3x_ray.storage import Storage
from tests.data.log_checks import committed_ids
from tests.data.make import said, talk, thumb


def put(storage: Storage, *events: Event) -> None:
    with SegmentWriter(storage.path("inbox"), "r", 60, 10_000_000) as writer:
        writer.append(list(events))


def commit(storage: Storage, *events: Event) -> None:
    put(storage, *events)
    commit_inbox(storage)


def rows(storage: Storage) -> list[dict[str, object]]:
    table = open_table(storage)
    assert table is not None
    found: list[dict[str, object]] = scan(storage, table, EVENT_SCHEMA.names, None).to_pylist()
    return found


def by_seq(found: list[dict[str, object]]) -> list[dict[str, object]]:
    return sorted(found, key=lambda row: int(str(row["commit_seq"])))


# status


def test_status_of_an_empty_root(storage: Storage) -> None:
    status = log_status(storage)
    assert (status.head, status.rows, status.table_files, status.last_commit) == (0, {}, 0, None)
    assert (status.sealed, status.open, status.oldest_waiting, status.rejected) == (0, 0, None, 0)
    assert not storage.root.exists()  # only looks
    assert "last commit never" in status_lines(status)[2]


def test_status_counts_rows_segments_and_rejects(storage: Storage) -> None:
    put(storage, *talk("c1", 3), thumb("t", "c1-m1", 1))
    (segment,) = storage.path("inbox").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes() + b"no json\n")
    commit_inbox(storage)
    put(storage, *talk("c2"))
    with SegmentWriter(storage.path("inbox"), "r", 60, 10_000_000) as writer:
        writer.append(talk("c3"))
        status = log_status(storage)
    assert (status.head, status.rows) == (4, {"feedback": 1, "message": 3})
    assert (status.sealed, status.open, status.archived, status.rejected) == (1, 1, 1, 1)
    assert status.oldest_waiting is not None and status.last_commit is not None
    assert status.table_files == 1 and status.table_bytes > 0
    assert "1 sealed segments" in status_lines(status)[3]


# compact


def test_compacting_keeps_every_row_and_its_commit_seq_and_puts_conversations_together(
    storage: Storage,
) -> None:
    for turn in range(4):
        commit(storage, *[said(f"c{c}", turn, f"words {turn}") for c in (2, 0, 1)])
    commit(storage, thumb("t", "c0-m1", -1, conversation="c0"))
    before = by_seq(rows(storage))
    done = compact(storage, keep_hours=0)
    assert (done.files_before, done.files_after, done.rows) == (5, 1, 13)
    assert done.removed >= 5
    after = rows(storage)
    assert by_seq(after) == before and head(storage) == 13
    places = [(row["conversation_id"], row["position"]) for row in after]
    assert places == [
        *[("c0", 0), ("c0", 1), ("c0", 2), ("c0", 3), ("c0", None)],
        *[(c, position) for c in ("c1", "c2") for position in range(4)],
    ]
    assert len(list(storage.path("interactions").glob("*.parquet"))) == 1
    assert verify(storage).damages == []
    commit(storage, *talk("c9"), *talk("c1"))
    assert committed_ids(storage)[-2:] == ["c9-0", "c9-1"]  # the log goes on, and still knows c1
    assert compact(storage).rows == 15


def test_compacting_twice_does_nothing_the_second_time(storage: Storage) -> None:
    for number in range(3):
        commit(storage, *talk(f"c{number}"))
    compact(storage)
    again = compact(storage)
    assert (again.files_before, again.files_after, again.rows) == (1, 1, 0)
    assert compact(Storage(storage.root / "elsewhere")).files_before == 0


def test_old_versions_stay_readable_for_the_hours_given(storage: Storage) -> None:
    for number in range(3):
        commit(storage, *talk(f"c{number}"))
    table = open_table(storage)
    assert table is not None
    assert compact(storage, keep_hours=168).removed == 0
    assert len(scan(storage, table, ["event_id"], None)) == 6


def test_large_files_stay_and_memory_is_bounded_by_a_section() -> None:
    def file(first: int, last: int, size: int) -> DataFile:
        return DataFile(f"{first}.parquet", size, last - first + 1, first, last)

    big, small, half = compact_module.SMALL, compact_module.SMALL // 8, compact_module.SMALL // 2
    files = [file(1, 10, small), file(11, 20, small), file(21, 90, big), file(91, 95, small)]
    assert sections(files) == [files[:2]]  # one small file alone is left
    many = [file(10 * n + 1, 10 * n + 10, half) for n in range(12)]
    found = sections(many)
    assert [one for section in found for one in section] == many
    assert all(sum(one.size for one in section) <= 3 * big for section in found)
    overlapping = [file(1, 50, big), file(10, 60, small), file(61, 70, small), file(71, 80, small)]
    assert sections(overlapping) == [overlapping[2:]]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_compaction_that_is_killed_changes_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def crash(*arguments: object, **options: object) -> None:
        if moment == "after":
            write_deltalake(*arguments, **options)  # type: ignore[call-overload]
        raise KeyboardInterrupt

    for number in range(4):
        commit(storage, *talk(f"c{number}"))
    before = by_seq(rows(storage))
    with monkeypatch.context() as patch:
        patch.setattr(compact_module, "write_deltalake", crash)
        with pytest.raises(KeyboardInterrupt):
            compact(storage)
    assert by_seq(rows(storage)) == before
    assert verify(storage).damages == []
    compact(storage, keep_hours=0)
    assert by_seq(rows(storage)) == before
    assert len(list(storage.path("interactions").glob("*.parquet"))) == 1


# verify


@pytest.fixture
def whole(storage: Storage) -> Storage:
    """Two commits from segments, one bulk append, a slice, and a segment that waits."""
    commit(storage, *talk("c1", 4), thumb("t", "c1-m1", 1))
    with committing(storage) as log:
        log.append(talk("bulk", 3))
    commit(storage, *talk("c2", 4))
    slices.pin(storage, "rounds/0001/collect", 0, head(storage))
    put(storage, *talk("c3"))
    return storage


def damages(storage: Storage) -> str:
    return "\n".join(verify(storage).damages)


def test_a_whole_log_has_no_damages(whole: Storage) -> None:
    found = verify(whole)
    assert found.damages == []
    assert (found.rows, found.archived, found.waiting, found.manifests) == (12, 9, 2, 1)


def test_an_empty_root_is_whole(storage: Storage) -> None:
    assert verify(storage).damages == []


def test_a_lost_table_is_told_and_made_again_from_the_archive(storage: Storage) -> None:
    commit(storage, *talk("c1", 4))
    for path in sorted(storage.path("interactions").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    storage.path("interactions").rmdir()
    assert "4 of its events are not in the table: `bb3x log restore`" in damages(storage)
    report = restore_archive(storage)
    assert (report.committed, report.duplicates) == (4, 0)
    assert restore_archive(storage).duplicates == 4
    assert damages(storage) == ""


def test_a_missing_and_a_cut_data_file_are_told(whole: Storage) -> None:
    table = open_table(whole)
    assert table is not None
    first, second, _ = [whole.path("interactions", file.path) for file in data_files(table)]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-5])
    text = damages(whole)
    assert f"{first} is missing" in text and f"{second} has" in text


def test_an_altered_data_file_is_told(whole: Storage) -> None:
    table = open_table(whole)
    assert table is not None
    path = whole.path("interactions", data_files(table)[0].path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert "cannot be read" in damages(whole)


def test_doubles_and_gaps_are_told(whole: Storage) -> None:
    table = open_table(whole)
    assert table is not None
    some = scan(whole, table, EVENT_SCHEMA.names, pc.field("commit_seq") == 2)
    write_deltalake(table, some, mode="append")
    table.delete("commit_seq = 7")
    text = damages(whole)
    assert "1 events are in the table more than once" in text
    assert "1 commit_seq were given twice (the first is 2)" in text
    assert "1 commit_seq up to 12 are missing (the first is 7)" in text


def test_what_tombstones_tell_is_no_gap(whole: Storage) -> None:
    table = open_table(whole)
    assert table is not None
    table.delete("commit_seq IN (6, 7, 12)")
    for path in whole.path("archive").rglob("*.jsonl"):
        path.write_bytes(b"".join(x for x in path.read_bytes().splitlines(True) if b"c2-3" not in x))
    stones = whole.path("tombstones")
    stones.mkdir()
    (stones / "a.json").write_text(json.dumps({"person": "0f", "seqs": [[6, 7]]}))
    (stones / "b.json").write_text(json.dumps({"person": "0e", "seqs": [[12, 12]]}))
    assert damages(whole) == ""


def test_an_index_that_disagrees_is_told_and_can_be_removed(whole: Storage) -> None:
    runs = sorted(whole.path("interactions_ids").glob("*.npy"))
    whole_run = np.load(runs[0])
    np.save(runs[0], whole_run[:-1])
    assert "lacks 1 events of the table" in damages(whole)
    np.save(runs[0], np.sort(np.append(whole_run, [b"0123456789abcdef", b"fedcba9876543210"])))
    assert "holds 2 events that the table does not have" in damages(whole)
    runs[0].write_bytes(b"broken")
    assert "cannot be read" in damages(whole)
    for run in runs:
        run.unlink()
    commit_inbox(whole)
    assert damages(whole) == ""


def test_an_altered_archive_is_told_but_a_known_reject_is_not(whole: Storage) -> None:
    put(whole, *talk("c4"))
    waiting = sorted(whole.path("inbox").glob("*.jsonl"))[-1]
    waiting.write_bytes(waiting.read_bytes() + b"never an event\n")
    commit_inbox(whole)
    assert damages(whole) == ""
    path = next(p for p in whole.path("archive").rglob("*.jsonl") if b"never" not in p.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"event_id"', b'"event_xx"', 1))
    text = damages(whole)
    assert path.name in text and "line 1" in text and "altered" in text


def test_altered_slices_and_rounds_that_do_not_follow_are_told(whole: Storage) -> None:
    slices.pin(whole, "rounds/0002/collect", 3, head(whole))
    assert "rounds/0002/collect begins after commit_seq 3, the round before ended at 12" in damages(whole)
    path: Path = whole.path("rounds/0001/collect/conversations.parquet")
    path.write_bytes(path.read_bytes() + b"x")
    assert "was altered after it was published" in damages(whole)


def test_the_inbox_of_another_folder_is_looked_at_too(storage: Storage, tmp_path: Path) -> None:
    inbox = open_inbox(str(tmp_path / "shared"))
    writer = inbox.writer("r", 60, 1_000_000)
    writer.append(talk("c1"))
    writer.close()
    assert log_status(storage, inbox).sealed == 1
    assert verify(storage, inbox).waiting == 2
    assert commit_inbox(storage, inbox).committed == 2
    assert not storage.path("archive").exists() and len(inbox.archived()) == 1
    assert verify(storage, inbox).archived == 2
