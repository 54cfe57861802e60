"""Recorded people split once into disjoint parts (law 11): who is in one part is in no other."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from bb3x_ray.data.readers.chitchat import ChitchatConversation

# Share of the people. A conversation is used only where both its people are in one part, so a part
# holds about the square of its share of the conversations.
WEIGHTS = {"talk": 0.30, "human": 0.22, "perplexity": 0.10, "evaluation": 0.18, "judge": 0.20}

Parts = dict[str, list[ChitchatConversation]]


def part_of(person: str, seed: int) -> str:
    """The part of a person: the same on every machine, whoever else there is."""
    digest = hashlib.sha256(f"{seed}:{person}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for part, weight in WEIGHTS.items():
        place -= weight
        if place < 0:
            return part
    return part


def split_parts(conversations: Sequence[ChitchatConversation], seed: int = 0) -> Parts:
    """Part -> its conversations, in order. Those between people of two parts are in none.

    People differ widely in how much they talk, so sizes depend on `seed`; with the embedded package
    and seed 0 every part gets at least 100 conversations.
    """
    parts: Parts = {part: [] for part in WEIGHTS}
    for conversation in conversations:
        homes = {part_of(person, seed) for person in conversation.people}
        if len(homes) == 1:
            parts[homes.pop()].append(conversation)
    return parts


def parts_manifest(parts: Parts) -> dict[str, Any]:
    """Part -> counts, and digests of the sorted ids: two manifests agree when their digests do."""
    return {part: _about(conversations) for part, conversations in parts.items()}


def check_disjoint(parts: Mapping[str, Sequence[ChitchatConversation]]) -> None:
    """Raises ValueError when a person or a conversation is in two parts."""
    home: dict[str, str] = {}
    for part, conversations in parts.items():
        for conversation in conversations:
            for name in (f"conversation {conversation.conversation_id}", *conversation.people):
                if home.setdefault(name, part) != part:
                    raise ValueError(f"parts {home[name]} and {part} share a person or a conversation")


def _about(conversations: Sequence[ChitchatConversation]) -> dict[str, Any]:
    people = sorted({person for c in conversations for person in c.people})
    ids = sorted(c.conversation_id for c in conversations)
    return {
        "conversations": len(ids),
        "people": len(people),
        "turns": sum(len(c.turns) for c in conversations),
        "conversations_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "people_sha256": hashlib.sha256("\n".join(people).encode()).hexdigest(),
    }
