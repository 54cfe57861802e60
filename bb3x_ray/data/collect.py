"""What a round takes from the log: whole conversations, once they have been quiet, as a stream of tables."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.consented import consented, is_withdrawn
from bb3x_ray.data.shard import each, runs
from bb3x_ray.data.shards import plan_shards
from bb3x_ray.schemas.event import IS_FEEDBACK
from bb3x_ray.storage import Storage

COLUMNS = (
    "conversation_id",
    "person",
    "source",
    "consent_basis",
    "simulated",
    "at",
    "message_id",
    "position",
    "author_kind",
    "author_name",
    "text",
    "finish_reason",
    "reasons",
    "commit_seq",
)
KINDS = ("message", "feedback", "annotation", "consent")

# taught_before   an earlier range gave this message out (its conversation went on after it had been quiet):
#                 it is context and teaches no second time
# is_feedback     see schemas.conversation.Message
MESSAGE = pa.struct(
    [
        ("message_id", pa.string()),
        ("author_kind", pa.string()),
        ("author_name", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("taught_before", pa.bool_()),
        ("is_feedback", pa.bool_()),
    ]
)
FEEDBACK = pa.struct(
    [
        ("event_id", pa.string()),
        ("message_id", pa.string()),
        ("person", pa.string()),
        ("rating", pa.int8()),
        ("reasons", pa.list_(pa.string())),
        ("comment", pa.string()),
        ("correction", pa.string()),
    ]
)
ANNOTATION = pa.struct(
    [
        ("event_id", pa.string()),
        ("message_id", pa.string()),
        ("rater", pa.string()),
        ("label", pa.string()),
        ("weight", pa.float64()),
    ]
)
# One row a conversation; `annotation` is its standing rating from 1 to 5, or null; `annotations` are those of
# its messages.
SLICE_SCHEMA = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("person", pa.string()),
        ("source", pa.string()),
        ("consent_basis", pa.string()),
        ("simulated", pa.bool_()),
        ("annotation", pa.int8()),
        ("messages", pa.list_(MESSAGE)),
        ("feedback", pa.list_(FEEDBACK)),
        ("annotations", pa.list_(ANNOTATION)),
    ]
)


@dataclass(frozen=True, slots=True)
class Range:
    """Which conversations: those with a message in commit_seq (after_seq, upto_seq], and the waiting ones.

    quiet_before_us   only those whose last message was said before (microseconds since 1970); None: all
    waiting           conversations that the range before did not take yet -> the last commit_seq of theirs
                      that was given out
    """

    after_seq: int
    upto_seq: int
    quiet_before_us: int | None = None
    waiting: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotTaken:
    """What the stream left out; whole when it has ended.

    waiting     conversations that are not quiet yet, for the next range's `waiting`
    withdrawn   so are those whose person took consent back: it may be given again
    left_out    conversations by reason
    """

    waiting: dict[str, int] = field(default_factory=dict)
    withdrawn: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def collect(storage: Storage, range_: Range, not_taken: NotTaken) -> Iterator[pa.Table]:
    """Tables of SLICE_SCHEMA; conversations in the order in which files of the log hold them.

    Nothing beyond `upto_seq` is looked at, so the same range gives the same answer for ever. Memory: a few
    batches of rows, and the ids of all conversations while their files are sought.
    """
    plan = plan_shards(
        storage, COLUMNS, range_.upto_seq, KINDS, after_seq=range_.after_seq, also=range_.waiting
    )
    for rows in each(plan, pa.Table.combine_chunks):
        taken = _taken(rows, range_, not_taken)
        if len(taken):
            yield _by_conversation(taken)


def _taken(rows: pa.Table, range_: Range, not_taken: NotTaken) -> pa.Table:
    """The rows that the range takes, with the column `taught_before`."""
    if not len(rows):
        return rows
    starts = runs(rows["conversation_id"])
    ids, seq = rows["conversation_id"].take(pa.array(starts)).to_pylist(), rows["commit_seq"].to_numpy()
    before = [range_.waiting.get(one) for one in ids]
    given_out = np.array([range_.after_seq if seq is None else seq for seq in before])
    was_waiting = np.array([seq is not None for seq in before])
    taken = was_waiting | (np.maximum.reduceat(seq, starts) > range_.after_seq)
    busy = np.zeros(len(starts), dtype=bool)
    if range_.quiet_before_us is not None:
        busy = taken & (np.maximum.reduceat(rows["at"].to_numpy(), starts) >= range_.quiet_before_us)
    withdrawn = taken & ~busy & np.logical_or.reduceat(is_withdrawn(rows).to_numpy(), starts)
    for place in np.flatnonzero(busy | withdrawn).tolist():
        later = not_taken.waiting if busy[place] else not_taken.withdrawn
        later[ids[place]] = int(given_out[place])
    sizes = np.diff(np.append(starts, len(rows)))
    rows = rows.append_column("taught_before", pa.array(seq <= np.repeat(given_out, sizes)))
    return consented(rows.filter(pa.array(np.repeat(taken & ~busy, sizes))), not_taken.left_out)


def _by_conversation(rows: pa.Table) -> pa.Table:
    """Rows of messages as rows of SLICE_SCHEMA, without a copy of the texts."""
    rows = rows.combine_chunks()
    starts = runs(rows["conversation_id"])
    first = rows.take(pa.array(starts))
    offsets = pa.array(np.append(starts, len(rows)).astype(np.int32))
    simulated = np.logical_or.reduceat(rows["simulated"].to_numpy(), starts)
    rows = rows.append_column("is_feedback", pa.array(_is_feedback(rows["reasons"])))
    messages = pa.StructArray.from_arrays([_one(rows[f.name]) for f in MESSAGE], fields=list(MESSAGE))
    columns = {name: first[name] for name in SLICE_SCHEMA.names if name in first.column_names}
    columns["simulated"] = pa.array(simulated)
    columns["messages"] = pa.ListArray.from_arrays(offsets, messages)
    columns["feedback"] = _of_messages(rows, starts, "feedback", FEEDBACK)
    columns["annotations"] = _of_messages(rows, starts, "annotations", ANNOTATION)
    return pa.table([columns[name] for name in SLICE_SCHEMA.names], schema=SLICE_SCHEMA)


def _is_feedback(reasons: pa.ChunkedArray) -> np.ndarray:
    """[N] messages that are marked so."""
    lists = _one(reasons)
    marked = np.zeros(len(lists), dtype=bool)
    says_so = pc.fill_null(pc.equal(lists.flatten(), IS_FEEDBACK), False).to_numpy(zero_copy_only=False)
    marked[pc.list_parent_indices(lists).to_numpy()[says_so]] = True
    return marked


def _of_messages(rows: pa.Table, starts: np.ndarray, name: str, type_: pa.StructType) -> pa.Array:
    """What stands of each message, gathered by conversation."""
    column = _one(rows[name])
    said, of_row = column.flatten(), pc.list_parent_indices(column)
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(np.add.reduceat(counts, starts))]).astype(np.int32)
    about = {"message_id": rows["message_id"].take(of_row).combine_chunks()}
    about |= {one.name: said.field(one.name) for one in said.type}
    values = pa.StructArray.from_arrays([about[f.name] for f in type_], fields=list(type_))
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
