"""A person leaves the log: inbox, archive, rejects, table with its old versions, slices.

Every function here can be called again after a crash: what is gone already is not found a second time.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import ColumnProperties, WriterProperties

from bb3x_ray.data.committer import REJECTS
from bb3x_ray.data.inbox import Inbox, rewrite_lines
from bb3x_ray.data.readers.identity import fingerprint
from bb3x_ray.data.row_ids import answered_by, conversation_of
from bb3x_ray.data.table import open_table, scan
from bb3x_ray.data.tombstones import Tombstones
from bb3x_ray.storage import Storage

# Delta rewrites files with string views, and Arrow compares no string with the bounds of those.
_NUMBERS = ColumnProperties(statistics_enabled="CHUNK")
_REWRITTEN = WriterProperties(
    compression="ZSTD",
    compression_level=1,
    default_column_properties=ColumnProperties(statistics_enabled="NONE"),
    column_properties={"commit_seq": _NUMBERS, "at": _NUMBERS},
)


def words_of(storage: Storage, person: str, conversation: str = "", until: int | None = None) -> set[str]:
    """Every text in the person's conversations that the table holds: what must not be found anywhere.

    conversation   only that one, here and below
    until          only what was said until then, microseconds since 1970; None: all of it
    """
    table = open_table(storage)
    if table is None:
        return set()
    rows = scan(storage, table, ["text", "comment", "correction"], _is_theirs(person, conversation, until))
    return {text for name in rows.column_names for text in rows[name].to_pylist() if text}


def seqs_of(storage: Storage, person: str, conversation: str = "", until: int | None = None) -> list[int]:
    """commit_seq of the person's rows."""
    table = open_table(storage)
    if table is None:
        return []
    theirs = _is_theirs(person, conversation, until)
    seqs: list[int] = scan(storage, table, ["commit_seq"], theirs)[0].to_pylist()
    return seqs


def first_rated(storage: Storage, person: str) -> int | None:
    """commit_seq of the first thing that they said of a message as a rater; None without any."""
    table = open_table(storage)
    if table is None:
        return None
    seqs: list[int] = scan(storage, table, ["commit_seq"], _as_rater(person))[0].to_pylist()
    return min(seqs, default=None)


def _is_theirs(person: str, conversation: str, until: int | None) -> pc.Expression:
    """Rows about them, and what they said of messages as a rater."""
    theirs = ds.field("person") == person
    theirs = (
        theirs & (ds.field("conversation_id") == conversation) if conversation else theirs | _as_rater(person)
    )
    return theirs if until is None else theirs & (ds.field("at") <= until)


def _as_rater(person: str) -> pc.Expression:
    return (ds.field("kind") == "annotation") & (ds.field("author_name") == person)


def erase_rows(storage: Storage, person: str, conversation: str = "", until: int | None = None) -> int:
    """Rows of the person leave the table and its old versions. Returns how many.

    Only under the committer's lease: a vacuum without patience removes what another writer has not
    committed yet.
    """
    table = open_table(storage)
    if table is None:
        return 0
    seqs = seqs_of(storage, person, conversation, until)
    if seqs:
        # By number: Delta's log keeps the words of a predicate.
        table.delete(f"commit_seq IN ({', '.join(map(str, seqs))})", writer_properties=_REWRITTEN)
    # Old versions hold the words still, and so may files of a commit that was killed.
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    return len(seqs)


def erase_lines(places: Iterable[Inbox], stones: Tombstones) -> int:
    """Lines of sealed and archived segments that a tombstone covers. Returns how many went."""
    return sum(place.rewrite(lambda line: not stones.covers_line(line)) for place in places)


def erase_rejects(storage: Storage, names: Iterable[str], words: Iterable[str]) -> int:
    """Rejected lines that name the person or hold one of their texts. Returns how many.

    A damaged line cannot be read, so it is searched, as it is and as JSON writes it.
    """
    sought = {piece for text in (*names, *words) if text for piece in (text, json.dumps(text)[1:-1])}

    def keep(line: bytes) -> bool:
        raw = str(json.loads(line).get("raw", ""))
        return not any(piece in raw for piece in sought)

    return sum(rewrite_lines(path, keep) for path in sorted(storage.path(REJECTS).glob("*.jsonl")))


