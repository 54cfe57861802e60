"""A round's own copy of what people said: pinned once, published whole, read by every later step."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bb3x_ray.data.collect import SLICE_SCHEMA, NotTaken, Range, collect
from bb3x_ray.data.deidentify import Deidentifier
from bb3x_ray.schemas.conversation import Annotation, Author, Conversation, Feedback, Message
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage, read_json, write_json

_FILE, _WAITING = "conversations.parquet", "waiting.json"
# Conversations in a row group: what is read, scored and rendered at once.
GROUP = 1024
_GROUP_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class SliceInfo:
    """What a slice holds; `left_out` counts conversations by reason (`waiting`: not quiet yet)."""

    conversations: int
    bot_turns: int
    thumbs_up: int
    thumbs_down: int
    people: int
    after_seq: int
    upto_seq: int
    left_out: dict[str, int]
    simulated: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """A published slice, read a group of conversations at a time. Pickles to its path."""

    path: Path

    @property
    def groups(self) -> int:
        count: int = pq.read_metadata(self.path).num_row_groups
        return count

    def table(self, group: int, columns: list[str] | None = None) -> pa.Table:
        """A group's rows of SLICE_SCHEMA."""
        with pq.ParquetFile(self.path) as file:
            return file.read_row_group(group, columns, use_threads=False)

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns)

    def conversations(self, which: Callable[[pa.Table], pa.Array] | None = None) -> Iterator[Conversation]:
        """In the order of the slice. `which`: a table of SLICE_SCHEMA -> [N] the rows that are wanted."""
        for table in self.tables():
            yield from conversations_of(table if which is None else table.filter(which(table)))

    def annotated(self) -> Iterator[tuple[Conversation, int]]:
        """The conversations that people rated as a whole, 1 to 5."""
        for table in self.tables():
            rated = table.filter(pc.is_valid(table["annotation"]))
            yield from zip(conversations_of(rated), rated["annotation"].to_pylist(), strict=True)

    def rated(
        self,
        standing: Mapping[str, tuple[Feedback, ...]],
        annotations: Mapping[str, tuple[Annotation, ...]] | None = None,
    ) -> Iterator[Conversation]:
        """The conversations with a message in `standing` or `annotations` (see `late_words`), which replace
        what was pinned. None: annotations stay as they were pinned."""
        ids = pa.array({**standing, **(annotations or {})}, pa.string())
        for conversation in self.conversations(lambda table: _any_message_in(table, ids)):
            messages = [message.message_id for message in conversation.messages]
            feedback = chain.from_iterable(standing.get(one, ()) for one in messages)
            labels = conversation.annotations
            if annotations is not None:
                labels = tuple(chain.from_iterable(annotations.get(one, ()) for one in messages))
            yield replace(conversation, feedback=tuple(feedback), annotations=labels)


def _any_message_in(table: pa.Table, ids: pa.Array) -> pa.Array:
    """[N] conversations with a message of these ids."""
    lists = table["messages"].combine_chunks()
    found = pc.is_in(lists.flatten().field("message_id"), ids).to_numpy(zero_copy_only=False)
    with_one = pc.list_parent_indices(lists).to_numpy()[found]
    mask = np.zeros(len(table), dtype=bool)
    mask[with_one] = True
    return pa.array(mask)


def open_slice(storage: Storage, name: str) -> Slice:
    """Raises UserError for a slice that is not there, or was altered."""
    return Slice(storage.verify(name) / _FILE)


def pin(
    storage: Storage,
    name: str,
    after_seq: int,
    upto_seq: int,
    quiet_before_us: int | None = None,
    previous: str | None = None,
    clean: Deidentifier | None = None,
) -> SliceInfo:
    """Copy the conversations of commit_seq range (after_seq, upto_seq] to `name`, for instance
    rounds/0001/collect. A slice that is already published stays as it is.

    previous   name of the slice before this one: what it had to leave for later is looked at again
    clean      goes over every text that is copied; None: as they are

    Raises UserError when there is nothing to copy.
    """
    if not storage.is_published(name):
        waiting = read_json(storage.verify(previous) / _WAITING) if previous else {}
        range_ = Range(after_seq, upto_seq, quiet_before_us, waiting)
        found: dict[str, object] = {}
        with storage.publish(name, found) as folder:
            found |= asdict(_write(storage, range_, clean, folder))
    return info(storage, name)


def _write(storage: Storage, range_: Range, clean: Deidentifier | None, folder: Path) -> SliceInfo:
    counts, not_taken = _Counts(), NotTaken()
    tables = map(counts.add, collect(storage, range_, not_taken))
    cleaned = tables if clean is None else (_cleaned(table, clean) for table in tables)
    write(folder / _FILE, cleaned)
    write_json(folder / _WAITING, {**not_taken.waiting, **not_taken.withdrawn})
    waiting = {"waiting": len(not_taken.waiting)} if not_taken.waiting else {}
    left_out = {**dict(not_taken.left_out), **waiting}
    if not counts.conversations:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        raise UserError(
            f"the interaction log under {storage.root} holds no conversation that an earlier round has not "
            f"taken{' (left out: ' + reasons + ')' if reasons else ''}: let people talk first, "
            "or bring recorded talk in with `bb3x ingest`."
        )
    return counts.info(range_, left_out)


