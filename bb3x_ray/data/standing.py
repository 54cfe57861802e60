"""What stands of what was said about messages and conversations: the latest word counts.

Feedback is one person's: the latest of each person stands, and one that was taken back does not.
An annotation is about the conversation: the latest of all stands. So does the latest consent, be it about
the conversation or about EVERYTHING that its person ever said.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.schemas.event import EVERYTHING

SIDE_KINDS = ("feedback", "annotation", "consent")
SIDE_COLUMNS = [
    "commit_seq",
    "event_id",
    "kind",
    "at",
    "conversation_id",
    "person",
    "consent_basis",
    "message_id",
    "rating",
    "reasons",
    "comment",
]
FEEDBACK = pa.struct(
    [
        ("event_id", pa.string()),
        ("person", pa.string()),
        ("rating", pa.int8()),
        ("reasons", pa.list_(pa.string())),
        ("comment", pa.string()),
    ]
)


def with_standing(messages: pa.Table, side: pa.Table, kinds: Sequence[str]) -> pa.Table:
    """`messages` (with conversation_id, person and message_id) with a column for each of `kinds`.

    side        rows of SIDE_COLUMNS, in any order; those about other messages are left alone
    feedback    list of FEEDBACK structs; null where nobody ever said anything, [] where all was taken back
    annotation  1 to 5, or null: the conversation's standing rating, the same in each of its rows
    consent     the consent basis that came as an event of its own, or null
    """
    for kind in kinds:
        rows = side.filter(pc.equal(side["kind"], kind))
        if kind == "feedback":
            column = standing_feedback(messages["message_id"], rows)
        elif kind == "annotation":
            column = _annotation(messages["conversation_id"], rows)
        else:
            column = _consent(messages, rows)
        messages = messages.append_column(kind, column)
    return messages


def standing_feedback(message_ids: pa.ChunkedArray, rows: pa.Table) -> pa.Array:
    """The column `feedback` of `with_standing`. `rows`: feedback with SIDE_COLUMNS, in any order."""
    place = pc.index_in(rows["message_id"], message_ids.combine_chunks()) if len(rows) else None
    if place is None or place.null_count == len(rows):
        return pa.nulls(len(message_ids), pa.list_(FEEDBACK))
    about = rows.append_column("place", place).filter(pc.is_valid(place))
    latest: dict[tuple[int, str], dict[str, Any]] = {}
    for row in _oldest_first(about):
        latest[row["place"], row["person"]] = row
    ordered = sorted(latest.values(), key=lambda row: (row["place"], row["commit_seq"]))
    values = [
        {
            "event_id": row["event_id"],
            "person": row["person"],
            "rating": row["rating"],
            "reasons": row["reasons"] or [],
            "comment": row["comment"] or "",
        }
        for row in ordered
        if row["rating"] is not None
    ]
    spoken = np.zeros(len(message_ids), dtype=bool)
    count = np.zeros(len(message_ids), dtype=np.int64)
    for row in ordered:
        spoken[row["place"]] = True
        count[row["place"]] += row["rating"] is not None
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(values, FEEDBACK), type=pa.list_(FEEDBACK), mask=pa.array(~spoken)
    )


def _annotation(conversation_ids: pa.ChunkedArray, rows: pa.Table) -> pa.Array:
    if not len(rows):
        return pa.nulls(len(conversation_ids), pa.int8())
    latest = {row["conversation_id"]: row["rating"] for row in _oldest_first(rows)}
    place = pc.index_in(conversation_ids, pa.array(list(latest), pa.string())).combine_chunks()
    return pa.array(list(latest.values()), pa.int8()).take(place)


def _consent(messages: pa.Table, rows: pa.Table) -> pa.Array:
    """The later of what its person said about the conversation and about all they ever said stands; what
    somebody else says of a conversation is nothing."""
    if not len(rows):
        return pa.nulls(len(messages), pa.string())
    spoken = {
        (row["person"], row["conversation_id"]): (number, row["consent_basis"])
        for number, row in enumerate(_oldest_first(rows))
    }
    silent = (-1, None)
    pairs = (
        messages.select(["conversation_id", "person"]).group_by(["conversation_id", "person"]).aggregate([])
    )
    about: dict[str, str | None] = {}
    for row in pairs.to_pylist():
        said = (spoken.get((row["person"], what), silent) for what in (row["conversation_id"], EVERYTHING))
        about[row["conversation_id"]] = max(said, key=lambda one: one[0])[1]
    place = pc.index_in(messages["conversation_id"], pa.array(list(about), pa.string())).combine_chunks()
    return pa.array(list(about.values()), pa.string()).take(place)


def _oldest_first(rows: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows.sort_by([("at", "ascending"), ("commit_seq", "ascending")]).to_pylist()
    return found
