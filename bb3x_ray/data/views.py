"""The six views of BlenderBot 3x's release: the same talk, read as (context, label) examples.

    bot, human                    every message of that side that has a context
    bot-crowd, human-crowd        of these, the labels that crowdworkers annotated
    bot-standard, human-standard  of these, the conversations whose person never tripped a safety annotation

The context is everything said before, both sides and all kinds of messages. Of what the log holds
beyond a release: replies that a client only claims to have had are context and no label (law 7).
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.consented import consented
from bb3x_ray.data.label_info import has_key, label_info, thumbs, tripped
from bb3x_ray.data.shard import each, in_one, plain, runs
from bb3x_ray.data.shards import plan_shards
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
CHUNKS = 100
_FIRST_VALID, _FIRST_TRAIN = 3, 6

# What `examples` needs of the log.
COLUMNS = (
    "conversation_id",
    "person",
    "source",
    "consent_basis",
    "message_id",
    "position",
    "author_kind",
    "author_name",
    "text",
    "chunk",
    "details",
)
KINDS = ("message", "feedback", "consent")
LAZY = ("details",)

TURN = pa.struct([("sender", pa.string()), ("text", pa.string())])
# `context` is the earlier texts joined by newlines; `turns`, where asked for, has them with their senders.
EXAMPLE = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("person", pa.string()),
        ("message_id", pa.string()),
        ("position", pa.int32()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("author_kind", pa.string()),
        ("author_name", pa.string()),
        ("context", pa.large_string()),
        ("label", pa.string()),
        ("label_info", pa.string()),
        ("adversarial_human", pa.bool_()),
        ("thumb", pa.int8()),
    ]
)


@dataclass(frozen=True, slots=True)
class View:
    """`label`: whose messages are labels; `only`: which of them."""

    name: str
    label: Literal["bot", "human"]
    only: Literal["all", "crowd", "standard"] = "all"


VIEWS = {
    view.name: view
    for view in (
        View("bot", "bot"),
        View("human", "human"),
        View("bot-crowd", "bot", "crowd"),
        View("human-crowd", "human", "crowd"),
        View("bot-standard", "bot", "standard"),
        View("human-standard", "human", "standard"),
    )
}


def view_named(name: str) -> View:
    """Raises UserError, with the nearest name, for one that there is not."""
    if name not in VIEWS:
        raise UserError(wrong_name("view", name, VIEWS))
    return VIEWS[name]


def check_split(name: str) -> None:
    """Raises UserError, with the nearest name, for a split that there is not."""
    if name not in SPLITS:
        raise UserError(wrong_name("split", name, SPLITS))


def wrong_name(what: str, name: str, names: Iterable[str]) -> str:
    """One sentence: the nearest of `names`, and all of them."""
    near = get_close_matches(name.lower().replace("_", "-"), list(names), n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}? The" if near else "the"
    return f"there is no {what} {name!r}: {hint} {what}s are {', '.join(names)}."


def read_view(
    storage: Storage,
    view: View,
    split: str | None = None,
    upto_seq: int | None = None,
    with_turns: bool = False,
    left_out: Counter[str] | None = None,
    threads: int | None = None,
) -> Iterator[pa.Table]:
    """A view as a stream of tables of EXAMPLE, in the order of the log; see `examples`.

    threads  that read and make examples, some tables ahead of what is taken; None: as many as there are cores
    """

    def make(rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
        reasons: Counter[str] = Counter()
        return examples(rows, view, split, with_turns=with_turns, left_out=reasons), reasons

    for table, reasons in each(plan_shards(storage, COLUMNS, upto_seq, KINDS, lazy=LAZY), make, threads):
        if left_out is not None:
            for reason, count in reasons.items():
                left_out[reason] += count
        yield table


def examples(
    rows: pa.Table,
    view: View,
    split: str | None = None,
    *,
    with_turns: bool = False,
    left_out: Counter[str] | None = None,
) -> pa.Table:
    """The examples in `rows` (whole conversations with COLUMNS and KINDS), by conversation and position.

    split       of these conversations only; None: all
    with_turns  a column `turns` (list of TURN) instead of `context`
    left_out    is added to: conversations by reason (those of `consented`, `not_standard`,
                `safety_unknown`), labels by reason (`first_message`, `unverified`, `not_annotated`)

    label_info is a JSON object, what the source says of the label; thumbs given or taken back later
    have been brought into it. adversarial_human is null where no message of the person carries a
    safety annotation; such conversations are in no standard view. thumb is 1, -1, or null for none
    and for contradicting ones.
    """
    left_out = Counter() if left_out is None else left_out
    rows = consented(rows, left_out)
    if len(rows):
        rows = of_split(rows, split)
    if not len(rows):
        return _table(rows, np.zeros(0, int), np.zeros(0, int), rows, with_turns)
    starts = runs(rows["conversation_id"])
    first = np.repeat(starts, np.diff(np.append(starts, len(rows))))
    is_human = pc.equal(rows["author_kind"], "person").to_numpy()
    adversarial = _adversarial(rows["details"], is_human, starts)
    labels = is_human if view.label == "human" else ~is_human
    if view.only == "standard":
        standard = pc.fill_null(pc.invert(adversarial), False).to_numpy(zero_copy_only=False)
        _count_not_standard(adversarial.take(pa.array(starts)), left_out)
        labels = labels & standard
    begins = labels & (first == np.arange(len(rows)))
    unverified = labels & ~begins & pc.equal(rows["author_kind"], "unverified").to_numpy()
    left_out["first_message"] += int(begins.sum())
    left_out["unverified"] += int(unverified.sum())
    chosen = np.flatnonzero(labels & ~begins & ~unverified)
    if view.only == "crowd":
        annotated = has_key(_of(rows["details"], chosen), "mturk")
        left_out["not_annotated"] += int((~annotated).sum())
        chosen = chosen[annotated]
    return _table(
        rows, chosen, first[chosen], rows.append_column("adversarial_human", adversarial), with_turns
    )


# Splits


def chunk_of(conversation_id: str) -> int:
    """The chunk, 0 to 99, of a conversation that came without one: the same on every machine."""
    return int.from_bytes(hashlib.sha256(conversation_id.encode()).digest()[:8], "big") % CHUNKS


def split_of(chunk: int) -> Split:
    if chunk < _FIRST_VALID:
        return "test"
    return "valid" if chunk < _FIRST_TRAIN else "train"


def chunks(rows: pa.Table) -> np.ndarray:
    """[N] the chunk of each row: the release's, else by `chunk_of`."""
    chunk = rows["chunk"]
    if chunk.null_count:
        unknown = rows["conversation_id"].filter(pc.is_null(chunk)).unique()
        made = pa.array([chunk_of(one) for one in unknown.to_pylist()], pa.int16())
        by_hash = made.take(pc.index_in(rows["conversation_id"], unknown).combine_chunks())
        chunk = pc.coalesce(chunk, by_hash)
    numbers: np.ndarray = chunk.to_numpy()
    return numbers


