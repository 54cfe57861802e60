"""A tiny deployment in the release format, of made-up words."""

import json
from pathlib import Path
from typing import Any


def human(text: str, **about: Any) -> dict[str, Any]:
    return {"text": text, "sender": "human", "human_message_id": "h", "is_dislike_feedback": False, **about}


def bot(text: str, **about: Any) -> dict[str, Any]:
    return {
        "text": text,
        "sender": "bot",
        "bot_message_id": "b",
        "is_liked": False,
        "is_disliked": False,
        **about,
    }


def talk(number: int, *messages: dict[str, Any], **about: Any) -> dict[str, Any]:
    said = messages or (human(f"text {{ {number}.0 }}"), bot(f"text {{ {number}.1 }}", is_liked=True))
    return {
        "user_pseudo_id": f"u{number % 3}",
        "chat_id": f"c{number}",
        "message_history": list(said),
        **about,
    }


def write(path: Path, talks: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in talks))
    return path
