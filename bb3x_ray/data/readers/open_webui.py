"""Open WebUI's feedback export (Admin, Evaluations, Feedback): one array of ratings, each with its chat.

    [{"id": …, "user_id": …, "type": "rating",
      "data": {"rating": -1, "model_id": …, "reason": "not_factually_correct", "comment": …,
               "tags": [], "details": {}},
      "meta": {"chat_id": …, "message_id": …, "arena": …, "tags": []},
      "snapshot": {"chat": {"id": …, "chat": {"history": {"currentId": …, "messages": {
          "<id>": {"id": …, "parentId": …, "role": "user", "content": …, "timestamp": 1700000000,
                   "model": …}}}}}},
      "created_at": …, "updated_at": …}]

A chat is a tree, since replies can be asked for again. A rating becomes the conversation that led to its
message: from the root to the rated reply. Two ratings within one chat give two conversations, of which one
may begin like the other; that way neither depends on what was rated later.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bb3x_ray.data.event_rows import check_event
from bb3x_ray.data.readers.identity import fingerprint, microseconds
from bb3x_ray.data.readers.json_records import OnReject, records
from bb3x_ray.schemas.event import Event

SOURCE = "open-webui"
_REASONS = {
    "not_factually_correct": "nonsensical",
    "didnt_fully_follow_instructions": "off_topic",
}
_RATINGS = {1: 1, "1": 1, -1: -1, "-1": -1}


def read(path: Path, on_reject: OnReject) -> Iterator[Event]:
    """Events of every rating; a bad entry is reported as a whole. A draw or a rating taken back gives a
    feedback without rating. Raises UserError when the file is missing or empty."""
    for line, record in records(path, ("data",), on_reject):
        try:
            events = _events(record)
            for event in events:
                check_event(event)
        except ValueError as error:
            on_reject(line, str(error), json.dumps(record))
        else:
            yield from events


def _events(record: dict[str, Any]) -> list[Event]:
    data, about = _object(record, "data"), _object(record, "meta")
    rated = about.get("message_id")
    if not isinstance(rated, str) or not rated:
        raise ValueError("meta.message_id must be the id of the rated message")
    messages = _messages(record)
    path = _path_to(rated, messages)
    chat = about.get("chat_id") or _object(_object(record, "snapshot"), "chat").get("id") or record.get("id")
    conversation = f"{SOURCE}-{fingerprint([chat, rated])[:20]}"
    person = f"{SOURCE}-{fingerprint(['person', record.get('user_id') or conversation])[:16]}"
    base = Event(
        event_id="",
        kind="message",
        at=0,
        conversation_id=conversation,
        person=person,
        source=SOURCE,
        consent_basis=f"recorded:{SOURCE}",
        simulated=False,
    )
    events = [_message(base, index, message, data) for index, message in enumerate(path)]
    return [*events, _feedback(base, record, data, about, max(len(path) - 1, 0))]


def _messages(record: dict[str, Any]) -> dict[str, Any]:
    """id -> message of the snapshot; empty where the export was made without chats."""
    chat = _object(_object(record, "snapshot"), "chat")
    inner = _object(chat, "chat") or chat
    found = _object(_object(inner, "history"), "messages")
    if not found and isinstance(inner.get("messages"), list):
        found = {
            m["id"]: m for m in inner["messages"] if isinstance(m, dict) and isinstance(m.get("id"), str)
        }
    return found


def _path_to(rated: str, messages: dict[str, Any]) -> list[dict[str, Any]]:
    """From the root to the rated message, system prompts left out; empty where the chat is not there."""
    if not messages:
        return []
    path: list[dict[str, Any]] = []
    seen: set[str] = set()
    at: Any = rated
    while at is not None:
        message = messages.get(at) if isinstance(at, str) else None
        if not isinstance(message, dict):
            raise ValueError("the rated message, or one before it, is not in the snapshot")
        if at in seen:
            raise ValueError("the messages of the snapshot lead in a circle")
        seen.add(at)
        if message.get("role") in ("user", "assistant"):
            path.append(message)
        at = message.get("parentId")
    if not path or path[0].get("role") != "assistant":
        raise ValueError("the rated message must be one of the assistant's")
    return path[::-1]


def _message(base: Event, index: int, message: dict[str, Any], data: dict[str, Any]) -> Event:
    if not isinstance(message.get("content"), str):
        raise ValueError(f"message {index}: content must be a string")
    is_bot = message["role"] == "assistant"
    model = message.get("model") or data.get("model_id") or "unknown"
    about = {key: message[key] for key in ("id", "modelName", "statusHistory", "sources") if message.get(key)}
    row = {
        "event_id": f"{base.conversation_id}/{index}",
        "at": microseconds(message.get("timestamp")) + index,
        "message_id": f"{base.conversation_id}-{index}",
        "position": index,
        "author_kind": "external" if is_bot else "person",
        "author_name": f"{SOURCE}:{model}" if is_bot else base.person,
        "text": message["content"],
        "details": json.dumps(about) if about else None,
    }
    return Event.from_dict({**base.to_dict(), **row})


def _feedback(
    base: Event, record: dict[str, Any], data: dict[str, Any], about: dict[str, Any], position: int
) -> Event:
    given = data.get("rating")
    if isinstance(given, bool) or not isinstance(given, str | int | None):
        raise ValueError("data.rating must be 1, 0, -1 or null")
    if given not in (None, "", 0, "0") and given not in _RATINGS:
        raise ValueError("data.rating must be 1, 0, -1 or null")
    rating = _RATINGS.get(given) if given is not None else None
    reason, comment = data.get("reason"), data.get("comment")
    if not isinstance(reason, str | None) or not isinstance(comment, str | None):
        raise ValueError("data.reason and data.comment must be strings")
    kept = {
        key: data[key]
        for key in ("rating", "reason", "tags", "details", "sibling_model_ids")
        if data.get(key)
    }
    if about.get("arena"):
        kept["arena"] = True
    at = microseconds(record.get("updated_at") or record.get("created_at"))
    row = {
        "event_id": f"{base.conversation_id}/thumb/{rating or 0}/{at}",
        "kind": "feedback",
        "at": at,
        "message_id": f"{base.conversation_id}-{position}",
        "rating": rating,
        "reasons": [_REASONS.get(reason, "other")] if rating == -1 and reason else [],
        "comment": comment or "",
        "details": json.dumps(kept) if kept else None,
    }
    return Event.from_dict({**base.to_dict(), **row})


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be an object")
    return value
