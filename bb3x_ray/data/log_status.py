"""What the interaction log holds, and what waits to get into it. Only looks: nothing is changed."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from bb3x_ray.data.committer import REJECTS, inboxes
from bb3x_ray.data.inbox import Inbox
from bb3x_ray.data.segments import begun_at
from bb3x_ray.data.table import data_files, head_of, open_table, stream
from bb3x_ray.storage import Storage


@dataclass(frozen=True, slots=True)
class LogStatus:
    """
    head             last commit_seq
    rows             kind -> rows of the table
    table_*          files and bytes of the newest version; `last_commit` in ISO 8601, None before the first
    sealed, open     segments that wait for the committer, and that are being written: how many, and bytes
    oldest_waiting   when the oldest of these was begun, ISO 8601
    archived         segments in the archive, and their bytes
    rejected         lines under rejects/
    """

    head: int
    rows: dict[str, int]
    table_version: int | None
    table_files: int
    table_bytes: int
    last_commit: str | None
    sealed: int
    sealed_bytes: int
    open: int
    open_bytes: int
    oldest_waiting: str | None
    archived: int
    archived_bytes: int
    rejected: int


def log_status(storage: Storage, inbox: Inbox | None = None) -> LogStatus:
    """The state of the log under `storage`, with the segments of `inbox` if replicas write elsewhere."""
    places = inboxes(storage, inbox)
    sealed = [segment for place in places for segment in place.waiting()]
    unsealed = [segment for place in places for segment in place.being_written()]
    archived = [segment for place in places for segment in place.archived()]
    begun = [begun_at(segment.name) for segment in (*sealed, *unsealed)]
    table = open_table(storage)
    files = data_files(table) if table else []
    rows: Counter[str] = Counter()
    if table:
        for batch in stream(storage, table, ["kind"]):
            for entry in batch["kind"].value_counts().to_pylist():
                rows[entry["values"]] += entry["counts"]
    return LogStatus(
        head=head_of(table),
        rows=dict(sorted(rows.items())),
        table_version=table.version() if table else None,
        table_files=len(files),
        table_bytes=sum(file.size for file in files),
        last_commit=_iso(table.history(1)[0]["timestamp"] / 1000) if table else None,
        sealed=len(sealed),
        sealed_bytes=sum(segment.size for segment in sealed),
        open=len(unsealed),
        open_bytes=sum(segment.size for segment in unsealed),
        oldest_waiting=min(begun).isoformat(timespec="seconds") if begun else None,
        archived=len(archived),
        archived_bytes=sum(segment.size for segment in archived),
        rejected=sum(path.read_bytes().count(b"\n") for path in storage.path(REJECTS).glob("*.jsonl")),
    )


def status_lines(status: LogStatus) -> list[str]:
    """The same for a person to read."""
    rows = ", ".join(f"{count} {kind}" for kind, count in status.rows.items()) or "none"
    waiting = (
        f"{status.sealed} sealed segments ({_size(status.sealed_bytes)}), {status.open} being written "
        f"({_size(status.open_bytes)})"
    )
    oldest = f", the oldest since {status.oldest_waiting}" if status.oldest_waiting else ""
    return [
        f"head      {status.head}",
        f"rows      {rows}",
        f"table     {status.table_files} files, {_size(status.table_bytes)}; last commit "
        f"{status.last_commit or 'never'}",
        f"waiting   {waiting}{oldest}",
        f"archive   {status.archived} segments, {_size(status.archived_bytes)}",
        f"rejected  {status.rejected} lines",
    ]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _size(count: int) -> str:
    for unit, of in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= of:
            return f"{count / of:.1f} {unit}"
    return f"{count} bytes"