def write(path: Path, tables: Iterable[pa.Table], group: int = GROUP) -> None:
    """Tables of SLICE_SCHEMA as a file of a slice, `group` conversations in a row group."""
    with pq.ParquetWriter(path, SLICE_SCHEMA, compression="zstd") as file:
        held: list[pa.Table] = []
        for table in tables:
            held.append(table)
            while size := _full(held, group):
                rows = pa.concat_tables(held)
                file.write_table(rows.slice(0, size), size)
                held = [rows.slice(size)] if len(rows) > size else []
        if held:
            rows = pa.concat_tables(held)
            file.write_table(rows, max(1, len(rows)))


def _full(held: list[pa.Table], group: int) -> int:
    """How many rows make the next group, by number or by bytes; 0 while there are too few."""
    rows, size = sum(map(len, held)), sum(table.nbytes for table in held)
    most = min(group, max(1, rows * _GROUP_BYTES // max(size, 1)))
    return most if rows >= most else 0


class _Counts:
    """What goes by, counted."""

    def __init__(self) -> None:
        self.conversations, self._simulated, self._bot_turns = 0, 0, 0
        self._thumbs: Counter[int] = Counter()
        self._people: set[str] = set()

    def add(self, table: pa.Table) -> pa.Table:
        self.conversations += len(table)
        self._simulated += pc.sum(table["simulated"]).as_py() or 0
        kinds = pc.struct_field(pc.list_flatten(table["messages"]), "author_kind")
        self._bot_turns += pc.sum(pc.not_equal(kinds, "person")).as_py() or 0
        ratings = pc.struct_field(pc.list_flatten(table["feedback"]), "rating")
        self._thumbs.update(ratings.to_pylist())
        self._people.update(table["person"].unique().to_pylist())
        return table

    def info(self, range_: Range, left_out: dict[str, int]) -> SliceInfo:
        return SliceInfo(
            conversations=self.conversations,
            bot_turns=self._bot_turns,
            thumbs_up=self._thumbs[1],
            thumbs_down=self._thumbs[-1],
            people=len(self._people),
            after_seq=range_.after_seq,
            upto_seq=range_.upto_seq,
            left_out=left_out,
            simulated=self._simulated,
        )


def _cleaned(table: pa.Table, clean: Deidentifier) -> pa.Table:
    """Texts as they may leave the log: with the pseudonyms of who wrote them, or for whom a bot did."""
    for column, words in (("messages", ["text"]), ("feedback", ["comment", "correction"])):
        lists = table[column].combine_chunks()
        said = lists.flatten()
        persons = table["person"].combine_chunks().take(pc.list_parent_indices(lists))
        if column == "messages":
            is_person = pc.equal(said.field("author_kind"), "person")
            persons = pc.if_else(is_person, said.field("author_name"), persons)
        else:
            persons = said.field("person")
        parts = [
            clean.clean_column(said.field(field.name), persons)[0]
            if field.name in words
            else said.field(field.name)
            for field in said.type
        ]
        values = pa.StructArray.from_arrays(parts, fields=list(said.type))
        offsets = pc.subtract(lists.offsets, lists.offsets[0])
        made = pa.ListArray.from_arrays(offsets, values)
        table = table.set_column(table.column_names.index(column), column, made)
    return table.cast(SLICE_SCHEMA)


def info(storage: Storage, name: str) -> SliceInfo:
    """What `pin` returned when the slice was published."""
    manifest = storage.manifest(name)
    return SliceInfo(**{f.name: manifest[f.name] for f in fields(SliceInfo)})


# Rows and what they mean


def conversations_of(table: pa.Table) -> Iterator[Conversation]:
    """The rows of a table of SLICE_SCHEMA; a slice that is older than a column reads as if it were empty."""
    authors: dict[tuple[str, str], Author] = {}
    columns = [_lists(table["messages"], name) for name in ("message_id", "text", "finish_reason")]
    kinds, names = (_lists(table["messages"], name) for name in ("author_kind", "author_name"))
    marks = _marks(table["messages"])
    about = table.drop_columns(["messages", "annotation"]).to_pylist()
    for row, ids, texts, reasons, mark, kind, name in zip(about, *columns, marks, kinds, names, strict=True):
        of = [authors.setdefault(one, Author(*one)) for one in zip(kind, name, strict=True)]
        feedback = (Feedback(**{**one, "reasons": tuple(one["reasons"])}) for one in row.pop("feedback"))
        annotations = (Annotation(**one) for one in row.pop("annotations", None) or ())
        messages = tuple(map(Message, ids, of, texts, reasons, mark))
        yield Conversation(**row, messages=messages, feedback=tuple(feedback), annotations=tuple(annotations))


def _marks(messages: pa.ChunkedArray) -> Iterator[list[bool]]:
    """`is_feedback`, a list a conversation."""
    if messages.type.value_type.get_field_index("is_feedback") >= 0:
        return _lists(messages, "is_feedback")
    return ([False] * size for size in pc.list_value_length(messages).to_pylist())


def _lists(messages: pa.ChunkedArray, name: str) -> Iterator[list[Any]]:
    """A field of the messages, a list a conversation."""
    lists = messages.combine_chunks()
    values = lists.flatten().field(name).to_pylist()
    offsets = pc.subtract(lists.offsets, lists.offsets[0]).to_pylist() if len(lists) else []
    for begin, end in pairwise(offsets):
        yield values[begin:end]
