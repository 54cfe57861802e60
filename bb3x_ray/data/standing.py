"""What stands of what was said about messages and conversations: the latest word counts.

Feedback is one person's: the latest of each person stands, and one that was taken back does not.
An annotation of a message is one rater's: the latest of each stands. One without a message is about the
conversation: the latest of all stands. So does the latest consent, be it about the conversation or about
EVERYTHING that its person ever said.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.consent import NO_BASIS
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
    "author_name",
    "rating",
    "reasons",
    "comment",
    "correction",
    "weight",
]
FEEDBACK = pa.struct(
    [
        ("event_id", pa.string()),
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
        ("rater", pa.string()),
        ("label", pa.string()),
        ("weight", pa.float64()),
    ]
)
# The columns that a kind adds to messages.
ADDED = {"feedback": ("feedback",), "annotation": ("annotation", "annotations"), "consent": ("consent",)}

_IN_TIME = [("at", "ascending"), ("commit_seq", "ascending")]


def with_standing(messages: pa.Table, side: pa.Table, kinds: Sequence[str]) -> pa.Table:
    """`messages` (with conversation_id, person and message_id) with the columns that `kinds` add (ADDED).

    side         rows of SIDE_COLUMNS, in any order; those about other messages are left alone
    feedback     list of FEEDBACK structs; null where nobody ever said anything, [] where all was taken back
    annotation   1 to 5, or null: the conversation's standing rating, the same in each of its rows
    annotations  list of ANNOTATION structs; null where nobody annotated the message
    consent      the consent basis that came as an event of its own, or null
    """
    for kind in kinds:
        rows = side.filter(pc.equal(side["kind"], kind))
        if kind == "feedback":
            columns = [standing_feedback(messages["message_id"], rows)]
        elif kind == "annotation":
            columns = [
                _annotation(messages["conversation_id"], rows),
                standing_annotations(messages["message_id"], rows),
            ]
        else:
            columns = [_consent(messages, rows)]
        for name, column in zip(ADDED[kind], columns, strict=True):
            messages = messages.append_column(name, column)
    return messages


def standing_feedback(message_ids: pa.ChunkedArray, rows: pa.Table) -> pa.Array:
    """The column `feedback` of `with_standing`. `rows`: feedback with SIDE_COLUMNS, in any order."""
    about = _latest(message_ids, rows, "person")
    return _lists(len(message_ids), about, pc.is_valid(about["rating"]), _feedback_structs)


def standing_annotations(message_ids: pa.ChunkedArray, rows: pa.Table) -> pa.Array:
    """The column `annotations` of `with_standing`. `rows`: annotations with SIDE_COLUMNS, in any order."""
    rows = rows.filter(pc.not_equal(rows["message_id"], ""))  # the others are about whole conversations
    about = _latest(message_ids, rows, "author_name")
    return _lists(len(message_ids), about, pc.is_valid(about["message_id"]), _annotation_structs)


def _latest(message_ids: pa.ChunkedArray, rows: pa.Table, who: str) -> pa.Table:
    """The latest row of each (message, `who`) with its `place` in `message_ids`, by place and commit_seq."""
    place = _places(message_ids, rows["message_id"])
    about = rows.append_column("place", place).filter(pc.is_valid(place)).sort_by(_IN_TIME)
    if not len(about):
        return about
    of_whom = about[who].combine_chunks().dictionary_encode()
    about_what = about["place"].to_numpy().astype(np.int64) * len(of_whom.dictionary) + of_whom.indices
    _, latest = np.unique(about_what[::-1], return_index=True)
    about = about.take(pa.array(len(about) - 1 - latest))
    return about.sort_by([("place", "ascending"), ("commit_seq", "ascending")])


def _lists(
    size: int, about: pa.Table, stands: pa.ChunkedArray, structs: Callable[[pa.Table], pa.StructArray]
) -> pa.Array:
    """[size] lists of `structs` of the rows of `about` (see `_latest`) that stand; null where none is."""
    values = structs(about.filter(stands).combine_chunks())
    if not len(about):
        return pa.nulls(size, pa.list_(values.type))
    places = about["place"].to_numpy()
    spoken = np.zeros(size, dtype=bool)
    spoken[places] = True
    count = np.bincount(places[stands.to_numpy()], minlength=size)
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), values, type=pa.list_(values.type), mask=pa.array(~spoken)
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


def _annotation_structs(rows: pa.Table) -> pa.StructArray:
    """[N] ANNOTATION; the label is the only one of the row's reasons, no weight is 1."""
    label, weight = pc.list_element(rows["reasons"], 0), pc.fill_null(rows["weight"], 1.0)
    columns = [rows["event_id"], rows["author_name"], label, weight]
    return pa.StructArray.from_arrays([_one(column) for column in columns], fields=list(ANNOTATION))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _feedback_structs(rows: pa.Table) -> pa.StructArray:
    """[N] FEEDBACK; no reasons are [], no comment and no correction are ""."""
    columns = {name: _one(rows[name]) for name in FEEDBACK.names}
    reasons = columns["reasons"]
    sizes = pc.fill_null(pc.list_value_length(reasons), 0).to_numpy()
    columns["reasons"] = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)), reasons.flatten()
    )
    for words in ("comment", "correction"):
        columns[words] = pc.fill_null(columns[words], "")
    return pa.StructArray.from_arrays(list(columns.values()), fields=list(FEEDBACK))


