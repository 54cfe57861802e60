"""One unit of work on the log: some Parquet files, read as a stream of whole conversations."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bb3x_ray.data.damage import readable
from bb3x_ray.data.in_order import Threads, threads
from bb3x_ray.data.standing import ADDED, SIDE_COLUMNS, with_standing
from bb3x_ray.schemas.event import EVENT_SCHEMA

# Rows handled at once: their columns stay in the processor's caches.
BATCH_ROWS = 16_384
# Row groups of no more rows, as our writers make them, are decoded whole, each by one thread.
_GROUP_ROWS = 131_072
# So many slices of a table are put together rather than copied.
_FEW = 64

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Shard:
    """What `read_shard` reads. Pickles to a few hundred bytes plus `late` and the crossing ids.

    files     paths, oldest commit first
    columns   of EVENT_SCHEMA, as they come out
    kinds     "message", and what is joined to messages: see `standing.with_standing`
    upto_seq  later commits are not looked at; None: all
    only      the conversations that are gathered here because they cross files; None: all others
    without   conversations of these files that another shard gathers
    late      side rows of these conversations that lie in other files (SIDE_COLUMNS)
    lazy      columns that come out as dictionaries of themselves: rows can be left out without a copy of
              their bytes, and `plain` makes strings of what is left
    """

    files: tuple[str, ...]
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    upto_seq: int | None
    only: frozenset[str] | None
    without: frozenset[str]
    late: pa.Table
    lazy: tuple[str, ...] = ()


def read_shard(shard: Shard) -> pa.Table:
    """All of a shard at once."""
    return pa.concat_tables(iter_shard(shard))


def iter_shard(shard: Shard) -> Iterator[pa.Table]:
    """A shard as a stream of tables of whole conversations; at least one table, which may be empty."""
    return each([shard], lambda rows: rows, count=1)


def each(
    shards: Iterable[Shard], work: Callable[[pa.Table], Result], count: int | None = None
) -> Iterator[Result]:
    """work(rows) of every table of whole conversations, in the order of `shards`.

    Files are decoded, conversations put together and `work` done by `count` threads, some tables ahead of
    what is taken; None: as many as there are cores. Raises what `work` raises.
    """
    with threads(count) as crew:

        def one(piece: tuple[Shard, pa.Table]) -> Result:
            shard, rows = piece
            return work(_whole(rows, shard))

        yield from crew.in_order(one, ((shard, rows) for shard in shards for rows in _pieces(shard, crew)))


def _pieces(shard: Shard, crew: Threads) -> Iterator[pa.Table]:
    """The shard's rows, each conversation's in one table; at least one table, which may be empty.

    A conversation is held back until its last row was read. Where writers keep conversations together,
    one is held; where they are mixed, at worst the shard is.
    """
    index = read_index(shard.files, shard.upto_seq)
    wanted = _wanted(index, shard)
    last_row = _last_rows(index["conversation_id"], wanted)
    held: list[pa.Table] = []
    waiting: list[np.ndarray] = []  # for each held row, the last row of its conversation
    yielded = False
    for begin, batch in _batches(shard, wanted, crew):
        end = begin + len(batch)
        mine = wanted[begin:end]
        held.append(batch if mine.all() else batch.filter(pa.array(mine)))
        waiting.append(last_row[begin:end][mine])
        last = np.concatenate(waiting)
        complete = last < end
        if not complete.any():
            continue
        rows = pa.concat_tables(held)
        done, rest = _split(rows, complete)
        held, waiting = [rest], [last[~complete]]
        yielded = True
        yield done
    if not yielded:
        yield _lazy(empty(_columns_to_read(shard)), shard.lazy)


def _whole(rows: pa.Table, shard: Shard) -> pa.Table:
    """Messages in order, each conversation in one piece, with what stands of them, as `shard.columns`."""
    is_message = pc.equal(rows["kind"], "message")
    side_kinds = [kind for kind in shard.kinds if kind != "message"]
    messages = rows.select(_columns_of_messages(shard))
    if pc.all(is_message).as_py() is False:
        messages = messages.filter(is_message)
    messages = _in_order(messages)
    if side_kinds:
        here = rows.select(SIDE_COLUMNS).filter(pc.invert(is_message))
        messages = with_standing(messages, pa.concat_tables([here, shard.late]), side_kinds)
    added = (name for kind in side_kinds for name in ADDED[kind])
    return messages.select([*shard.columns, *added])


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A lazy column's strings; any other column as it is."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _plain(rows: pa.Table) -> pa.Table:
    for place, name in enumerate(rows.column_names):
        rows = rows.set_column(place, name, plain(rows[name]))
    return rows


def _in_order(messages: pa.Table) -> pa.Table:
    """By conversation (as they begin), then position; of two at one position the later commit.

    Delta's writer shuffles pieces of some thousand rows; so whole runs of rows are put in order first.
    """
    if not len(messages):
        return messages
    position, starts = messages["position"].to_numpy(), runs(messages["conversation_id"])
    of_run = _codes(messages["conversation_id"].take(pa.array(starts)))
    sizes = np.diff(np.append(starts, len(messages)))
    sorted_runs = np.lexsort((position[starts], of_run))
    conversation = np.repeat(of_run[sorted_runs], sizes[sorted_runs])
    begins = np.cumsum(sizes[sorted_runs]) - sizes[sorted_runs]
    order = np.arange(len(messages)) + np.repeat(starts[sorted_runs] - begins, sizes[sorted_runs])
    ordered = position[order]
    if not np.all((np.diff(conversation) > 0) | (np.diff(ordered) > 0)):
        within = np.lexsort((messages["commit_seq"].to_numpy()[order], ordered, conversation))
        order, conversation, ordered = order[within], conversation[within], ordered[within]
        last = np.append((np.diff(conversation) != 0) | (np.diff(ordered) != 0), True)
        order = order[last]
    return _taken(messages, order)


def _taken(rows: pa.Table, order: np.ndarray) -> pa.Table:
    """Rows in `order`; without a copy where it consists of few stretches."""
    begins = np.flatnonzero(np.append(True, np.diff(order) != 1))
    if len(begins) > _FEW:
        return _plain(rows).take(pa.array(order))
    sizes = np.diff(np.append(begins, len(order))).tolist()
    pieces = [rows.slice(int(order[at]), size) for at, size in zip(begins, sizes, strict=True)]
    return pa.concat_tables(pieces)


def runs(ids: pa.ChunkedArray) -> np.ndarray:
    """Row numbers where a run of equal ids begins."""
    if not len(ids):
        return np.zeros(0, dtype=np.int64)
    column = in_one(ids)
    changes = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
    return np.flatnonzero(np.concatenate([[True], changes.to_numpy(zero_copy_only=False)]))


def _codes(ids: pa.ChunkedArray) -> np.ndarray:
    """[N] a number for each id, counted by first appearance."""
    codes: np.ndarray = in_one(ids).dictionary_encode().indices.to_numpy()
    return codes


def _split(rows: pa.Table, complete: np.ndarray) -> tuple[pa.Table, pa.Table]:
    """(rows of complete conversations, the others); without a copy where the others come last."""
    count = int(complete.sum())
    if complete[:count].all():
        return rows.slice(0, count), rows.slice(count)
    mask = pa.array(complete)
    return rows.filter(mask), rows.filter(pc.invert(mask))


# Reading files


def _columns_of_messages(shard: Shard) -> list[str]:
    """What is asked for, what puts messages in order, and what is said of them is found by."""
    needed = {"conversation_id", "position", "commit_seq", *shard.columns}
    if len(shard.kinds) > 1:
        needed |= {"person", "message_id"}
    return [name for name in EVENT_SCHEMA.names if name in needed]


def _columns_to_read(shard: Shard) -> list[str]:
    needed = {"kind", *_columns_of_messages(shard)}
    if len(shard.kinds) > 1:
        needed |= set(SIDE_COLUMNS)
    return [name for name in EVENT_SCHEMA.names if name in needed]


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group: `begin` is the number of its first row in the shard."""

    path: str
    metadata: pq.FileMetaData
    number: int
    begin: int


