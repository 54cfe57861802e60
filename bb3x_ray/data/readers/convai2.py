"""ConvAI2's volunteer files: people talking to bots, with thumbs per utterance and a score per dialog.

    [{"dialog": [{"id": 0, "sender": "participant1", "text": …, "evaluation_score": null|1|0,
                  "sender_class": "Human"|"Bot"}, …],
      "start_time": "2018-10-29 03:32:08.296", "eval_score": null|1…5, "dialog_id": …,
      "participant1_id": {"class": "User", "user_id": …}, "participant2_id": {"class": "Bot", …}}, …]

One array, or one object a line. Files of paid workers lack ids, classes and thumbs: there
participant2 is the bot (93 % of those dialogs talk about the profiles that way round).
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bb3x_ray.data.event_rows import check_event
from bb3x_ray.data.readers.json_records import OnReject, records
from bb3x_ray.schemas.conversation import AuthorKind
from bb3x_ray.schemas.event import Event

SOURCE = "convai2"
_PARTICIPANTS = ("participant1", "participant2")


def read(path: Path, on_reject: OnReject) -> Iterator[Event]:
    """Events of every good dialog; a bad one is reported to `on_reject(line, reason, raw)` as a whole.

    Event ids depend on the dialog alone: reading it twice gives the same events. Times are those of
    the dialog's start, one microsecond apart; 0 where the file gives none.
    Raises UserError when the file is missing or empty.
    """
    for line, record in records(path, ("dialog",), on_reject):
        try:
            events = _events(record)
            for event in events:
                check_event(event)
        except ValueError as error:
            raw = json.dumps(record, ensure_ascii=True)
            on_reject(line, str(error), raw)
        else:
            yield from events


def _events(record: dict[str, Any]) -> list[Event]:
    """All events of one dialog. Raises ValueError with the reason, never with its text."""
    messages = record["dialog"]
    _expect(isinstance(messages, list) and bool(messages), "dialog must be a list of messages")
    for index, message in enumerate(messages):
        _check_message(index, message)
    bots = _bots(record, messages)
    _expect(len(bots) == 1, "exactly one of the two participants must be a bot")
    conversation_id = f"{SOURCE}-{_hash(_identity(record))[:20]}"
    person = _person(record, bots, conversation_id)
    start = _microseconds(record.get("start_time"))
    base = Event(
        event_id="",
        kind="message",
        at=start,
        conversation_id=conversation_id,
        person=person,
        source=SOURCE,
        consent_basis=f"recorded:{SOURCE}",
        simulated=False,
    )
    events = []
    for index, message in enumerate(messages):
        events += _of_message(base, record, index, message, is_bot=message["sender"] in bots)
    return events + _of_dialog(base, record, len(messages))


def _of_message(
    base: Event, record: dict[str, Any], index: int, message: dict[str, Any], is_bot: bool
) -> list[Event]:
    """The message, and the thumb on it when a person gave one to a bot."""
    shared = {
        **base.to_dict(),
        "at": base.at + index,
        "message_id": f"{base.conversation_id}-{index}",
    }
    kind: AuthorKind = "external" if is_bot else "person"
    name = _bot_name(record, message["sender"]) if is_bot else base.person
    said = Event.from_dict(
        {
            **shared,
            "event_id": _hash(f"{base.conversation_id}/{index}")[:32],
            "position": index,
            "author_kind": kind,
            "author_name": name,
            "text": message["text"],
        }
    )
    score = message.get("evaluation_score")
    if score is None or not is_bot:  # people rate bots; a mark on a person's own message says nothing
        return [said]
    thumb = Event.from_dict(
        {
            **shared,
            "event_id": _hash(f"{base.conversation_id}/{index}/thumb/{int(score)}")[:32],
            "kind": "feedback",
            "rating": 1 if score else -1,
        }
    )
    return [said, thumb]


def _of_dialog(base: Event, record: dict[str, Any], length: int) -> list[Event]:
    """The person's rating of the whole dialog, as an annotation."""
    score = record.get("eval_score")
    if score is None or score == "":
        return []
    _expect(isinstance(score, int) and 0 <= score <= 5, "eval_score must be a whole number from 1 to 5")
    if score == 0:  # ConvAI2's "not rated"
        return []
    event_id = _hash(f"{base.conversation_id}/score/{score}")[:32]
    row = {"event_id": event_id, "kind": "annotation", "at": base.at + length, "rating": int(score)}
    return [Event.from_dict({**base.to_dict(), **row})]


def _check_message(index: int, message: Any) -> None:
    _expect(isinstance(message, dict), f"message {index} must be an object")
    _expect(isinstance(message.get("text"), str), f"message {index}: text must be a string")
    _expect(
        message.get("sender") in _PARTICIPANTS,
        f"message {index}: sender must be participant1 or participant2",
    )
    score = message.get("evaluation_score")
    _expect(
        score is None or (isinstance(score, int) and score in (0, 1)),
        f"message {index}: evaluation_score must be 1, 0 or null",
    )


def _bots(record: dict[str, Any], messages: list[dict[str, Any]]) -> set[str]:
    """Which participants are bots: by class, else by `sender_class`, else participant2."""
    about = {p: record.get(f"{p}_id") for p in _PARTICIPANTS}
    classes = {p: who["class"] for p, who in about.items() if isinstance(who, dict) and "class" in who}
    classes |= {m["sender"]: m["sender_class"] for m in messages if isinstance(m.get("sender_class"), str)}
    if not classes:
        return {"participant2"}
    return {participant for participant, kind in classes.items() if kind == "Bot"}


def _identity(record: dict[str, Any]) -> str:
    """What makes a dialog this dialog: its id, who talked, when, and how it began.

    Ids may be counted anew in each file, so they do not suffice; without id and time, all that was
    said counts.
    """
    said = [(m["sender"], m["text"]) for m in record["dialog"]]
    keys = ("dialog_id", "start_time", "participant1_id", "participant2_id")
    dated = record.get("dialog_id") is not None or record.get("start_time")
    return json.dumps([*(record.get(key) for key in keys), said[:1] if dated else said], sort_keys=True)


def _person(record: dict[str, Any], bots: set[str], conversation_id: str) -> str:
    """Pseudonym of the person; where the file has no ids, everyone is someone else."""
    for participant in _PARTICIPANTS:
        about = record.get(f"{participant}_id")
        user_id = about.get("user_id") if isinstance(about, dict) else None
        if participant not in bots and isinstance(user_id, str | int):
            return f"{SOURCE}-{_hash(f'person:{user_id}')[:16]}"
    return f"{SOURCE}-{_hash('person of:' + conversation_id)[:16]}"


def _bot_name(record: dict[str, Any], participant: str) -> str:
    about = record.get(f"{participant}_id")
    name = about.get("user_id") if isinstance(about, dict) else None
    return f"{SOURCE}:{name}" if isinstance(name, str | int) else f"{SOURCE}:unknown"


def _microseconds(value: Any) -> int:
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return 0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return round(when.timestamp() * 1e6)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _expect(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)
