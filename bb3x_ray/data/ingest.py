"""Recorded talk into the interaction log, past the segments: one Delta commit for many events."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bb3x_ray.data.committer import committing, write_rejects
from bb3x_ray.data.readers import convai2
from bb3x_ray.data.readers.json_records import OnReject
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage

FORMATS: dict[str, Callable[[Path, OnReject], Iterator[Event]]] = {"convai2": convai2.read}

_BATCH = 50_000  # events a commit


@dataclass(frozen=True, slots=True)
class IngestReport:
    """`conversations` and thumbs are those of the file; `rejected` holds (line, reason)."""

    events_new: int
    duplicates: int
    conversations: int
    thumbs_up: int
    thumbs_down: int
    rejected: list[tuple[int, str]]


def ingest(storage: Storage, path: str | Path, format: str) -> IngestReport:
    """Take a file of recorded talk into the log; what the log already holds is not added again.

    Damaged entries are reported with line and reason and kept under rejects/; the good ones count.
    Raises UserError for an unknown format, and for a file that is missing, empty, or without one good
    entry.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}: the formats are {', '.join(sorted(FORMATS))}.")
    path = Path(path)
    rejects: list[tuple[int, str, str]] = []
    tally = _Tally()
    events = FORMATS[format](path, lambda *reject: rejects.append(reject))
    first = list(islice(events, _BATCH))
    _keep_rejects(storage, path, format, rejects)
    if not first:
        raise UserError(
            f"{path}: not one entry could be read as {format} "
            f"({_first_reasons(rejects)}): check the format and the file."
        )
    new = 0
    with committing(storage) as log:
        batch = first
        while batch:
            new += log.append(batch)
            tally.count(batch)
            batch = list(islice(events, _BATCH))
    _keep_rejects(storage, path, format, rejects)
    return IngestReport(
        events_new=new,
        duplicates=tally.events - new,
        conversations=len(tally.conversations),
        thumbs_up=tally.thumbs[1],
        thumbs_down=tally.thumbs[-1],
        rejected=[(line, reason) for line, reason, _ in rejects],
    )


class _Tally:
    def __init__(self) -> None:
        self.events = 0
        self.conversations: set[str] = set()
        self.thumbs = {1: 0, -1: 0}

    def count(self, events: list[Event]) -> None:
        self.events += len(events)
        for event in events:
            self.conversations.add(event.conversation_id)
            if event.kind == "feedback" and event.rating is not None:
                self.thumbs[event.rating] += 1


def _keep_rejects(storage: Storage, path: Path, format: str, rejects: list[tuple[int, str, str]]) -> None:
    """One file per ingested path, so that ingesting it again replaces its rejects."""
    if rejects:
        name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
        write_rejects(storage, f"{format}-{name}", rejects)


def _first_reasons(rejects: list[tuple[int, str, str]]) -> str:
    return "; ".join(f"line {line}: {reason}" for line, reason, _ in rejects[:3]) or "it holds no entries"
