"""The log as whole conversations, a bounded piece at a time: what views, analysis and exports stand on.

    plan_shards   scans ids only: which conversations lie in which files
    read_shard    one unit of work, in any process: the conversations of some neighbouring files, or a
                  bounded batch of those that cross such neighbourhoods
    shards        both, one after the other, as a stream

What was said of a message may have come long after it, in another file: it travels with the shard
of its message (`late`).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from bb3x_ray.data.damage import readable
from bb3x_ray.data.in_order import threads
from bb3x_ray.data.shard import BATCH_ROWS, Shard, as_events, each, empty, iter_shard, read_index, read_shard
from bb3x_ray.data.standing import SIDE_COLUMNS, SIDE_KINDS
from bb3x_ray.data.table import TABLE, open_table
from bb3x_ray.schemas.event import EVENT_SCHEMA, EVERYTHING
from bb3x_ray.storage import Storage

__all__ = ["Shard", "each", "iter_shard", "plan_shards", "read_shard", "shards"]

# Files of fewer rows are taken together, up to so many; a crossing batch holds about so many rows.
SHARD_ROWS = 200_000


def shards(
    storage: Storage,
    columns: Sequence[str],
    upto_seq: int | None = None,
    kinds: Sequence[str] = ("message",),
    table_version: int | None = None,
) -> Iterator[pa.Table]:
    """Tables of whole conversations: a row a message, rows of a conversation together, by position.

    columns        of EVENT_SCHEMA
    kinds          "feedback", "annotation" and "consent" beside "message" add their columns: what stands,
                   wherever in the log it lies (see `standing.with_standing`)
    table_version  read this version of the Delta table; None: the newest

    Of two messages at one position the later commit stands. No conversation comes twice. In memory are
    a few batches of rows for each core and, while it is planned, the ids of all conversations.
    """
    yield from each(plan_shards(storage, columns, upto_seq, kinds, table_version), lambda rows: rows)


def plan_shards(
    storage: Storage,
    columns: Sequence[str],
    upto_seq: int | None = None,
    kinds: Sequence[str] = ("message",),
    table_version: int | None = None,
    shard_rows: int = SHARD_ROWS,
    lazy: Sequence[str] = (),
    *,
    after_seq: int = 0,
    also: Collection[str] = (),
) -> list[Shard]:
    """The units of work of `shards`: see there, and `Shard`.

    after_seq, also   leave out shards without a message that came after this commit_seq, and without a
                      conversation of `also`; what a shard holds beside is for the reader to leave out

    Raises ValueError for unknown columns and kinds.
    """
    if after_seq and upto_seq is None:
        raise ValueError("after_seq needs upto_seq")
    unknown = [name for name in columns if name not in EVENT_SCHEMA.names]
    unknown += [kind for kind in kinds if kind not in ("message", *SIDE_KINDS)]
    if unknown:
        raise ValueError(f"the log has no columns or kinds {', '.join(unknown)}")
    files = _files(storage, upto_seq, table_version)
    if not files:
        return []
    side_kinds = [kind for kind in kinds if kind != "message"]
    plan = _Plan(files, upto_seq, shard_rows, side_kinds, _Touched(after_seq, frozenset(also)))
    about: dict[str, Any] = {"columns": tuple(columns), "kinds": tuple(kinds), "upto_seq": upto_seq}
    about["lazy"] = tuple(lazy)
    return [
        Shard(
            files=tuple(files[i].path for i in part.files),
            only=part.only,
            without=part.without,
            late=part.late,
            **about,
        )
        for part in plan.parts()
    ]


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    rows: int
    first_seq: int


@dataclass(frozen=True, slots=True)
class _Part:
    files: list[int]
    only: frozenset[str] | None
    without: frozenset[str]
    late: pa.Table


def _files(storage: Storage, upto_seq: int | None, version: int | None) -> list[_File]:
    """The table's files, oldest commit first, without those that are all beyond `upto_seq`."""
    newest = open_table(storage)
    if newest is None:
        return []
    table = newest if version is None else DeltaTable(str(storage.path(TABLE)), version=version)
    found = []
    for action in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        path = Path(storage.path(TABLE), unquote(action["path"]))
        first = action.get("min.commit_seq")
        if upto_seq is None or first is None or first <= upto_seq:
            rows = action.get("num_records")
            found.append(_File(str(path), _count_rows(path) if rows is None else rows, first or 0))
    return sorted(found, key=lambda file: (file.first_seq, file.path))


def _count_rows(path: Path) -> int:
    rows: int = pq.read_metadata(path).num_rows
    return rows


