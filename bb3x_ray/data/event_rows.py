"""Events as JSON lines and as Arrow rows; what a row must hold to be let into the log."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from bb3x_ray.schemas.conversation import AUTHOR_KINDS, LABELS
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import EVENT_SCHEMA, KINDS, Event

_STRINGS = (
    "event_id",
    "kind",
    "conversation_id",
    "person",
    "source",
    "consent_basis",
    "message_id",
    "comment",
    "correction",
)
_OPTIONAL_STRINGS = ("author_kind", "author_name", "text", "finish_reason", "details")


def to_lines(events: Sequence[Event]) -> bytes:
    """JSON lines, each ended by a newline. Raises UserError for a text that is not valid Unicode."""
    text = "".join(json.dumps(event.to_dict(), ensure_ascii=False) + "\n" for event in events)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            "an event holds half a surrogate pair (\\ud800 to \\udfff alone): send valid Unicode."
        ) from None


def parse_line(line: bytes) -> Event:
    """One line of a segment. Raises ValueError with a reason that never quotes the line."""
    try:
        row = json.loads(line.decode("utf-8"))  # left to itself, json would guess at UTF-16
    except UnicodeDecodeError:
        raise ValueError("not valid UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON at column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    try:
        event = Event.from_dict(row)
    except TypeError:
        raise ValueError("a field of the event is missing or has the wrong type") from None
    check_event(event)
    return event


def check_event(event: Event) -> None:
    """Raises ValueError with the reason why `event` cannot be a row of the log."""
    for name in _STRINGS:
        _expect(isinstance(getattr(event, name), str), f"{name} must be a string")
    for name in _OPTIONAL_STRINGS:
        _expect(
            getattr(event, name) is None or isinstance(getattr(event, name), str), f"{name} must be a string"
        )
    _expect(bool(event.event_id), "event_id must not be empty")
    if event.kind in ("consent", "erasure"):  # may be about all that a person ever said
        _expect(bool(event.person), "consent and erasure need their person")
    else:
        _expect(bool(event.conversation_id), "conversation_id must not be empty")
    _expect(_is_int(event.at, 64), "at must be microseconds since 1970")
    _expect(isinstance(event.simulated, bool), "simulated must be true or false")
    _expect(all(isinstance(reason, str) for reason in event.reasons), "reasons must be strings")
    _expect(event.position is None or _is_int(event.position, 32), "position must be a whole number")
    _expect(event.chunk is None or _is_int(event.chunk, 16), "chunk must be a small whole number")
    _expect(event.rating is None or _is_int(event.rating, 8), "rating must be a small whole number")
    weight = event.weight
    plain = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < float("inf")
    _expect(weight is None or plain, "weight must be a number above 0")
    if event.kind == "message":
        _expect(event.author_kind in AUTHOR_KINDS and bool(event.author_name), "a message needs its author")
        _expect(event.position is not None, "a message needs its position")
        _expect(bool(event.message_id), "a message needs its message_id")
    elif event.kind == "feedback":
        _expect(event.rating in (1, -1, None), "the rating of a feedback must be 1, -1 or null")
        _expect(bool(event.message_id), "a feedback needs the message_id of the reply it is about")
    elif event.kind == "annotation" and event.message_id:
        _expect(
            len(event.reasons) == 1 and event.reasons[0] in LABELS,
            f"the reasons of a message's annotation must be one of {', '.join(LABELS)}",
        )
        _expect(bool(event.author_name), "a message's annotation needs its rater as author_name")
    else:
        _expect(event.kind in KINDS, f"kind must be one of {', '.join(KINDS)}")
    _expect_unicode(event)


def _expect(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def _is_int(value: Any, bits: int) -> bool:
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
    )


def _expect_unicode(event: Event) -> None:
    """Arrow refuses lone surrogates, and would refuse the whole batch for one of them."""
    try:
        for name in (*_STRINGS, *_OPTIONAL_STRINGS):
            (getattr(event, name) or "").encode("utf-8")
        "".join(event.reasons).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a text holds half a surrogate pair") from None


def to_table(events: Sequence[Event], first_seq: int) -> pa.Table:
    """Rows of EVENT_SCHEMA; `commit_seq` counts up from `first_seq`."""
    rows = [{**event.to_dict(), "commit_seq": first_seq + i} for i, event in enumerate(events)]
    return pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