@dataclass(frozen=True, slots=True)
class Theirs:
    """What rounds hold of a person: the conversations that they took part in, and the messages of these.

    person   None where one conversation goes, and nothing else of its person
    """

    person: str | None
    conversations: frozenset[str]
    messages: frozenset[str]

    def without(self, rows: pa.Table) -> tuple[pa.Table, int]:
        """(what is left of some rows under rounds/, rows and remarks that went). Conversations that they took
        part in go whole, whoever began them; of those of others goes what they said of a reply."""
        mask = pa.array(np.zeros(len(rows), dtype=bool))
        names = rows.column_names
        if "person" in names and self.person is not None:
            mask = pc.or_(mask, pc.fill_null(pc.equal(rows["person"], self.person), False))
        if "conversation_id" in names:
            mask = pc.or_(mask, pc.is_in(rows["conversation_id"], pa.array(self.conversations, pa.string())))
        if "row_id" in names:
            mask = pc.or_(
                mask, pa.array([self._is_row(one) for one in rows["row_id"].to_pylist()], pa.bool_())
            )
        kept = rows.filter(pc.invert(mask))
        gone = len(rows) - len(kept)
        for column, who in _REMARKS.items():
            if column in names and self.person is not None:
                kept, remarks = self._without_remarks(kept, column, who)
                gone += remarks
        return kept, gone

    def _without_remarks(self, rows: pa.Table, column: str, who: str) -> tuple[pa.Table, int]:
        lists = rows[column].to_pylist()
        left = [[one for one in said or () if one[who] != self.person] for said in lists]
        remarks = sum(len(said or ()) for said in lists) - sum(map(len, left))
        if remarks:
            place = rows.schema.get_field_index(column)
            field = rows.schema.field(place)
            rows = rows.set_column(place, field, pa.array(left, field.type))
        return rows, remarks

    def _is_row(self, row_id: str) -> bool:
        """Of a conversation of theirs, or an answer to a message in one, or what such a message should have
        been."""
        about = conversation_of(row_id)
        messages = (answered_by(row_id), about.removeprefix(_CORRECTION))
        return about in self.conversations or any(message in self.messages for message in messages)


_CORRECTION = (
    "correction-"  # before the message's id: see corrections.py, which imports far too much for here
)
# What slices hold of people who said something of others' conversations: column -> whose a remark is.
_REMARKS = {"feedback": "person", "annotations": "rater"}
_NAMING = ("person", "conversation_id", "row_id", *_REMARKS)


def theirs_in(slices: Iterable[Path], person: str, conversation: str = "") -> Theirs:
    """What slices say of a person, or of one conversation of theirs."""
    conversations, messages = set[str](), set[str]()
    fields = [f"messages.list.element.{name}" for name in ("author_kind", "author_name", "message_id")]
    for path in slices:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, ["conversation_id", "person", *fields])
                mine = rows.filter(_takes_part(rows, person))
                if conversation:
                    mine = mine.filter(pc.equal(mine["conversation_id"], conversation))
                conversations.update(mine["conversation_id"].to_pylist())
                messages.update(pc.struct_field(pc.list_flatten(mine["messages"]), "message_id").to_pylist())
    return Theirs(None if conversation else person, frozenset(conversations), frozenset(messages))


def _takes_part(rows: pa.Table, person: str) -> pa.Array:
    """[N] conversations that are the person's, or in which they say something."""
    lists = rows["messages"].combine_chunks()
    said = lists.flatten()
    by_them = pc.and_(
        pc.equal(said.field("author_kind"), "person"), pc.equal(said.field("author_name"), person)
    )
    found = np.asarray(pc.equal(rows["person"], person)).copy()
    found[pc.list_parent_indices(lists).to_numpy()[by_them.to_numpy(zero_copy_only=False)]] = True
    return pa.array(found)


def erase_from_table_file(storage: Storage, name: str, file: str, theirs: Theirs, because: str) -> int:
    """What is theirs leaves a Parquet file of what was published as `name`."""

    def rewrite(old: Path, new: Path) -> int:
        with pq.ParquetFile(old) as source:
            naming = [column for column in _NAMING if column in source.schema_arrow.names]
            groups = range(source.num_row_groups)
            if not any(theirs.without(source.read_row_group(group, naming))[1] for group in groups):
                return 0
            gone = 0
            with pq.ParquetWriter(new, source.schema_arrow, compression="zstd") as into:
                for group in groups:
                    kept, count = theirs.without(source.read_row_group(group))
                    into.write_table(kept, max(1, len(kept)))
                    gone += count
            return gone

    return storage.redact(name, file, rewrite, because)


def persons_of(storage: Storage, user: str, pseudonyms: Iterable[str]) -> list[str]:
    """Under which names the log knows a user: as given, as the server names them, as recorded sources do."""
    table = open_table(storage)
    if table is None:
        return []
    known = scan(storage, table, ["person", "source"], ds.field("person").is_valid())
    raters = scan(storage, table, ["author_name"], ds.field("kind") == "annotation")["author_name"].unique()
    sources = [source for source in known["source"].unique().to_pylist() if source]
    # Readers hash the id of a recorded person, some as JSON.
    hashes = {hashlib.sha256(f"person:{user}".encode("utf-8", "surrogatepass")).hexdigest()}
    hashes |= {fingerprint(f"person:{user}"), fingerprint(["person", user])}
    names = {user, *pseudonyms, *(f"{source}-{one[:16]}" for source in sources for one in hashes)}
    return sorted(names & {*known["person"].unique().to_pylist(), *raters.to_pylist()})


def joined(ranges: Iterable[list[int]], numbers: Iterable[int]) -> list[list[int]]:
    """[[1, 2]] and [2, 3, 7] -> [[1, 3], [7, 7]]."""
    held = {number for first, last in ranges for number in range(first, last + 1)}
    found: list[list[int]] = []
    for number in sorted(held | set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found
