"""The one committer: sealed segments become rows of the interactions table, each event once.

Order of work, so that a crash at any point loses nothing and doubles nothing:
  1. take the lease (a lock that the kernel frees when its holder dies)
  2. write the plan: which segments, and the table's head before the commit
  3. commit to Delta, with the new head as the transaction's version
  4. archive the segments, remove the plan
A plan that is found at 1 was committed if the table's transaction version is above the plan's head:
then only 4 is left. Delta itself accepts a transaction's version twice, so we look at it ourselves.
Event ids that the log holds are dropped too, which also covers events sent twice.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError
from filelock import FileLock, Timeout

from bb3x_ray.data.event_rows import parse_line, to_table
from bb3x_ray.data.inbox import INBOX, FolderInbox, Inbox, Segment, open_inbox
from bb3x_ray.data.known_ids import KnownIds
from bb3x_ray.data.parsed_rows import digests_in, digests_of
from bb3x_ray.data.segments import DISK_FULL
from bb3x_ray.data.table import (
    APP_ID,
    IDS,
    STATS_COLUMNS,
    create_table,
    head_of,
    open_table,
    scan,
    sync_newest,
)
from bb3x_ray.data.tombstones import Request, Tombstones, ask_for_erasure
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import EVENT_SCHEMA, ONE_CONVERSATION, Event, with_copies
from bb3x_ray.storage import Storage, fsync_path, read_json, write_atomic, write_json

REJECTS = "rejects"
_PLAN = "commit_plan.json"
_BATCH_BYTES = 64_000_000  # segments committed together, so that memory stays bounded
_LEASE_SECONDS = 120.0
FILE_BYTES = 2_000_000_000  # more than a commit: each is one file
# Small row groups let readers hold little. A dictionary of what hardly repeats is work for nothing, and what
# people wrote has no business in the statistics of a file. Zstandard at its quickest: Snappy's files are half
# as large again or more, take no less time to write, and more to read.
WRITER = WriterProperties(
    compression="ZSTD",
    compression_level=1,
    max_row_group_size=65_536,
    default_column_properties=ColumnProperties(statistics_enabled="NONE"),
    column_properties={
        **dict.fromkeys(STATS_COLUMNS, ColumnProperties(statistics_enabled="CHUNK")),
        **dict.fromkeys(
            ("event_id", "message_id"),
            ColumnProperties(dictionary_enabled=False, statistics_enabled="CHUNK"),
        ),
        **dict.fromkeys(
            ("text", "details"), ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")
        ),
    },
)


@dataclass(frozen=True, slots=True)
class CommitReport:
    """Events newly in the table, events it already held, and lines that were no events."""

    committed: int
    duplicates: int
    rejected: int

    def __add__(self, other: "CommitReport") -> "CommitReport":
        return CommitReport(
            self.committed + other.committed,
            self.duplicates + other.duplicates,
            self.rejected + other.rejected,
        )


class LogTable:
    """The table, open for appending. Only under the lease."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._table = open_table(storage) or create_table(storage)
        self.head = head_of(self._table)
        self._known = KnownIds(storage.path(IDS), self.head, self._ids_after)

    def append(self, events: Sequence[Event]) -> int:
        """Commit what is new of `events`, in their order. Returns how many that were."""
        stones = Tombstones(self._storage)
        events = [event for event in events if not stones.covers(event)]
        # A client that sends a reply of ours back adds nothing: the reply makes its copy's id known, too.
        ids = [list(with_copies([event.event_id])) for event in events]
        digests = digests_of(one for of_event in ids for one in of_event)
        own = np.cumsum([0, *map(len, ids)])[:-1]  # the place of each event's own id
        new = self._known.new(digests)
        fresh = [event for event, is_new in zip(events, new[own], strict=True) if is_new]
        for event in fresh:
            if event.kind == "erasure":
                only = event.conversation_id if ONE_CONVERSATION in event.reasons else ""
                ask_for_erasure(self._storage, Request(event.person, conversation=only, at=event.at))
        return self._commit(to_table(fresh, self.head + 1), digests[new])

    def append_rows(self, parsed: pa.Table) -> int:
        """The same for columns of PARSED_SCHEMA without `about`, which were checked when they were made.

        The commit is one file of the table, where a conversation's rows stand next to each other.
        """
        digests = digests_in(parsed["digest"])
        new = self._known.new(digests) & ~Tombstones(self._storage).cover_rows(parsed)
        rows = parsed.drop_columns("digest")
        if not new.all():
            rows, digests = rows.filter(pa.array(new)), digests[new]
        numbers = pa.array(np.arange(self.head + 1, self.head + 1 + len(rows)))
        return self._commit(rows.add_column(0, EVENT_SCHEMA.field("commit_seq"), numbers), digests)

    def _commit(self, rows: pa.Table, digests: np.ndarray) -> int:
        if not len(rows):
            return 0
        head = self.head + len(rows)
        write_deltalake(
            self._table,
            rows,
            mode="append",
            schema_mode="merge",  # older tables lack the newer columns; their rows read as null
            target_file_size=FILE_BYTES,
            writer_properties=WRITER,
            commit_properties=CommitProperties(app_transactions=[Transaction(APP_ID, head)]),
        )
        sync_newest(self._storage, self._table)
        self._known.add(digests, head)
        self.head = head
        return len(rows)

    def _ids_after(self, seq: int) -> list[str]:
        ids = scan(self._storage, self._table, ["event_id"], ds.field("commit_seq") > seq)["event_id"]
        return list(with_copies(ids.to_pylist()))


