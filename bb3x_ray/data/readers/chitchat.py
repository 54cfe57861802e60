"""People talking to people: the conversations of the installed package `chitchat-dataset`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bb3x_ray.data.event_rows import check_event
from bb3x_ray.data.readers.identity import fingerprint, microseconds
from bb3x_ray.data.readers.json_records import OnReject, file_bytes
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event

SOURCE = "chitchat"


@dataclass(frozen=True, slots=True)
class ChitchatConversation:
    """`turns` alternate between `people` in the order in which they first speak.

    rating   mean of what was asked about the talk (witty, upbeat, interesting), 1 to 10, or None
    """

    conversation_id: str
    people: tuple[str, ...]
    turns: tuple[str, ...]
    rating: float | None


def read_chitchat(min_turns: int = 2) -> list[ChitchatConversation]:
    """Conversations of at least `min_turns` turns that are not empty, in the package's order.

    Neighbouring texts of one sender are joined by a space. `min_turns=1` adds some 3,000 openers that
    nobody answered. Raises UserError when the package is not installed.
    """
    return [talk for talk in _all() if len(talk.turns) >= min_turns]


@lru_cache(maxsize=1)
def _all() -> tuple[ChitchatConversation, ...]:
    data = json.loads(_file().read_text(encoding="utf-8"))
    return tuple(_conversation(name, entry) for name, entry in data.items())


def _file() -> Path:
    package = find_spec("chitchat_dataset")
    if package is None or package.origin is None:
        raise UserError("the package chitchat-dataset is not installed: run `make setup` again.")
    return Path(package.origin).with_name("dataset.json")


def _conversation(name: str, entry: dict[str, Any]) -> ChitchatConversation:
    turns: list[tuple[str, str]] = []
    for message in (message for group in entry["messages"] for message in group):
        text = " ".join(message["text"].split())
        if not text:
            continue
        if turns and turns[-1][0] == message["sender"]:
            turns[-1] = (message["sender"], f"{turns[-1][1]} {text}")
        else:
            turns.append((message["sender"], text))
    ratings = list((entry.get("ratings") or {}).values())
    return ChitchatConversation(
        conversation_id=name,
        people=tuple(dict.fromkeys(sender for sender, _ in turns)),
        turns=tuple(text for _, text in turns),
        rating=sum(ratings) / len(ratings) if ratings else None,
    )


def read(path: Path, on_reject: OnReject) -> Iterator[Event]:
    """Events of every conversation of the package's `dataset.json`; a bad one is reported as a whole.

    Both sides are people. The mean of what was asked about the talk, 1 to 10, becomes an annotation from 1 to
    5; `details` keep the answers. Raises UserError when the file is no such object.
    """
    try:
        data = json.loads(file_bytes(path).decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise UserError(
            f"{path} is not valid JSON: give the dataset.json of the package chitchat-dataset."
        ) from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no conversations by name: give the dataset.json of chitchat-dataset.")
    for number, (name, entry) in enumerate(data.items(), start=1):
        try:
            events = _events(name, entry)
            for event in events:
                check_event(event)
        except ValueError as error:
            on_reject(0, f"conversation {number}: {error}", json.dumps({name: entry}))
        else:
            yield from events


def package_file() -> Path:
    """The conversations of the installed package. Raises UserError when it is not installed."""
    return _file()


def _events(name: str, entry: Any) -> list[Event]:
    groups = entry.get("messages") if isinstance(entry, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
        raise ValueError("messages must be a list of lists")
    conversation = f"{SOURCE}-{fingerprint(name)[:20]}"
    events: list[Event] = []
    for message in (message for group in groups for message in group):
        if not isinstance(message, dict) or not isinstance(message.get("text"), str):
            raise ValueError(f"message {len(events)}: text must be a string")
        if not isinstance(message.get("sender"), str):
            raise ValueError(f"message {len(events)}: sender must be a string")
        person = f"{SOURCE}-{fingerprint('person:' + message['sender'])[:16]}"
        index = len(events)
        events.append(
            Event(
                event_id=f"{conversation}/{index}",
                kind="message",
                at=microseconds(message.get("timestamp")),
                conversation_id=conversation,
                person=person,
                source=SOURCE,
                consent_basis=f"recorded:{SOURCE}",
                simulated=False,
                message_id=f"{conversation}-{index}",
                position=index,
                author_kind="person",
                author_name=person,
                text=message["text"],
            )
        )
    return events + _annotation(events, entry.get("ratings")) if events else []


def _annotation(events: list[Event], ratings: Any) -> list[Event]:
    if not ratings:
        return []
    if not isinstance(ratings, dict) or not all(isinstance(v, int | float) for v in ratings.values()):
        raise ValueError("ratings must be numbers by question")
    mean = sum(ratings.values()) / len(ratings)
    rating = min(5, max(1, round(mean / 2)))
    first = events[0]
    return [
        Event(
            event_id=f"{first.conversation_id}/score/{rating}",
            kind="annotation",
            at=events[-1].at,
            conversation_id=first.conversation_id,
            person=first.person,
            source=SOURCE,
            consent_basis=first.consent_basis,
            simulated=False,
            rating=rating,
            details=json.dumps({"ratings": ratings}),
        )
    ]
