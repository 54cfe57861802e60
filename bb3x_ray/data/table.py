"""The interactions table (Delta Lake), and the conversations that a round reads from it."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import DeltaTable

from bb3x_ray.data.consent import NO_BASIS, Consent, standing_consent
from bb3x_ray.schemas.conversation import Author, Conversation, Feedback, Message
from bb3x_ray.schemas.event import EVENT_SCHEMA
from bb3x_ray.storage import Storage, fsync_path

TABLE = "interactions"
IDS = "interactions_ids"  # the index of known event ids beside it
# Transaction "application" of the committer; its version is the last commit_seq of the table.
APP_ID = "bb3x-log"
# Delta's log keeps minima and maxima of these columns only: never a prefix of what a person wrote, nor an id,
# which would outlive an erasure there.
STATS_COLUMNS = ("commit_seq", "at")


def open_table(storage: Storage) -> DeltaTable | None:
    """The table at its newest version, or None before the first commit."""
    path = str(storage.path(TABLE))
    return DeltaTable(path) if DeltaTable.is_deltatable(path) else None


def create_table(storage: Storage) -> DeltaTable:
    path = storage.path(TABLE)
    path.mkdir(parents=True, exist_ok=True)
    return DeltaTable.create(
        str(path), EVENT_SCHEMA, configuration={"delta.dataSkippingStatsColumns": ",".join(STATS_COLUMNS)}
    )


def sync_newest(storage: Storage, table: DeltaTable) -> None:
    """Make the newest version survive a loss of power; Delta leaves its files to the page cache.

    Segments are archived after that, so an event is at any time on disk in one place at least.
    """
    folder = storage.path(TABLE)
    log = folder / "_delta_log" / f"{table.version():020d}.json"
    for line in log.read_text(encoding="utf-8").splitlines():
        action = json.loads(line)
        if "add" in action:
            fsync_path(folder / unquote(action["add"]["path"]))
    for path in (folder, log, log.parent):
        fsync_path(path)


def head_of(table: DeltaTable | None) -> int:
    return (table.transaction_version(APP_ID) or 0) if table else 0


def head(storage: Storage) -> int:
    """Last commit_seq, 0 when nothing was committed yet."""
    return head_of(open_table(storage))


def _dataset(storage: Storage, table: DeltaTable) -> ds.Dataset:
    """One version's rows; columns that a file was written without are null in its rows.

    Arrow reads the files itself: no Python callbacks in its reading threads, and not the types that Delta
    gives to a file that it rewrote (string views, which Arrow does not compare with strings).
    """
    files = pafs.SubTreeFileSystem(str(storage.path(TABLE)), pafs.LocalFileSystem())
    names = [unquote(uri.rsplit("/", 1)[-1]) for uri in table.file_uris()]  # the table has no partitions
    if not names:
        return ds.dataset(EVENT_SCHEMA.empty_table())
    return ds.dataset(names, schema=EVENT_SCHEMA, format="parquet", filesystem=files)


def scan(storage: Storage, table: DeltaTable, columns: list[str], keep: pc.Expression) -> pa.Table:
    """Rows of one table version."""
    rows: pa.Table = _dataset(storage, table).to_table(columns=columns, filter=keep)
    return rows


def stream(storage: Storage, table: DeltaTable, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """All rows of one table version, some at a time, in no order."""
    yield from _dataset(storage, table).to_batches(columns=columns, batch_readahead=2)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of the table: path under its folder, bytes, rows, lowest and highest commit_seq."""

    path: str
    size: int
    rows: int
    first: int
    last: int


def data_files(table: DeltaTable) -> list[DataFile]:
    """The files of one table version, by commit_seq."""
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    files = [
        DataFile(
            unquote(a["path"]), a["size_bytes"], a["num_records"], a["min.commit_seq"], a["max.commit_seq"]
        )
        for a in actions
    ]
    return sorted(files, key=lambda file: (file.first, file.path))


@dataclass(frozen=True, slots=True)
class Collected:
    """What a commit_seq range holds.

    taught_before   ids of messages that an earlier range already gave out (their conversation went on
                    after it had been quiet): context only
    waiting         conversations that are not quiet yet -> last commit_seq of theirs that was given out
    annotations     conversation -> its standing rating, 1 to 5
    left_out        reason -> conversations
    """

    conversations: list[Conversation]
    taught_before: frozenset[str] = frozenset()
    waiting: dict[str, int] = field(default_factory=dict)
    annotations: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


def read_conversations(
    storage: Storage, after_seq: int, upto_seq: int, quiet_before_us: int | None = None
) -> list[Conversation]:
    """Conversations whose last message lies in (after_seq, upto_seq] and before `quiet_before_us`.

    Order: by the commit_seq of their first message. Feedback counts when committed up to `upto_seq`.
    """
    return collect(storage, after_seq, upto_seq, quiet_before_us).conversations


