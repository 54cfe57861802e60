"""Rows of the log as plain tuples, in the order of `COLUMNS`: what readers of big files fill.

One dataclass a row would cost more than all the rest of reading it. A reader appends tuples to a list, and
takes them back (`del rows[before:]`) when the record turns out to be bad; `to_columns` makes a table of them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa

from bb3x_ray.data.event_rows import check_event
from bb3x_ray.schemas.event import EVENT_SCHEMA, Event

Row = tuple[Any, ...]

COLUMNS: tuple[str, ...] = tuple(name for name in EVENT_SCHEMA.names if name != "commit_seq")
# `digest` are the 16 bytes by which the log knows an event id. A row with `about` is no event: it is a JSON
# object that says what was read so far (see `parse`).
PARSED_SCHEMA = pa.schema(
    [
        *(EVENT_SCHEMA.field(name) for name in COLUMNS),
        pa.field("digest", pa.binary(16)),
        pa.field("about", pa.string()),
    ]
)
DIGEST = np.dtype("S16")

_values = attrgetter(*COLUMNS)


def row_of(event: Event) -> Row:
    """Raises ValueError with the reason why `event` cannot be a row of the log."""
    check_event(event)
    row: Row = _values(event)
    return row


def digests_of(event_ids: Iterable[str]) -> np.ndarray:
    """[N] digests of 128 bits: two ids that meet by chance would need more events than there will be."""
    sha256 = hashlib.sha256
    found = b"".join([sha256(event_id.encode()).digest()[:16] for event_id in event_ids])
    return np.frombuffer(found, dtype=DIGEST)


def digests_in(column: pa.ChunkedArray) -> np.ndarray:
    """[N] digests out of a column of `pa.binary(16)` without nulls."""
    pieces = [
        np.frombuffer(piece.buffers()[1], dtype=DIGEST)[piece.offset : piece.offset + len(piece)]
        for piece in column.chunks
        if len(piece)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, dtype=DIGEST)


def to_columns(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table of PARSED_SCHEMA, with their digests."""
    if not rows:
        return PARSED_SCHEMA.empty_table()
    columns = list(zip(*rows, strict=True))
    arrays = [_array(values, PARSED_SCHEMA.field(i).type) for i, values in enumerate(columns)]
    return with_digests(pa.Table.from_arrays(arrays, schema=_EVENTS_ONLY))


def with_digests(events: pa.Table) -> pa.Table:
    """`events` (the columns of COLUMNS) as a table of PARSED_SCHEMA."""
    digests = digests_of(events["event_id"].to_pylist())
    column = pa.Array.from_buffers(pa.binary(16), len(digests), [None, pa.py_buffer(digests.tobytes())])
    about = pa.nulls(len(events), pa.string())
    return pa.Table.from_arrays([*events.columns, column, about], schema=PARSED_SCHEMA)


def about_row(about: str) -> pa.Table:
    """A table of PARSED_SCHEMA with one row, which only says `about`."""
    arrays = [pa.nulls(1, field.type) for field in PARSED_SCHEMA][:-1]
    return pa.Table.from_arrays([*arrays, pa.array([about], pa.string())], schema=PARSED_SCHEMA)


_EVENTS_ONLY = pa.schema([EVENT_SCHEMA.field(name) for name in COLUMNS])


def _array(values: tuple[Any, ...], type: pa.DataType) -> pa.Array:
    first = values[0]
    # Many columns hold one object over and over: `count` finds that by identity, faster than a conversion.
    if not isinstance(first, list | tuple) and values.count(first) == len(values):
        return pa.repeat(pa.scalar(first, type), len(values))
    return pa.array(values, type)
