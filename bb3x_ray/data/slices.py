"""A round's own copy of what people said: pinned once, published whole, read by every later step."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bb3x_ray.data.table import collect
from bb3x_ray.schemas.conversation import Author, Conversation, Feedback, Message
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage, read_json, write_json

_FILE, _WAITING = "conversations.parquet", "waiting.json"

_MESSAGE = pa.struct(
    [
        ("message_id", pa.string()),
        ("author_kind", pa.string()),
        ("author_name", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("taught_before", pa.bool_()),
    ]
)
_FEEDBACK = pa.struct(
    [
        ("event_id", pa.string()),
        ("message_id", pa.string()),
        ("person", pa.string()),
        ("rating", pa.int8()),
        ("reasons", pa.list_(pa.string())),
        ("comment", pa.string()),
    ]
)
# One row a conversation; `annotation` is its standing rating from 1 to 5, or null.
SLICE_SCHEMA = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("person", pa.string()),
        ("source", pa.string()),
        ("consent_basis", pa.string()),
        ("simulated", pa.bool_()),
        ("annotation", pa.int8()),
        ("messages", pa.list_(_MESSAGE)),
        ("feedback", pa.list_(_FEEDBACK)),
    ]
)


@dataclass(frozen=True, slots=True)
class SliceInfo:
    """What a slice holds; `left_out` counts conversations by reason (`waiting`: not quiet yet)."""

    conversations: int
    bot_turns: int
    thumbs_up: int
    thumbs_down: int
    people: int
    after_seq: int
    upto_seq: int
    left_out: dict[str, int]
    simulated: int = 0


def pin(
    storage: Storage,
    name: str,
    after_seq: int,
    upto_seq: int,
    quiet_before_us: int | None = None,
    previous: str | None = None,
    clean: Callable[[str, str], str] | None = None,
) -> SliceInfo:
    """Copy the conversations of commit_seq range (after_seq, upto_seq] to `name`, for instance
    rounds/0001/collect. A slice that is already published stays as it is.

    previous   name of the slice before this one: what was not quiet then is looked at again
    clean      (text, person) -> text: applied to every text that is copied; None: as they are

    Raises UserError when there is nothing to copy.
    """
    if storage.is_published(name):
        return info(storage, name)
    waiting = read_json(storage.verify(previous) / _WAITING) if previous else {}
    found = collect(storage, after_seq, upto_seq, quiet_before_us, waiting)
    left_out = {**found.left_out, **({"waiting": len(found.waiting)} if found.waiting else {})}
    if not found.conversations:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        raise UserError(
            f"the interaction log under {storage.root} holds no conversation that an earlier round has not "
            f"taken{' (left out: ' + reasons + ')' if reasons else ''}: let people talk first, "
            "or bring recorded talk in with `bb3x ingest`."
        )
    about = _count(found.conversations, after_seq, upto_seq, left_out)
    conversations = [_cleaned(c, clean) for c in found.conversations] if clean else found.conversations
    rows = [_to_row(c, found.taught_before, found.annotations) for c in conversations]
    with storage.publish(name, **asdict(about)) as folder:
        pq.write_table(pa.Table.from_pylist(rows, schema=SLICE_SCHEMA), folder / _FILE)
        write_json(folder / _WAITING, found.waiting)
    return about


def _cleaned(c: Conversation, clean: Callable[[str, str], str]) -> Conversation:
    messages = (replace(m, text=clean(m.text, c.person)) for m in c.messages)
    feedback = (replace(f, comment=clean(f.comment, f.person)) for f in c.feedback)
    return replace(c, messages=tuple(messages), feedback=tuple(feedback))


def info(storage: Storage, name: str) -> SliceInfo:
    """What `pin` returned when the slice was published."""
    manifest = storage.manifest(name)
    return SliceInfo(**{f.name: manifest[f.name] for f in fields(SliceInfo)})


def load(storage: Storage, name: str) -> list[Conversation]:
    """The conversations of a slice, in the order in which they began. Raises UserError if altered."""
    return [_from_row(row) for row in _read(storage, name, SLICE_SCHEMA.names)]


def taught_before(storage: Storage, name: str) -> frozenset[str]:
    """Ids of messages that an earlier slice already held: they are context, and teach no second time."""
    rows = _read(storage, name, ["messages"])
    return frozenset(m["message_id"] for row in rows for m in row["messages"] if m["taught_before"])


def annotations(storage: Storage, name: str) -> dict[str, int]:
    """conversation_id -> how people rated the whole conversation, 1 to 5."""
    rows = _read(storage, name, ["conversation_id", "annotation"])
    return {row["conversation_id"]: row["annotation"] for row in rows if row["annotation"] is not None}


def _read(storage: Storage, name: str, columns: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(storage.verify(name) / _FILE, columns=columns).to_pylist()
    return rows


def _count(
    conversations: Sequence[Conversation], after_seq: int, upto_seq: int, left_out: dict[str, int]
) -> SliceInfo:
    thumbs = [feedback.rating for c in conversations for feedback in c.feedback]
    return SliceInfo(
        conversations=len(conversations),
        bot_turns=sum(message.author.is_bot for c in conversations for message in c.messages),
        thumbs_up=thumbs.count(1),
        thumbs_down=thumbs.count(-1),
        people=len({c.person for c in conversations}),
        after_seq=after_seq,
        upto_seq=upto_seq,
        left_out=left_out,
        simulated=sum(c.simulated for c in conversations),
    )


def _to_row(c: Conversation, taught: frozenset[str], annotated: dict[str, int]) -> dict[str, Any]:
    return {
        "conversation_id": c.conversation_id,
        "person": c.person,
        "source": c.source,
        "consent_basis": c.consent_basis,
        "simulated": c.simulated,
        "annotation": annotated.get(c.conversation_id),
        "messages": [
            {
                "message_id": m.message_id,
                "author_kind": m.author.kind,
                "author_name": m.author.name,
                "text": m.text,
                "finish_reason": m.finish_reason,
                "taught_before": m.message_id in taught,
            }
            for m in c.messages
        ],
        "feedback": [{**asdict(f), "reasons": list(f.reasons)} for f in c.feedback],
    }


def _from_row(row: dict[str, Any]) -> Conversation:
    return Conversation(
        conversation_id=row["conversation_id"],
        person=row["person"],
        messages=tuple(
            Message(
                m["message_id"], Author(m["author_kind"], m["author_name"]), m["text"], m["finish_reason"]
            )
            for m in row["messages"]
        ),
        source=row["source"],
        consent_basis=row["consent_basis"],
        simulated=row["simulated"],
        feedback=tuple(Feedback(**{**f, "reasons": tuple(f["reasons"])}) for f in row["feedback"]),
    )