def of_split(rows: pa.Table, split: str | None) -> pa.Table:
    """With the column `split`, if it is not there yet; only the rows of `split` where one is given."""
    if "split" in rows.column_names:
        return rows if split is None else rows.filter(pc.equal(rows["split"], split))
    number = chunks(rows)
    index = (number >= _FIRST_VALID).astype(np.int8) + (number >= _FIRST_TRAIN)
    names: tuple[Split, ...] = ("test", "valid", "train")
    rows = rows.append_column("split", pa.array(names).take(pa.array(index)))
    return rows if split is None else rows.filter(pa.array(index == names.index(split)))  # type: ignore[arg-type]


# Who is adversarial


def _adversarial(details: pa.ChunkedArray, is_human: np.ndarray, starts: np.ndarray) -> pa.Array:
    """[N] whether the conversation's person tripped an annotation; null where nothing is annotated."""
    trips, annotated = np.zeros(len(is_human), bool), np.zeros(len(is_human), bool)
    trips[is_human], annotated[is_human] = tripped(plain(details.filter(pa.array(is_human))))
    any_trip = np.logical_or.reduceat(trips, starts)
    unknown = ~np.logical_or.reduceat(annotated, starts) & np.logical_or.reduceat(is_human, starts)
    sizes = np.diff(np.append(starts, len(is_human)))
    return pa.array(np.repeat(any_trip, sizes), mask=np.repeat(unknown, sizes))


def _count_not_standard(of_conversations: pa.Array, left_out: Counter[str]) -> None:
    left_out["safety_unknown"] += of_conversations.null_count
    left_out["not_standard"] += int(pc.sum(of_conversations).as_py() or 0)


