"""Anthropic's HH-RLHF: pairs of a chosen and a rejected transcript.

    {"chosen": "\\n\\nHuman: …\\n\\nAssistant: …", "rejected": "\\n\\nHuman: …\\n\\nAssistant: …"}

A pair becomes two conversations of one person, which share what was said before: each ends in its own reply,
the chosen one with a thumb up, the rejected one with a thumb down. Two replies at one place of a single
conversation would not do: the later of them would stand for both.
"""

import json
import re
from typing import Any

from bb3x_ray.data.parsed_rows import Row, row_of
from bb3x_ray.data.readers.identity import fingerprint
from bb3x_ray.schemas.event import Event

SOURCE = "hh-rlhf"
KEYS = ("chosen",)
_TURN = re.compile(r"\n\n(Human|Assistant):")


def add(record: dict[str, Any], rows: list[Row], chunk: int | None) -> None:
    """Append both conversations of a pair. Raises ValueError with the reason why it is none."""
    pair = {side: _turns(side, record.get(side)) for side in ("chosen", "rejected")}
    identity = fingerprint(pair)
    person = f"{SOURCE}-{fingerprint(['person of', identity])[:16]}"
    for side, turns in pair.items():
        rows += map(row_of, _conversation(f"{SOURCE}-{identity[:20]}-{side}", side, turns, person))


def _turns(side: str, transcript: Any) -> list[tuple[str, str]]:
    """(Human or Assistant, text) of each turn."""
    if not isinstance(transcript, str):
        raise ValueError(f"{side} must be a string")
    before, *pieces = _TURN.split(transcript)
    turns = list(zip(pieces[::2], map(str.strip, pieces[1::2]), strict=True))
    if before.strip() or not turns:
        raise ValueError(f"{side} must begin with a turn of Human or Assistant")
    if turns[-1][0] != "Assistant":
        raise ValueError(f"{side} must end with a turn of Assistant")
    return turns


def _conversation(name: str, side: str, turns: list[tuple[str, str]], person: str) -> list[Event]:
    events = []
    for index, (speaker, text) in enumerate(turns):
        is_bot = speaker == "Assistant"
        events.append(
            Event(
                event_id=f"{name}/{index}",
                kind="message",
                at=index,
                conversation_id=name,
                person=person,
                source=SOURCE,
                consent_basis=f"recorded:{SOURCE}",
                simulated=False,
                message_id=f"{name}-{index}",
                position=index,
                author_kind="external" if is_bot else "person",
                author_name=f"{SOURCE}:assistant" if is_bot else person,
                text=text,
            )
        )
    last = events[-1]
    rating = 1 if side == "chosen" else -1
    thumb = Event(
        event_id=f"{last.event_id}/thumb/{rating}",
        kind="feedback",
        at=last.at,
        conversation_id=name,
        person=person,
        source=SOURCE,
        consent_basis=last.consent_basis,
        simulated=False,
        message_id=last.message_id,
        rating=rating,
        details=json.dumps({"pair": side}),
    )
    return [*events, thumb]


def human_messages(record: dict[str, Any]) -> list[str]:
    """What the person says in a pair, of which both sides share it. Raises ValueError as `add` does."""
    return [text for speaker, text in _turns("chosen", record.get("chosen")) if speaker == "Human" and text]
