"""One row of the interaction log: a message, a feedback, an annotation, a consent or an erasure.

Events are written by replicas (JSON lines), moved into the Delta table by the one committer, and
ordered there by `commit_seq`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import pyarrow as pa

EventKind = Literal["message", "feedback", "annotation", "consent", "erasure"]

# What a consent event is about that is about no single conversation.
EVERYTHING = "*"
# The `reasons` of an erasure that is about its conversation only; without it, it is about its person.
ONE_CONVERSATION = "conversation"
# Among the `reasons` of a person's message: it answers "what went wrong?" (see Message.is_feedback).
IS_FEEDBACK = "is_feedback"
# A turn that failed leaves a feedback without a rating, which no reader takes for talk or for a thumb: its
# event_id begins with the one, and its `details` say which version and arm under the other.
FAILED_TURN_ID, FAILED_TURN = "f-failed-", "failed_turn"
KINDS: tuple[EventKind, ...] = get_args(EventKind)
_REPLY_ID = re.compile(r"(m-[0-9a-f]{32})\.[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Event:
    """`event_id` is unique for ever: the log keeps one row for it, however often it is sent.

    at            microseconds since 1970, UTC
    position      place of the message in its conversation, from 0 (messages only)
    message_id    the message itself, or the message that a feedback or an annotation is about; an annotation
                  without one is about the whole conversation
    person        pseudonym of the person of this conversation (who talked, or who pressed the thumb)
    author_*      see `schemas.conversation.Author`; of an annotation of a message, its rater
    rating        1, -1 or None (taken back) for feedback; 1 to 5 of a whole conversation for annotation
    reasons       of a feedback; the one label of a message's annotation; of a message IS_FEEDBACK or nothing;
                  of an erasure ONE_CONVERSATION or nothing
    comment       of a feedback: what went wrong, in words
    correction    of a feedback: what the bot should have said
    weight        of a message's annotation: see `schemas.conversation.Annotation`; None is 1
    chunk         number of the release's file that holds the conversation: its split; None elsewhere
    details       a JSON object: what the source says of the message beside, with the release's keys
    """

    event_id: str
    kind: EventKind
    at: int
    conversation_id: str
    person: str
    source: str
    consent_basis: str
    simulated: bool
    message_id: str = ""
    position: int | None = None
    author_kind: str | None = None
    author_name: str | None = None
    text: str | None = None
    finish_reason: str | None = None
    rating: int | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""
    chunk: int | None = None
    details: str | None = None
    correction: str = ""
    weight: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Event":
        known = {f.name for f in fields(cls)}
        kept = {key: value for key, value in row.items() if key in known}
        return cls(**{**kept, "reasons": tuple(kept.get("reasons") or ())})


def reply_id(message: str, completion: str) -> str:
    """The event id of a reply of ours, which is written once for each completion.

    message      the id of these words at this place, as a client's copy of the reply would have it
    completion   32 hex digits
    """
    return f"{message}.{completion}"


def with_copies(event_ids: Iterable[str]) -> Iterator[str]:
    """The ids, and after each reply of ours that of a client's copy of it: with the reply the log has it."""
    for event_id in event_ids:
        yield event_id
        if reply := _REPLY_ID.fullmatch(event_id):
            yield reply[1]


EVENT_SCHEMA = pa.schema(
    [
        ("commit_seq", pa.int64()),
        ("event_id", pa.string()),
        ("kind", pa.string()),
        ("at", pa.int64()),
        ("conversation_id", pa.string()),
        ("person", pa.string()),
        ("source", pa.string()),
        ("consent_basis", pa.string()),
        ("simulated", pa.bool_()),
        ("message_id", pa.string()),
        ("position", pa.int32()),
        ("author_kind", pa.string()),
        ("author_name", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("rating", pa.int8()),
        ("reasons", pa.list_(pa.string())),
        ("comment", pa.string()),
        ("chunk", pa.int16()),
        ("details", pa.string()),
        ("correction", pa.string()),
        ("weight", pa.float64()),
    ]
)
