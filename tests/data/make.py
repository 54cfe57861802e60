"""Events for the tests: a conversation of made-up words."""

from collections.abc import Iterable
from dataclasses import asdict, replace

import pyarrow as pa

from bb3x_ray.data.collect import SLICE_SCHEMA, NotTaken, Range, collect
from bb3x_ray.data.committer import committing
from bb3x_ray.data.slices import conversations_of, open_slice
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage


def commit(storage: Storage, *events: Event) -> int:
    with committing(storage) as log:
        log.append(list(events))
        return log.head


def read_conversations(storage: Storage, after_seq: int, upto_seq: int) -> list[Conversation]:
    """What a round with this range would take."""
    tables = collect(storage, Range(after_seq, upto_seq), NotTaken())
    return [conversation for table in tables for conversation in conversations_of(table)]


def said(
    conversation: str,
    position: int,
    text: str | None = "hello",
    *,
    at: int = 0,
    bot: bool | None = None,
    event_id: str = "",
    consent: str = "store",
    person: str = "ada",
    message_id: str = "",
) -> Event:
    bot = position % 2 == 1 if bot is None else bot
    return Event(
        event_id=event_id or f"{conversation}-{position}",
        kind="message",
        at=at,
        conversation_id=conversation,
        person=person,
        source="served",
        consent_basis=consent,
        simulated=False,
        message_id=message_id or f"{conversation}-m{position}",
        position=position,
        author_kind="model" if bot else "person",
        author_name="v0001" if bot else person,
        text=text,
        finish_reason="stop" if bot else None,
    )


def thumb(
    event_id: str,
    message_id: str,
    rating: int | None,
    *,
    at: int = 0,
    person: str = "ada",
    conversation: str = "c",
) -> Event:
    return Event(
        event_id=event_id,
        kind="feedback",
        at=at,
        conversation_id=conversation,
        person=person,
        source="served",
        consent_basis="store",
        simulated=False,
        message_id=message_id,
        rating=rating,
        reasons=("rude",) if rating == -1 else (),
    )


def labelled(
    event_id: str,
    message_id: str,
    label: str,
    rater: str = "rater-1",
    *,
    at: int = 0,
    conversation: str = "c",
    person: str = "ada",
) -> Event:
    """An annotation of a message."""
    return replace(
        thumb(event_id, message_id, None, at=at, conversation=conversation, person=person),
        kind="annotation",
        reasons=(label,),
        author_kind="person",
        author_name=rater,
    )


def talk(conversation: str, turns: int = 2, **about: object) -> list[Event]:
    return [said(conversation, position, f"words {position}", **about) for position in range(turns)]  # type: ignore[arg-type]


def load(storage: Storage, name: str) -> list[Conversation]:
    """All conversations of a slice."""
    return list(open_slice(storage, name).conversations())


def to_table(conversations: Iterable[Conversation], taught_before: frozenset[str] = frozenset()) -> pa.Table:
    """A table of SLICE_SCHEMA; `taught_before`: ids of messages."""
    rows = []
    for c in conversations:
        row = {name: getattr(c, name) for name in ("conversation_id", "person", "source", "consent_basis")}
        row |= {"simulated": c.simulated, "annotation": None}
        row["messages"] = [
            {
                "message_id": m.message_id,
                "author_kind": m.author.kind,
                "author_name": m.author.name,
                "text": m.text,
                "finish_reason": m.finish_reason,
                "taught_before": m.message_id in taught_before,
                "is_feedback": m.is_feedback,
            }
            for m in c.messages
        ]
        row["feedback"] = [{**asdict(f), "reasons": list(f.reasons)} for f in c.feedback]
        row["annotations"] = [asdict(a) for a in c.annotations]
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SLICE_SCHEMA)
