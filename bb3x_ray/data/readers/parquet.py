"""Events as rows of Parquet files: our own export, or any file with the columns of an event."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bb3x_ray.data.file_blocks import BLOCK_BYTES, Block
from bb3x_ray.data.parsed_rows import COLUMNS, PARSED_SCHEMA, with_digests
from bb3x_ray.schemas.conversation import AUTHOR_KINDS, LABELS
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import EVENT_SCHEMA, KINDS

# Without these a row is no event; what else is missing reads as empty.
_NEEDED = ("event_id", "kind", "at", "conversation_id", "person", "source", "consent_basis", "simulated")
_EMPTY = {"message_id": "", "comment": "", "correction": ""}


def blocks(number: int, file: Path) -> list[Block]:
    """Row groups of a file, some together. Raises UserError for a file that is not such a table."""
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError):
        raise UserError(
            f"{file} is not a Parquet file that can be read: check the format and the file."
        ) from None
    with parquet:
        missing = [name for name in _NEEDED if name not in parquet.schema_arrow.names]
        if missing:
            raise UserError(f"{file} lacks the columns {', '.join(missing)}: it holds no events of the log.")
        about = parquet.metadata
        sizes = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
    found: list[Block] = []
    start, size = 0, 0
    for i, its in enumerate(sizes):
        size += its
        if size >= BLOCK_BYTES or i == len(sizes) - 1:
            found.append(Block("parquet", number, str(file), "row_groups", start, i + 1, size))
            start, size = i + 1, 0
    return found


def read(block: Block) -> tuple[pa.Table, list[tuple[int, str, str]]]:
    """(good rows as PARSED_SCHEMA, (row number within the block, reason, the row as JSON) of the bad
    ones)."""
    with pq.ParquetFile(block.path) as file:
        there = [name for name in COLUMNS if name in file.schema_arrow.names]
        table = file.read_row_groups(list(range(block.start, block.end)), columns=there)
    try:
        events = _as_events(table)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        raise UserError(
            f"{block.path}: a column has a type that an event's cannot be made of: compare the file's schema "
            "with that of the log."
        ) from None
    bad = _reasons(events)
    good = pc.is_null(bad)
    rejected = events.filter(pc.invert(good)).to_pylist()
    rows = pc.indices_nonzero(pc.invert(good)).to_pylist()
    reasons = bad.drop_null().to_pylist()
    rejects = [
        (row + 1, reason, json.dumps(raw)) for row, reason, raw in zip(rows, reasons, rejected, strict=True)
    ]
    return with_digests(events.filter(good)), rejects


def _as_events(table: pa.Table) -> pa.Table:
    arrays = []
    for name in COLUMNS:
        type_ = EVENT_SCHEMA.field(name).type
        if name in table.column_names:
            column = table[name].cast(type_)
        else:
            column = pa.chunked_array([pa.nulls(len(table), type_)])
        if name in _EMPTY:
            column = pc.fill_null(column, _EMPTY[name])
        if name == "reasons":
            column = pc.if_else(pc.is_valid(column), column, pa.scalar([], type_))
        arrays.append(column)
    return pa.Table.from_arrays(arrays, schema=pa.schema([PARSED_SCHEMA.field(name) for name in COLUMNS]))


def _reasons(events: pa.Table) -> pa.ChunkedArray:
    """Why a row is no event, by the first rule that it breaks; null where it breaks none. The rules of
    `event_rows.check_event`, as far as the columns' types leave them open."""

    def false_or(mask: pa.ChunkedArray) -> pa.ChunkedArray:
        return pc.fill_null(mask, False)

    kind = events["kind"]
    message, feedback = false_or(pc.equal(kind, "message")), false_or(pc.equal(kind, "feedback"))
    no_message_id = pc.equal(events["message_id"], "")
    author = pc.and_(
        false_or(pc.is_in(events["author_kind"], pa.array(AUTHOR_KINDS, pa.string()))),
        false_or(pc.not_equal(events["author_name"], "")),
    )
    labels = false_or(pc.and_(pc.equal(kind, "annotation"), pc.invert(no_message_id)))
    label = false_or(pc.is_in(pc.binary_join(events["reasons"], ","), pa.array(LABELS, pa.string())))
    rating, weight = events["rating"], events["weight"]
    a_weight = pc.and_(pc.greater(weight, 0.0), pc.is_finite(weight))
    rules = [
        *((pc.is_null(events[name]), f"{name} is missing") for name in _NEEDED),
        (
            pc.or_(
                false_or(pc.equal(events["event_id"], "")), false_or(pc.equal(events["conversation_id"], ""))
            ),
            "event_id and conversation_id must not be empty",
        ),
        (
            pc.invert(false_or(pc.is_in(kind, pa.array(KINDS, pa.string())))),
            f"kind must be one of {', '.join(KINDS)}",
        ),
        (pc.and_(message, pc.invert(author)), "a message needs its author"),
        (pc.and_(message, pc.is_null(events["position"])), "a message needs its position"),
        (pc.and_(message, no_message_id), "a message needs its message_id"),
        (
            pc.and_(feedback, false_or(pc.not_equal(pc.abs(rating), 1))),
            "the rating of a feedback must be 1, -1 or null",
        ),
        (pc.and_(feedback, no_message_id), "a feedback needs the message_id of the reply it is about"),
        (pc.invert(pc.fill_null(a_weight, True)), "weight must be a number above 0"),
        (
            pc.and_(labels, pc.invert(label)),
            f"the reasons of a message's annotation must be one of {', '.join(LABELS)}",
        ),
        (
            pc.and_(labels, pc.invert(false_or(pc.not_equal(events["author_name"], "")))),
            "a message's annotation needs its rater as author_name",
        ),
    ]
    found = pa.chunked_array([pa.nulls(len(events), pa.string())])
    for broken, reason in reversed(rules):
        found = pc.if_else(broken, pa.scalar(reason, pa.string()), found)
    return found