def _batches(shard: Shard, wanted: np.ndarray, crew: Threads) -> Iterator[tuple[int, pa.Table]]:
    """(number of the first row, rows), without the row groups of which no row is wanted."""

    def decode(group: _Group) -> Iterable[tuple[int, pa.Table]]:
        small = group.metadata.row_group(group.number).num_rows <= _GROUP_ROWS
        return list(_decoded(group, shard)) if small else _decoded(group, shard)

    for batches in crew.in_order(decode, _groups(shard, wanted)):
        yield from batches


def _groups(shard: Shard, wanted: np.ndarray) -> Iterator[_Group]:
    begin = 0
    for path in shard.files:
        with readable(path):
            metadata = pq.read_metadata(path)
        for number in range(metadata.num_row_groups):
            size = metadata.row_group(number).num_rows
            if wanted[begin : begin + size].any():
                yield _Group(path, metadata, number, begin)
            begin += size


def _decoded(group: _Group, shard: Shard) -> Iterator[tuple[int, pa.Table]]:
    columns, at = _columns_to_read(shard), group.begin
    with readable(group.path), pq.ParquetFile(group.path, metadata=group.metadata) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH_ROWS, [group.number], there, use_threads=False):
            yield at, _lazy(as_events(pa.Table.from_batches([batch]), columns), shard.lazy)
            at += len(batch)