def collect(
    storage: Storage,
    after_seq: int,
    upto_seq: int,
    quiet_before_us: int | None = None,
    waiting: Mapping[str, int] | None = None,
) -> Collected:
    """Like `read_conversations`, with what the next range needs; `waiting` comes from the one before.

    Nothing beyond `upto_seq` is looked at, so the same arguments give the same answer for ever.
    """
    waiting = dict(waiting or {})
    table = open_table(storage)
    if table is None or upto_seq <= after_seq:
        return Collected([], waiting=waiting)
    seq, kind = ds.field("commit_seq"), ds.field("kind")
    touched = scan(
        storage,
        table,
        ["conversation_id"],
        (seq > after_seq) & (seq <= upto_seq) & (kind == "message"),
    )["conversation_id"].unique()
    ids = sorted({*touched.to_pylist(), *waiting})
    of_these = ds.field("conversation_id").isin(pa.array(ids, pa.string())) & (seq <= upto_seq)
    messages = _rows(storage, table, of_these & (kind == "message"))
    feedback = _feedback(storage, table, {row["message_id"] for row in messages}, upto_seq)
    annotations = {
        row["conversation_id"]: row["rating"]
        for row in _rows(storage, table, of_these & (kind == "annotation"))
        if row["rating"] is not None
    }
    consent = read_consent(storage, upto_seq)
    return _assemble(messages, feedback, annotations, consent, after_seq, quiet_before_us, waiting)


def read_consent(storage: Storage, upto_seq: int) -> Consent:
    """What people said of their consent up to `upto_seq`: the same answer for ever."""
    table = open_table(storage)
    if table is None:
        return Consent({})
    keep = (ds.field("kind") == "consent") & (ds.field("commit_seq") <= upto_seq)
    columns = ["at", "commit_seq", "person", "conversation_id", "consent_basis"]
    return standing_consent(scan(storage, table, columns, keep).to_pylist())


def with_standing_feedback(
    storage: Storage, conversations: Sequence[Conversation], upto_seq: int
) -> list[Conversation]:
    """The same conversations with the feedback that stood at `upto_seq`: late thumbs join old slices.

    The log only grows, so the same arguments give the same answer for ever.
    """
    table = open_table(storage)
    if table is None:
        return list(conversations)
    ids = {m.message_id for c in conversations for m in c.messages}
    standing = _feedback(storage, table, ids, upto_seq)
    return [
        replace(c, feedback=tuple(f for m in c.messages for f in standing.get(m.message_id, ())))
        for c in conversations
    ]


def _rows(storage: Storage, table: DeltaTable, keep: pc.Expression) -> list[dict[str, Any]]:
    """Rows as dicts, oldest commit first."""
    return scan(storage, table, EVENT_SCHEMA.names, keep).sort_by("commit_seq").to_pylist()


def _feedback(
    storage: Storage, table: DeltaTable, message_ids: set[str], upto_seq: int
) -> dict[str, list[Feedback]]:
    """message_id -> the feedback that stands: the latest per person, none where it was taken back."""
    about = ds.field("message_id").isin(pa.array(sorted(message_ids), pa.string()))
    keep = (ds.field("commit_seq") <= upto_seq) & (ds.field("kind") == "feedback") & about
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(_rows(storage, table, keep), key=lambda row: (row["at"], row["commit_seq"])):
        latest[row["message_id"], row["person"]] = row
    standing = defaultdict(list)
    for row in latest.values():
        if row["rating"] is not None:
            standing[row["message_id"]].append(
                Feedback(
                    row["event_id"],
                    row["message_id"],
                    row["person"],
                    row["rating"],
                    tuple(row["reasons"] or ()),
                    row["comment"] or "",
                )
            )
    return standing


def _assemble(
    messages: list[dict[str, Any]],
    feedback: dict[str, list[Feedback]],
    annotations: dict[str, int],
    consent: Consent,
    after_seq: int,
    quiet_before_us: int | None,
    waiting: dict[str, int],
) -> Collected:
    by_conversation = defaultdict(list)
    for row in messages:
        by_conversation[row["conversation_id"]].append(row)
    found: list[Conversation] = []
    taught, still_waiting, left_out = set[str](), dict[str, int](), defaultdict[str, int](int)
    for conversation_id, rows in by_conversation.items():
        given_out = waiting.get(conversation_id, after_seq)
        if quiet_before_us is not None and max(row["at"] for row in rows) >= quiet_before_us:
            still_waiting[conversation_id] = given_out
            continue
        reason = _unusable(rows, consent)
        if reason:
            left_out[reason] += 1
            continue
        taught.update(row["message_id"] for row in rows if row["commit_seq"] <= given_out)
        found.append(_conversation(rows, feedback))
    ids = [c.conversation_id for c in found]
    kept = {one: annotations[one] for one in ids if one in annotations}
    return Collected(found, frozenset(taught), still_waiting, kept, dict(left_out))


def _unusable(rows: Iterable[dict[str, Any]], consent: Consent) -> str:
    if any(row["consent_basis"] in (*NO_BASIS, None) for row in rows):
        return "no_consent"
    if any(consent.is_withdrawn(row["person"], row["conversation_id"]) for row in rows):
        return "consent_withdrawn"
    if any(row["text"] is None for row in rows):
        return "no_text"
    return ""


def _conversation(rows: list[dict[str, Any]], feedback: dict[str, list[Feedback]]) -> Conversation:
    """`rows` come oldest first: of two messages at one position the later one stands."""
    by_position = {row["position"]: row for row in rows}
    standing = [by_position[position] for position in sorted(by_position)]
    first = rows[0]
    return Conversation(
        conversation_id=first["conversation_id"],
        person=first["person"],
        messages=tuple(
            Message(
                row["message_id"],
                Author(row["author_kind"], row["author_name"]),
                row["text"],
                row["finish_reason"],
            )
            for row in standing
        ),
        source=first["source"],
        consent_basis=first["consent_basis"],
        simulated=any(row["simulated"] for row in rows),
        feedback=tuple(f for row in standing for f in feedback.get(row["message_id"], ())),
    )