# The example's columns


def _table(
    rows: pa.Table, chosen: np.ndarray, first: np.ndarray, about: pa.Table, with_turns: bool
) -> pa.Table:
    """Rows `chosen` as examples; `first` is where the conversation of each begins."""
    if not len(chosen):
        empty = EXAMPLE.empty_table()
        return _with_turns(empty, pa.array([], pa.list_(TURN))) if with_turns else empty
    names = [name for name in about.column_names if name not in ("text", "details")]
    taken = about.select(names).take(pa.array(chosen))
    columns = {name: taken[name] for name in taken.column_names if name in EXAMPLE.names}
    columns["label"] = rows["text"].take(pa.array(chosen))
    columns["label_info"] = label_info(_of(rows["details"], chosen), taken["feedback"], taken["author_kind"])
    columns["thumb"] = thumbs(taken["feedback"])
    columns["context"] = (
        pa.nulls(len(chosen), pa.large_string()) if with_turns else _contexts(rows["text"], chosen, first)
    )
    table = pa.table({name: columns[name] for name in EXAMPLE.names}, schema=EXAMPLE)
    return _with_turns(table, _turns(rows, chosen, first)) if with_turns else table


def _of(details: pa.ChunkedArray, chosen: np.ndarray) -> pa.ChunkedArray:
    """Rows `chosen`, which ascend, as strings."""
    mask = np.zeros(len(details), dtype=bool)
    mask[chosen] = True
    return plain(details.filter(pa.array(mask)))


def _with_turns(table: pa.Table, turns: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index("context"), "turns", turns)


def _contexts(texts: pa.ChunkedArray, chosen: np.ndarray, first: np.ndarray) -> pa.Array:
    """Texts first … chosen - 1, joined by newlines.

    With a newline behind each text, a context is one stretch of the column's bytes less the last one. Arrow
    copies such stretches out of a column of views.
    """
    newline = pa.scalar("\n", pa.large_string())
    lines = in_one(
        pc.binary_join_element_wise(texts.cast(pa.large_string()), pa.scalar("", pa.large_string()), newline)
    )
    offsets = np.frombuffer(lines.buffers()[1], np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return _stretches(lines.buffers()[2], offsets[first], offsets[chosen] - 1).cast(pa.large_string())


# Arrow's string views: 16 bytes each, length, first four bytes, number of the buffer, where in the buffer;
# of up to 12 bytes the string itself follows the length. A place in a buffer is a number of 31 bits.
_SHORT = 12
_BUFFER_BYTES = 2**30


def _stretches(data: pa.Buffer, begin: np.ndarray, end: np.ndarray) -> pa.Array:
    """[N] string views of data[begin:end]; `data` is shared, not copied."""
    text = np.frombuffer(data, np.uint8)
    size = end - begin
    views = np.zeros((len(begin), 4), np.int32)
    views[:, 0], views[:, 2], views[:, 3] = size, begin // _BUFFER_BYTES, begin % _BUFFER_BYTES
    bytes_of = views.view(np.uint8)
    bytes_of[:, 4:8] = text[np.minimum(begin[:, None] + np.arange(4), len(text) - 1)]
    short, places = np.flatnonzero(size <= _SHORT), np.arange(_SHORT)
    itself = text[np.minimum(begin[short, None] + places, len(text) - 1)]
    bytes_of[short, 4:] = np.where(places < size[short, None], itself, 0)
    buffers = [data.slice(at) for at in range(0, len(text), _BUFFER_BYTES)]
    return pa.Array.from_buffers(pa.string_view(), len(begin), [None, pa.py_buffer(views), *buffers])


def _turns(rows: pa.Table, chosen: np.ndarray, first: np.ndarray) -> pa.Array:
    """[chosen] list of TURN: the messages first … chosen - 1."""
    count = chosen - first
    into = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    taken = pa.array(np.arange(into[-1]) - np.repeat(into[:-1], count) + np.repeat(first, count))
    is_human = pc.equal(rows["author_kind"].take(taken), "person").combine_chunks()
    sender = pc.if_else(is_human, "human", "bot")
    text = rows["text"].take(taken).combine_chunks()
    turns = pa.StructArray.from_arrays([sender, text], fields=list(TURN))
    return pa.ListArray.from_arrays(pa.array(into), turns, type=pa.list_(TURN))