def _lazy(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    number = pa.array(np.arange(len(rows), dtype=np.int32))
    for name in names:
        column = pa.DictionaryArray.from_arrays(number, in_one(rows[name]))
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def in_one(column: pa.ChunkedArray) -> pa.Array:
    """Without a copy where it is in one piece already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def as_events(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """`columns` with the types of EVENT_SCHEMA; null where a file is older than a column."""
    schema = pa.schema([EVENT_SCHEMA.field(name) for name in columns])
    arrays = []
    for field in schema:
        if field.name not in rows.column_names:
            arrays.append(pa.nulls(len(rows), field.type))
        else:
            column = rows[field.name]
            arrays.append(column if column.type == field.type else column.cast(field.type))
    return pa.table(arrays, schema=schema)


def empty(columns: Sequence[str]) -> pa.Table:
    return pa.schema([EVENT_SCHEMA.field(name) for name in columns]).empty_table()


def read_index(files: Sequence[str], upto_seq: int | None) -> pa.Table:
    """Every row's kind and conversation_id, and its commit_seq where `upto_seq` is given."""
    columns = ["kind", "conversation_id", *(["commit_seq"] if upto_seq is not None else [])]
    read = []
    for path in files:
        with readable(path):
            read.append(pq.read_table(path, columns=columns, partitioning=None, use_threads=False))
    return pa.concat_tables([as_events(rows, columns) for rows in read])


def _wanted(index: pa.Table, shard: Shard) -> np.ndarray:
    """[N] rows that this shard is about, of the kinds that it asks for."""
    mask = pc.is_in(index["kind"], pa.array(["message", *shard.kinds]))
    if shard.only is not None:
        mask = pc.and_(mask, pc.is_in(index["conversation_id"], pa.array(sorted(shard.only), pa.string())))
    elif shard.without:
        theirs = pc.is_in(index["conversation_id"], pa.array(sorted(shard.without), pa.string()))
        mask = pc.and_(mask, pc.invert(theirs))
    if shard.upto_seq is not None:
        mask = pc.and_(mask, pc.less_equal(index["commit_seq"], shard.upto_seq))
    wanted: np.ndarray = mask.to_numpy()
    if shard.only is not None and len(shard.kinds) > 1:
        # what is said of crossing conversations all travels in `late`
        wanted &= pc.equal(index["kind"], "message").to_numpy()
    return wanted


def _last_rows(ids: pa.ChunkedArray, wanted: np.ndarray) -> np.ndarray:
    """[N] for each row, the last wanted row of its conversation."""
    starts = runs(ids)
    sizes = np.diff(np.append(starts, len(ids)))
    conversation = _codes(ids.take(pa.array(starts)))  # of each run
    rows = np.flatnonzero(wanted)
    last = np.zeros(len(starts), dtype=np.int64)
    last[np.repeat(conversation, sizes)[rows]] = rows  # of equal indices the last one counts
    found: np.ndarray = np.repeat(last[conversation], sizes)
    return found
