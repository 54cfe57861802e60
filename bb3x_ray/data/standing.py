"""What stands of what was said about messages and conversations: the latest word counts.

Feedback is one person's: the latest of each person stands, and one that was taken back does not.
An annotation or a consent is about the conversation: the latest of all stands.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    """`messages` (with conversation_id and message_id) with a column for each of `kinds`.

    side        rows of SIDE_COLUMNS, in any order; those about other messages are left alone
    feedback    list of FEEDBACK structs; null where nobody ever said anything, [] where all was taken back
    annotation  1 to 5, or null: the conversation's standing rating, the same in each of its rows
    consent     the consent basis that came as an event of its own, or null
    """
    for kind in kinds:
        rows = side.filter(pc.equal(side["kind"], kind))
        if kind == "feedback":
            column = _feedback(messages["message_id"], rows)
        elif kind == "annotation":
            column = _latest_of_conversation(messages, rows, "rating", pa.int8())
        else:
            column = _latest_of_conversation(messages, rows, "consent_basis", pa.string())
        messages = messages.append_column(kind, column)
    return messages


def _feedback(message_ids: pa.ChunkedArray, rows: pa.Table) -> pa.Array:
    place = pc.index_in(rows["message_id"], message_ids.combine_chunks()) if len(rows) else None
    if place is None or place.null_count == len(rows):
        return pa.nulls(len(message_ids), pa.list_(FEEDBACK))
    about = rows.append_column("place", place).filter(pc.is_valid(place))
    latest: dict[tuple[int, str], dict[str, Any]] = {}
    for row in about.sort_by([("at", "ascending"), ("commit_seq", "ascending")]).to_pylist():
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


def _latest_of_conversation(messages: pa.Table, rows: pa.Table, value: str, type: pa.DataType) -> pa.Array:
    ids = messages["conversation_id"]
    latest = {
        row["conversation_id"]: row[value]
        for row in rows.sort_by([("at", "ascending"), ("commit_seq", "ascending")]).to_pylist()
    }
    if not latest:
        return pa.nulls(len(ids), type)
    place = pc.index_in(ids, pa.array(list(latest), pa.string()))
    return pa.array(list(latest.values()), type).take(place.combine_chunks())