def _annotation(conversation_ids: pa.ChunkedArray, rows: pa.Table) -> pa.Array:
    rows = rows.filter(pc.equal(rows["message_id"], ""))
    if not len(rows):
        return pa.nulls(len(conversation_ids), pa.int8())
    latest = {row["conversation_id"]: row["rating"] for row in _oldest_first(rows)}
    place = pc.index_in(conversation_ids, pa.array(list(latest), pa.string())).combine_chunks()
    return pa.array(list(latest.values()), pa.int8()).take(place)


def _consent(messages: pa.Table, rows: pa.Table) -> pa.Array:
    """For each message the later of what its person said about the conversation and about all they ever said;
    what somebody else says of it is nothing."""
    if not len(rows):
        return pa.nulls(len(messages), pa.string())
    said = Consent.of(rows)
    codes = [messages[name].combine_chunks().dictionary_encode() for name in ("person", "conversation_id")]
    people, talks = (code.dictionary.to_pylist() for code in codes)
    of_pair = codes[0].indices.to_numpy().astype(np.int64) * len(talks) + codes[1].indices.to_numpy()
    pairs, place = np.unique(of_pair, return_inverse=True)
    bases = [said.about(people[pair // len(talks)], talks[pair % len(talks)]) for pair in pairs.tolist()]
    return pa.array(bases, pa.string()).take(pa.array(place))


@dataclass(frozen=True, slots=True)
class Consent:
    """(person, conversation_id or EVERYTHING) -> (place in the order of time, consent basis)."""

    said: dict[tuple[str, str], tuple[int, str]]

    @classmethod
    def of(cls, rows: pa.Table) -> "Consent":
        """rows: `consent` events with SIDE_COLUMNS, in any order."""
        return cls(
            {
                (row["person"], row["conversation_id"]): (number, row["consent_basis"])
                for number, row in enumerate(_oldest_first(rows))
            }
        )

    def about(self, person: str, conversation_id: str) -> str | None:
        """The basis that stands, None where the person never said anything of it."""
        found = [
            self.said[key] for what in (conversation_id, EVERYTHING) if (key := (person, what)) in self.said
        ]
        return max(found)[1] if found else None

    def is_withdrawn(self, person: str, conversation_id: str) -> bool:
        return self.about(person, conversation_id) in NO_BASIS


def _oldest_first(rows: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows.sort_by(_IN_TIME).to_pylist()
    return found
