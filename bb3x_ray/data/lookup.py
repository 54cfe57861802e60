"""What the log holds of one person, up to the event that was acknowledged last.

Segments are looked through first (open ones too), then the table: what is committed meanwhile is found twice
rather than not at all. Of the table only the row groups are read that hold the person. Which those are is
remembered, as 64-bit hashes, for each of its files and for each sealed segment: neither ever changes, except
that an erasure takes lines out of a segment.
"""

import json
import re
from collections.abc import Iterable

import numpy as np
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import DeltaTable

from bb3x_ray.data.committer import inboxes, read_lines
from bb3x_ray.data.damage import readable
from bb3x_ray.data.inbox import Inbox
from bb3x_ray.data.table import TABLE, data_files, open_table
from bb3x_ray.data.tombstones import pending_of, stone_of
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import EVENT_SCHEMA, ONE_CONVERSATION, Event, with_copies
from bb3x_ray.storage import Storage

# In a line of a segment; within somebody's words the quotes have a backslash before them.
_PERSON = re.compile(rb'"person": "((?:[^"\\]|\\.)*)"')
_TRIES = 3  # a file of the table may go while it is looked at: somebody was erased, or files were joined


class Lookup:
    """Of one storage root; to be used by many threads.

    inbox   where replicas write, if not under the root
    """

    def __init__(self, storage: Storage, inbox: Inbox | None = None) -> None:
        self._storage = storage
        self._places = inboxes(storage, inbox)
        self._segments: dict[str, np.ndarray] = {}  # name -> [N] hashes of its people
        self._files: dict[str, list[np.ndarray]] = {}  # path -> the same for each row group

    def of_person(self, person: str) -> list[Event]:
        """All events of the person, in the order of time; none of what was erased or waits to be.

        Raises UserError when the table is damaged.
        """
        if not person:
            return []
        waiting = self._unarchived(person)
        found = {event.event_id: event for event in (*waiting, *self._committed(person))}
        copies = {one for event_id in found for one in list(with_copies([event_id]))[1:]}
        events = [event for event_id, event in found.items() if event_id not in copies]
        return sorted(self._not_erased(person, events), key=lambda event: (event.at, event.position or 0))

    def _not_erased(self, person: str, events: list[Event]) -> list[Event]:
        until: dict[str, int] = {}  # conversation, or "" for all: up to when it is gone
        for about in {"", *(event.conversation_id for event in events)}:
            stone, asked = stone_of(self._storage, person, about), pending_of(self._storage, person, about)
            until[about] = stone.at if stone else -1
            if asked is not None:
                last = max((event.at for event in events), default=-1) if asked.at is None else asked.at
                until[about] = max(until[about], last)
        for event in events:
            if event.kind == "erasure":
                about = event.conversation_id if ONE_CONVERSATION in event.reasons else ""
                until[about] = max(until[about], event.at)
        return [e for e in events if e.at > max(until[""], until[e.conversation_id])]

    def _unarchived(self, person: str) -> list[Event]:
        name_in_line = json.dumps(person, ensure_ascii=False)[1:-1].encode()
        wanted, marked = hash(name_in_line), b'"person": "' + name_in_line + b'"'
        seen: set[str] = set()

        def may_hold(segment: str) -> bool:
            seen.add(segment)
            people = self._segments.get(segment)
            return people is None or bool((people == wanted).any())

        found: list[Event] = []
        for place in self._places:
            for segment, data in place.unarchived(may_hold):
                if data and segment in seen and segment not in self._segments:
                    self._segments[segment] = _hashes(_PERSON.findall(data))
                lines = [line + b"\n" for line in data.split(b"\n")[:-1] if marked in line]
                found += read_lines(b"".join(lines))[0]
        for archived in set(self._segments) - seen:
            self._segments.pop(archived, None)
        return [event for event in found if event.person == person]

    def _committed(self, person: str) -> list[Event]:
        for tries_left in reversed(range(_TRIES)):
            try:
                table = open_table(self._storage)
                with readable(self._storage.path(TABLE)):
                    return self._read(table, person) if table else []
            except UserError:
                if not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    def _read(self, table: DeltaTable, person: str) -> list[Event]:
        paths = [file.path for file in data_files(table)]
        wanted = hash(person)
        found: list[Event] = []
        for path in paths:
            fragment = self._fragment(path)
            if path not in self._files:
                groups = fragment.split_by_row_group()
                self._files[path] = [_hashes(_people(group)) for group in groups]
            holding = [i for i, people in enumerate(self._files[path]) if (people == wanted).any()]
            if holding:
                of_these = fragment.subset(row_group_ids=holding)
                rows = of_these.to_table(schema=EVENT_SCHEMA, filter=ds.field("person") == person)
                found += [_event(row) for row in rows.to_pylist()]
        for gone in set(self._files) - set(paths):
            self._files.pop(gone, None)
        return found

    def _fragment(self, path: str) -> ds.ParquetFileFragment:
        files = pafs.SubTreeFileSystem(str(self._storage.path(TABLE)), pafs.LocalFileSystem())
        # With a schema of ours: Delta gives string views to files that it rewrote.
        dataset = ds.dataset([path], schema=EVENT_SCHEMA, format="parquet", filesystem=files)
        return next(iter(dataset.get_fragments()))


def _people(fragment: ds.ParquetFileFragment) -> list[str]:
    rows = fragment.to_table(schema=EVENT_SCHEMA, columns=["person"])
    people: list[str] = rows["person"].unique().drop_null().to_pylist()
    return people


def _hashes(names: Iterable[str | bytes]) -> np.ndarray:
    """[N] int64, each once."""
    return np.array(list({hash(name) for name in names}), dtype=np.int64)


def _event(row: dict[str, object]) -> Event:
    """A row; what older files of the table lack is what an event has by default."""
    return Event.from_dict({name: value for name, value in row.items() if value is not None})