@dataclass(frozen=True, slots=True)
class _Touched:
    """Conversations with a message after this commit_seq, and some others."""

    after_seq: int
    also: frozenset[str]

    def among(self, messages: pa.Table) -> pa.Table:
        """Rows of `messages` (see `_Plan._count`) about such conversations."""
        if self.after_seq <= 0:
            return messages
        ids = messages.filter(pc.greater(messages["last_seq"], self.after_seq))["conversation_id"]
        ids = pa.chunked_array([*ids.chunks, pa.array(sorted(self.also), pa.string())])
        return messages.filter(pc.is_in(messages["conversation_id"], pc.unique(ids)))


class _Plan:
    """Which files are read together, which conversations cross, and where late rows belong."""

    def __init__(
        self,
        files: Sequence[_File],
        upto_seq: int | None,
        shard_rows: int,
        side_kinds: Sequence[str],
        touched: _Touched,
    ) -> None:
        self._files, self._upto, self._shard_rows = files, upto_seq, shard_rows
        self._side_kinds = list(side_kinds)
        self._group = _neighbourhoods(files, shard_rows)
        messages, side = self._scan()
        self._messages = touched.among(messages)
        untouched = _others(messages, self._messages)
        self._side = side.filter(pc.invert(pc.is_in(side["conversation_id"], untouched)))

    def parts(self) -> list[_Part]:
        home = self._messages.group_by("conversation_id").aggregate(
            [("group", "min"), ("group", "max"), ("rows", "sum")]
        )
        crosses = pc.not_equal(home["group_min"], home["group_max"])
        crossing = home.filter(crosses).sort_by(
            [("group_min", "ascending"), ("conversation_id", "ascending")]
        )
        late = self._late_rows(home)
        return [*self._local_parts(crossing, late), *self._crossing_parts(crossing, late)]

    def _scan(self) -> tuple[pa.Table, pa.Table]:
        """(messages, side rows): see `_count`; one row a conversation and file."""
        with threads() as crew:
            found = list(crew.in_order(self._scan_file, range(len(self._files))))
        messages, side = zip(*found, strict=True)
        return pa.concat_tables(messages), pa.concat_tables(side)

    def _scan_file(self, number: int) -> tuple[pa.Table, pa.Table]:
        index = read_index([self._files[number].path], self._upto)
        if self._upto is not None:
            index = index.filter(pc.less_equal(index["commit_seq"], self._upto))
        messages = index.filter(pc.equal(index["kind"], "message"))
        side = index.filter(pc.is_in(index["kind"], pa.array(self._side_kinds, pa.string())))
        return self._count(messages, number), self._count(side, number)

    def _count(self, index: pa.Table, number: int) -> pa.Table:
        """conversation_id, file, group, rows, and last_seq where commit_seq was read."""
        known = "commit_seq" in index.column_names
        wanted = [("conversation_id", "count"), *([("commit_seq", "max")] if known else [])]
        counts = index.group_by("conversation_id", use_threads=False).aggregate(wanted)
        size = len(counts)
        return pa.table(
            {
                "conversation_id": counts["conversation_id"].cast(pa.string()),
                "file": pa.array(np.full(size, number, np.int32)),
                "group": pa.array(np.full(size, self._group[number], np.int32)),
                "rows": counts["conversation_id_count"],
                **({"last_seq": counts["commit_seq_max"]} if known else {}),
            }
        )

    def _local_parts(self, crossing: pa.Table, late: pa.Table) -> Iterator[_Part]:
        cross_ids = crossing["conversation_id"].combine_chunks()
        theirs = self._messages.filter(pc.is_in(self._messages["conversation_id"], cross_ids))
        without: dict[int, set[str]] = {}
        for one, group in zip(
            theirs["conversation_id"].to_pylist(), theirs["group"].to_pylist(), strict=True
        ):
            without.setdefault(group, set()).add(one)
        in_group = self._messages.group_by("group").aggregate([("conversation_id", "count_distinct")])
        for group, conversations in sorted(zip(*(c.to_pylist() for c in in_group.columns), strict=True)):
            skipped = frozenset(without.get(group, ()))
            if conversations > len(skipped):
                files = [i for i, of in enumerate(self._group) if of == group]
                needed = pc.fill_null(pc.equal(late["group"], group), True)
                mine = late.filter(needed).select(SIDE_COLUMNS)
                yield _Part(files, None, skipped, mine)

    def _crossing_parts(self, crossing: pa.Table, late: pa.Table) -> Iterator[_Part]:
        batch = (np.cumsum(crossing["rows_sum"].to_numpy()) - 1) // self._shard_rows
        for number in np.unique(batch):
            ids = crossing["conversation_id"].filter(pa.array(batch == number)).combine_chunks()
            there = self._messages.filter(pc.is_in(self._messages["conversation_id"], ids))
            needed = pc.or_(pc.is_in(late["conversation_id"], ids), pc.is_null(late["group"]))
            mine = late.filter(needed).select(SIDE_COLUMNS)
            files = sorted(set(there["file"].to_pylist()))
            yield _Part(files, frozenset(ids.to_pylist()), frozenset(), mine)

    def _late_rows(self, home: pa.Table) -> pa.Table:
        """Side rows that do not lie where their conversation is read, with the `group` that needs them.

        Of a conversation that crosses all of them, with group -1; what is said of all that a person ever
        said is about EVERYTHING and is needed everywhere: its group is null. Feedback under an unknown
        conversation is looked up by its message; what has no message yet is left out: it waits.
        """
        crosses = pc.not_equal(home["group_min"], home["group_max"])
        group = pc.if_else(crosses, pa.scalar(-1, pa.int32()), home["group_min"])

        def home_of(ids: pa.ChunkedArray) -> pa.ChunkedArray:
            return group.take(pc.index_in(ids, home["conversation_id"].combine_chunks()))

        here = pc.fill_null(pc.equal(home_of(self._side["conversation_id"]), self._side["group"]), False)
        stray = self._side.filter(pc.invert(here))
        found = [empty(SIDE_COLUMNS)]
        for number in sorted(set(stray["file"].to_pylist())):
            ids = stray["conversation_id"].filter(pc.equal(stray["file"], number)).combine_chunks()
            found.append(self._side_rows(number, ids))
        late = pa.concat_tables(found)
        whole_person = pc.equal(late["conversation_id"], EVERYTHING)
        known = pc.or_(whole_person, pc.is_valid(home_of(late["conversation_id"])))
        late = pa.concat_tables([late.filter(known), self._found_by_message(late.filter(pc.invert(known)))])
        return late.append_column("group", home_of(late["conversation_id"]))

    def _side_rows(self, number: int, ids: pa.Array) -> pa.Table:
        """The side rows of some conversations in a file."""
        kept = []
        path = self._files[number].path
        with readable(path), pq.ParquetFile(path) as file:
            there = [name for name in SIDE_COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, columns=there):
                rows = as_events(pa.Table.from_batches([batch]), SIDE_COLUMNS)
                mask = pc.is_in(rows["kind"], pa.array(self._side_kinds))
                mask = pc.and_(mask, pc.is_in(rows["conversation_id"], ids))
                if self._upto is not None:
                    mask = pc.and_(mask, pc.less_equal(rows["commit_seq"], self._upto))
                kept.append(rows.filter(mask))
        return pa.concat_tables(kept)

    def _found_by_message(self, orphans: pa.Table) -> pa.Table:
        """Orphans whose message is in the log, under the conversation of that message."""
        wanted = pc.unique(orphans["message_id"])
        columns = ["commit_seq", "kind", "message_id", "conversation_id"]
        home: dict[str, str] = {}
        for file in self._files if len(wanted) else ():
            with readable(file.path), pq.ParquetFile(file.path) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
                    rows = as_events(pa.Table.from_batches([batch]), columns)
                    mask = pc.and_(pc.equal(rows["kind"], "message"), pc.is_in(rows["message_id"], wanted))
                    if self._upto is not None:
                        mask = pc.and_(mask, pc.less_equal(rows["commit_seq"], self._upto))
                    for row in rows.filter(mask).to_pylist():
                        home[row["message_id"]] = row["conversation_id"]
        ids = pa.array([home.get(one) for one in orphans["message_id"].to_pylist()], pa.string())
        place = orphans.column_names.index("conversation_id")
        return orphans.set_column(place, "conversation_id", ids).filter(pc.is_valid(ids))


def _others(messages: pa.Table, touched: pa.Table) -> pa.ChunkedArray:
    """Ids of the conversations in `messages` that are not in `touched`."""
    if len(touched) == len(messages):
        return pa.chunked_array([], pa.string())
    known = pc.is_in(messages["conversation_id"], pc.unique(touched["conversation_id"]))
    return pc.unique(messages["conversation_id"].filter(pc.invert(known)))


def _neighbourhoods(files: Sequence[_File], shard_rows: int) -> list[int]:
    """[files] the group of each: neighbours in commit order, together up to `shard_rows` rows."""
    groups, number, rows = [], 0, 0
    for file in files:
        if rows and rows + file.rows > shard_rows:
            number, rows = number + 1, 0
        groups.append(number)
        rows += file.rows
    return groups