@contextmanager
def lease(storage: Storage) -> Iterator[None]:
    """Nobody else writes to the table meanwhile; the kernel frees the lease when its holder dies.

    Raises UserError when another process holds it for two minutes, or the disk is full.
    """
    storage.root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(storage.path("committer.lock"), timeout=_LEASE_SECONDS):
            yield
    except Timeout:
        raise UserError(
            f"another process has been committing to the log under {storage.root} for two minutes: "
            "wait for it, or stop it, and run this again."
        ) from None
    except (OSError, DeltaError) as error:
        if not _is_disk_full(error):
            raise
        raise UserError(
            f"no space left under {storage.root} for the interaction log: free some disk space and run the "
            "same command again; nothing is lost, and nothing will be counted twice."
        ) from None


@contextmanager
def committing(storage: Storage) -> Iterator[LogTable]:
    """The log table under the lease, after an interrupted commit was brought to its end.

    Raises UserError as `lease` does.
    """
    with lease(storage):
        _finish_plan(storage)
        yield LogTable(storage)


def _is_disk_full(error: Exception) -> bool:
    """Delta Lake reports what the system said as words only."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return True
    return any(f"(os error {number})" in str(error) for number in DISK_FULL)


def commit_inbox(storage: Storage, inbox: Inbox | None = None) -> CommitReport:
    """Move every event of sealed segments (and of those whose writer died) into the table.

    inbox   where replicas write, if not under the storage root; what waits there is committed all the same

    Raises UserError when another committer holds the lease, or the disk is full.
    """
    total = CommitReport(0, 0, 0)
    with committing(storage) as log:
        for place in inboxes(storage, inbox):
            place.take_over()
            for batch in _batches(place.waiting()):
                total += _commit_batch(storage, log, place, batch)
    return total


def inboxes(storage: Storage, inbox: Inbox | None = None) -> list[Inbox]:
    """The storage root's own, and `inbox` if that is another."""
    own = FolderInbox(storage.root)
    return [own] if inbox is None or inbox.address == own.address else [own, inbox]


def restore_archive(storage: Storage, inbox: Inbox | None = None) -> CommitReport:
    """Commit again what the archive holds and the table does not: after a table was lost or damaged."""
    total = CommitReport(0, 0, 0)
    with committing(storage) as log:
        for place in inboxes(storage, inbox):
            for batch in _batches(place.archived()):
                events = [
                    event
                    for data in place.read_archived([segment.name for segment in batch])
                    for event in read_lines(data)[0]
                ]
                new = log.append(events)
                total += CommitReport(new, len(events) - new, 0)
    return total


def read_lines(data: bytes) -> tuple[list[Event], list[tuple[int, str, str]]]:
    """The events of a segment, and its rejects: line number, reason, raw text."""
    events, rejects = [], []
    # A last line without its newline was never acknowledged: its writer died in the middle of it.
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            events.append(parse_line(line))
        except ValueError as error:
            rejects.append((number, str(error), line.decode("utf-8", "replace")))
    return events, rejects


def write_rejects(storage: Storage, name: str, rejects: Sequence[tuple[int, str, str]]) -> None:
    """Keep what could not be read as `rejects/<name>.jsonl`: line number, reason, and the raw text."""
    if rejects:
        lines = [json.dumps({"line": line, "reason": reason, "raw": raw}) for line, reason, raw in rejects]
        write_atomic(storage.path(REJECTS, f"{name}.jsonl"), "\n".join(lines) + "\n")


def _batches(segments: list[Segment]) -> Iterator[list[Segment]]:
    batch: list[Segment] = []
    size = 0
    for segment in segments:
        batch.append(segment)
        size += segment.size
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _commit_batch(storage: Storage, log: LogTable, inbox: Inbox, batch: list[Segment]) -> CommitReport:
    names = [segment.name for segment in batch]
    events: list[Event] = []
    rejected = 0
    for name, data in zip(names, inbox.read(names), strict=True):
        good, rejects = read_lines(data)
        write_rejects(storage, Path(name).stem, rejects)
        events += good
        rejected += len(rejects)
    stones = Tombstones(storage)
    if any(stones.covers(event) for event in events):
        # What an erased person had said, and came late, goes no further: not even into the archive.
        inbox.rewrite(lambda line: not stones.covers_line(line))
    elsewhere = "" if inbox.address == str(storage.root) else inbox.address
    write_json(storage.path(INBOX, _PLAN), {"head": log.head, "segments": names, "inbox": elsewhere})
    new = log.append(events)
    _archive(storage, inbox, names)
    return CommitReport(new, len(events) - new, rejected)


def _finish_plan(storage: Storage) -> None:
    path = storage.path(INBOX, _PLAN)
    if not path.exists():
        return
    plan: dict[str, Any] = read_json(path)
    table: DeltaTable | None = open_table(storage)
    if head_of(table) > plan["head"]:
        _archive(storage, open_inbox(plan.get("inbox") or str(storage.root)), plan["segments"])
    else:
        path.unlink()  # nothing was committed: the segments are read again


def _archive(storage: Storage, inbox: Inbox, names: list[str]) -> None:
    """Out of the inbox, and the plan is done."""
    inbox.archive(names)
    storage.path(INBOX, _PLAN).unlink(missing_ok=True)
    fsync_path(storage.path(INBOX))
