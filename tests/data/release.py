"""Made-up conversations in the release's shape, as events, and what its rules make of them, plainly."""

import json
import random
from typing import Any

from bb3x_ray.schemas.event import Event

OK = {"duo_safety": "__ok__", "string_matcher": "__ok__"}
UNSAFE = {"duo_safety": "__notok__", "string_matcher": "__ok__"}
SWEARING = {"duo_safety": "__ok__", "string_matcher": "__notok__"}
# What a person might write to be taken for an annotation, and texts that have tripped readers before.
TEXTS = (
    "hello",
    "",
    "two\nlines",
    "ünïcödé 🎈",
    '{"safety": {"duo_safety": "__notok__"}}',
    '"mturk": 1',
    "\\",
)


def conversations(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Records of the release, each with its `chunk` beside."""
    dice = random.Random(seed)
    return [_conversation(number, dice) for number in range(count)]


def _conversation(number: int, dice: random.Random) -> dict[str, Any]:
    humans_trip = dice.random() < 0.4
    history = []
    human = dice.random() < 0.8
    for _ in range(dice.randrange(1, 9)):
        message: dict[str, Any] = {"text": dice.choice(TEXTS), "sender": "human" if human else "bot"}
        message["safety"] = dice.choice([UNSAFE, SWEARING, OK]) if humans_trip or not human else OK
        if dice.random() < 0.3:
            message["mturk"] = {"good": 2, "inappropriate": dice.randrange(2)}
        if not human:
            message |= {
                "memories": [dice.choice(TEXTS)],
                "is_liked": dice.random() < 0.2,
                "is_disliked": False,
            }
            message["search_knowledge_doc_content"] = [dice.choice(TEXTS)] * 2
        history.append(message)
        human = not human if dice.random() < 0.9 else human  # real data repeats senders
    return {
        "user_pseudo_id": f"p{number % 7}",
        "chat_id": f"c{number}",
        "chunk": dice.randrange(8),
        "message_history": history,
    }


def events_of(record: dict[str, Any]) -> list[Event]:
    """The record's events: messages with their details, thumbs as feedback."""
    found = []
    base: dict[str, Any] = {
        "at": 5,
        "conversation_id": record["chat_id"],
        "person": record["user_pseudo_id"],
        "source": "bb3",
        "consent_basis": "recorded:bb3",
        "simulated": False,
        "chunk": record["chunk"],
    }
    for position, message in enumerate(record["message_history"]):
        message_id = f"{record['chat_id']}-{position}"
        is_human = message["sender"] == "human"
        details = {key: value for key, value in message.items() if key not in ("text", "sender")}
        found.append(
            Event(
                event_id=message_id,
                kind="message",
                message_id=message_id,
                position=position,
                author_kind="person" if is_human else "external",
                author_name=record["user_pseudo_id"] if is_human else "bb3:bot",
                text=message["text"],
                details=json.dumps(details, separators=(",", ":") if position % 2 else None),
                **base,
            )
        )
        if message.get("is_liked"):
            found.append(
                Event(
                    event_id=message_id + "/thumb", kind="feedback", message_id=message_id, rating=1, **base
                )
            )
    return found


def plain_examples(record: dict[str, Any], label: str, only: str) -> list[dict[str, Any]]:
    """The release's rules, one message at a time: what the views must agree with."""
    history = record["message_history"]
    trips = any(m["sender"] == "human" and set(m["safety"].values()) != {"__ok__"} for m in history)
    chunk = record["chunk"]
    split = "test" if chunk <= 2 else "valid" if chunk <= 5 else "train"
    if only == "standard" and trips:
        return []
    return [
        {
            "conversation_id": record["chat_id"],
            "position": index,
            "context": "\n".join(m["text"] for m in history[:index]),
            "label": message["text"],
            "label_info": {k: v for k, v in message.items() if k not in ("text", "sender")},
            "adversarial_human": trips,
            "split": split,
        }
        for index, message in enumerate(history)
        if index and message["sender"] == label and (only != "crowd" or message.get("mturk") is not None)
    ]
