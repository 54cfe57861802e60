"""The interactions table (Delta Lake), and the conversations that a round reads from it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import DeltaTable

from bb3x_ray.schemas.conversation import Author, Conversation, Feedback, Message
from bb3x_ray.schemas.event import EVENT_SCHEMA
from bb3x_ray.storage import Storage

TABLE = "interactions"
# Transaction "application" of the committer; its version is the last commit_seq of the table.
APP_ID = "bb3x-log"
# Delta's log keeps minima and maxima of these columns only: never a prefix of what a person wrote.
STATS_COLUMNS = ("commit_seq", "at", "event_id", "conversation_id", "message_id")


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


def head_of(table: DeltaTable | None) -> int:
    return (table.transaction_version(APP_ID) or 0) if table else 0


def head(storage: Storage) -> int:
    """Last commit_seq, 0 when nothing was committed yet."""
    return head_of(open_table(storage))


def scan(storage: Storage, table: DeltaTable, columns: list[str], keep: pc.Expression) -> pa.Table:
    """Rows of one table version. Arrow's own file system: no Python callbacks in its reading threads."""
    files = pafs.SubTreeFileSystem(str(storage.path(TABLE)), pafs.LocalFileSystem())
    schema = pa.schema([field for field in EVENT_SCHEMA if field.name in columns])
    there = [name for name in columns if name in table.schema().to_arrow().names]
    rows = table.to_pyarrow_dataset(filesystem=files).to_table(columns=there, filter=keep)
    for name in columns:
        if name not in there:  # written before the log knew this column
            rows = rows.append_column(name, pa.nulls(len(rows), schema.field(name).type))
    return rows.select(columns)


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
    return _assemble(messages, feedback, annotations, after_seq, quiet_before_us, waiting)


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
        reason = _unusable(rows)
        if reason:
            left_out[reason] += 1
            continue
        taught.update(row["message_id"] for row in rows if row["commit_seq"] <= given_out)
        found.append(_conversation(rows, feedback))
    ids = [c.conversation_id for c in found]
    kept = {one: annotations[one] for one in ids if one in annotations}
    return Collected(found, frozenset(taught), still_waiting, kept, dict(left_out))


def _unusable(rows: Iterable[dict[str, Any]]) -> str:
    if any(row["consent_basis"] in ("", "none", None) for row in rows):
        return "no_consent"
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
