"""Chat messages in OpenAI's shape, one conversation a line, with or without thumbs.

    {"messages": [{"role": "user", "content": "…"},
                  {"role": "assistant", "content": "…", "rating": -1, "reasons": ["rude"], "comment": "…"}],
     "id": …, "user": …, "model": …, "created": 1700000000}

All but `messages` may be missing. `rating` is 1, -1, true or false; at the top of the line it (or `label`, as
in preference sets) is about the last reply. `content` may be a list of parts, of which the texts count. What
is neither user nor assistant (system prompts, tools) and calls of tools are no turns: the next message's
`details` keep them.
"""

import json
from typing import Any

from bb3x_ray.data.parsed_rows import Row, row_of
from bb3x_ray.data.readers.identity import fingerprint, microseconds
from bb3x_ray.schemas.conversation import REASONS
from bb3x_ray.schemas.event import Event

SOURCE = "openai"
KEYS = ("messages",)
_ROLES = ("user", "assistant", "system", "developer", "tool", "function")
_RATINGS: dict[Any, int] = {1: 1, -1: -1, 0: -1}  # true and false are 1 and 0


def add(record: dict[str, Any], rows: list[Row], chunk: int | None) -> None:
    """Append the events of one conversation. Raises ValueError with the reason why it is none."""
    messages = record["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a list")
    conversation = f"{SOURCE}-{fingerprint(_identity(record))[:20]}"
    user = record.get("user")
    of_whom = f"person:{user}" if isinstance(user, str | int) else f"person of:{conversation}"
    base = Event(
        event_id="",
        kind="message",
        at=microseconds(record.get("created", record.get("created_at"))),
        conversation_id=conversation,
        person=f"{SOURCE}-{fingerprint(of_whom)[:16]}",
        source=SOURCE,
        consent_basis=f"recorded:{SOURCE}",
        simulated=False,
    ).to_dict()
    rated_last = record.get("rating", record.get("label"))
    last = max((i for i, m in enumerate(messages) if _role(i, m) == "assistant"), default=-1)
    before: list[Any] = []
    position = 0
    for index, message in enumerate(messages):
        text = _text(index, message)
        if _role(index, message) not in ("user", "assistant") or text is None:
            before.append(message)
            continue
        rating = message.get("rating", rated_last if index == last else None)
        for event in _events(base, record, index, message, text, rating, position, before):
            rows.append(row_of(event))
        before, position = [], position + 1
    if not position:
        raise ValueError("messages must hold a text of user or assistant")


def _events(
    base: dict[str, Any],
    record: dict[str, Any],
    index: int,
    message: dict[str, Any],
    text: str,
    rating: Any,
    position: int,
    before: list[Any],
) -> list[Event]:
    """The message, and the thumb on it where a reply has one."""
    is_bot = message["role"] == "assistant"
    model = message.get("model", record.get("model"))
    known = {"role", "content", "model", "rating", "reasons", "comment", "correction"}
    details = {key: value for key, value in message.items() if key not in known}
    if before:
        details["before"] = before
    conversation = base["conversation_id"]
    said = {
        **base,
        "at": base["at"] + position,
        "message_id": f"{conversation}-{position}",
        "details": json.dumps(details) if details else None,
    }
    turn = Event.from_dict(
        {
            **said,
            "event_id": f"{conversation}/{position}",
            "position": position,
            "author_kind": "external" if is_bot else "person",
            "author_name": f"{SOURCE}:{model if isinstance(model, str) else 'unknown'}"
            if is_bot
            else base["person"],
            "text": text,
        }
    )
    if rating is None or not is_bot:  # people rate replies
        return [turn]
    if not isinstance(rating, int) or rating not in _RATINGS:
        raise ValueError(f"message {index}: rating must be 1, -1, true, false or null")
    thumb = Event.from_dict(
        {
            **said,
            "event_id": f"{conversation}/{position}/thumb/{_RATINGS[rating]}",
            "kind": "feedback",
            "rating": _RATINGS[rating],
            "reasons": _reasons(index, message),
            "comment": message.get("comment") or "",
            "correction": message.get("correction") or "",
            "details": None,
        }
    )
    return [turn, thumb]


def _role(index: int, message: Any) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f"message {index} must be an object with a role")
    if message["role"] not in _ROLES:
        raise ValueError(f"message {index}: role must be one of {', '.join(_ROLES)}")
    return str(message["role"])


def _text(index: int, message: dict[str, Any]) -> str | None:
    """What was said; None for a message without words, such as the call of a tool."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ValueError(f"message {index}: content must be a string, a list of parts, or null")
    texts = [part["text"] for part in content if isinstance(part.get("text"), str)]
    return "\n".join(texts) if texts else None


def _reasons(index: int, message: dict[str, Any]) -> list[str]:
    given = message.get("reasons") or []
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ValueError(f"message {index}: reasons must be a list of strings")
    return list(dict.fromkeys(one if one in REASONS else "other" for one in given))


def _identity(record: dict[str, Any]) -> list[Any]:
    """Its id, whose it is and how it began; without an id, all that was said."""
    messages = record["messages"]
    ids = [record.get(key) for key in ("id", "conversation_id", "user", "created")]
    said = [
        [message.get("role"), message.get("content")] if isinstance(message, dict) else None
        for message in messages
    ]
    named = record.get("id") is not None or record.get("conversation_id") is not None
    return [*ids, said[:1] if named else said]
