"""People talking to people: the conversations of the installed package `chitchat-dataset`."""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bb3x_ray.schemas.errors import UserError


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
