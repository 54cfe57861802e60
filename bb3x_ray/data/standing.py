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

_IN_TIME = [("at", "ascending"), ("commit_seq", "ascending")]


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
    place = _places(message_ids, rows["message_id"])
    if place.null_count == len(rows):
        return pa.nulls(len(message_ids), pa.list_(FEEDBACK))
    about = rows.append_column("place", place).filter(pc.is_valid(place)).sort_by(_IN_TIME)
    of_person = about["person"].combine_chunks().dictionary_encode()
    about_what = about["place"].to_numpy().astype(np.int64) * len(of_person.dictionary) + of_person.indices
    _, latest = np.unique(about_what[::-1], return_index=True)
    about = about.take(pa.array(len(about) - 1 - latest))
    about = about.sort_by([("place", "ascending"), ("commit_seq", "ascending")]).combine_chunks()
    stands = pc.is_valid(about["rating"]).to_numpy()
    places = about["place"].to_numpy()
    spoken = np.zeros(len(message_ids), dtype=bool)
    spoken[places] = True
    count = np.bincount(places[stands], minlength=len(message_ids))
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets),
        _structs(about.filter(pa.array(stands))),
        type=pa.list_(FEEDBACK),
        mask=pa.array(~spoken),
    )


def _places(ids: pa.ChunkedArray, wanted: pa.ChunkedArray) -> pa.Array:
    """[len(wanted)] where in `ids` each is first, or null. `wanted` are few: no table is made of `ids`."""
    different = wanted.unique()
    number = pc.index_in(ids, different)
    there = np.flatnonzero(pc.is_valid(number).to_numpy())[::-1]
    place = np.full(len(different), -1)
    place[number.take(pa.array(there)).to_numpy()] = there
    found = place[pc.index_in(wanted, different).to_numpy()]
    return pa.array(found, mask=found < 0)


def _structs(rows: pa.Table) -> pa.StructArray:
    """[N] FEEDBACK; no reasons are [], no comment is ""."""
    columns = {name: rows[name].combine_chunks() for name in FEEDBACK.names}
    reasons = columns["reasons"]
    sizes = pc.fill_null(pc.list_value_length(reasons), 0).to_numpy()
    columns["reasons"] = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)), reasons.flatten()
    )
    columns["comment"] = pc.fill_null(columns["comment"], "")
    return pa.StructArray.from_arrays(list(columns.values()), fields=list(FEEDBACK))


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
    found: list[dict[str, Any]] = rows.sort_by(_IN_TIME).to_pylist()
    return found
