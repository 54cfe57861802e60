"""A file of recorded conversations as token ids with labelled turns: what all arms are given."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from bb3x_ray.data.readers import convai2
from bb3x_ray.language.chat_template import Turn, render
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event


@dataclass(frozen=True, slots=True)
class LabelledTurn:
    """`input_ids[start:end]` of its conversation are a bot's words; good says imitate, else avoid."""

    start: int
    end: int
    good: bool


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation's tokens and its labelled turns, in order."""

    talk_id: str
    input_ids: list[int]
    turns: list[LabelledTurn]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Messages of one conversation in order, and its thumbs by message id."""

    messages: list[Event]
    thumbs: dict[str, bool]


def read(path: Path) -> list[Recorded]:
    """Conversations with at least one bot turn. Raises UserError when the file is not there."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give ConvAI2's volunteers' file with --conversations FILE.")
    messages: dict[str, list[Event]] = defaultdict(list)
    thumbs: dict[str, dict[str, bool]] = defaultdict(dict)
    for event in convai2.read(path, lambda *_: None):  # what is damaged is left out
        if event.kind == "message":
            messages[event.conversation_id].append(event)
        elif event.kind == "feedback" and event.rating is not None:
            thumbs[event.conversation_id][event.message_id] = event.rating > 0
    return [Recorded(said, thumbs[name]) for name, said in messages.items() if any(map(_is_bot, said))]


def label_all(recorded: list[Recorded]) -> Callable[[str, dict[str, bool]], bool | None]:
    """Every bot turn gets a label, as a reward model would give them.

    A deterministic stand-in for one: the thumb where there is one, else a hash of the message's id, with as
    large a share of good turns as the thumbs have. Speed does not depend on which turn gets which label.
    """
    given = [thumb for talk in recorded for thumb in talk.thumbs.values()]
    share = sum(given) / len(given) if given else 0.5

    def label(message_id: str, thumbs: dict[str, bool]) -> bool | None:
        drawn = int.from_bytes(hashlib.blake2b(message_id.encode(), digest_size=4).digest(), "big") / 2**32
        return thumbs.get(message_id, drawn < share)

    return label


def label_thumbed(message_id: str, thumbs: dict[str, bool]) -> bool | None:
    """Only turns that a person gave a thumb."""
    return thumbs.get(message_id)


def tokenize(
    recorded: list[Recorded],
    tokenizer: PreTrainedTokenizerBase,
    label: Callable[[str, dict[str, bool]], bool | None],
    window: int,
) -> list[Talk]:
    """Conversations with at least one labelled turn that fits the window; no end of turn is labelled."""
    talks = []
    for talk in recorded:
        rendered = render(
            tokenizer, [Turn("assistant" if _is_bot(m) else "user", m.text or "") for m in talk.messages]
        )
        turns = []
        for message, span in zip(talk.messages, rendered.spans, strict=True):
            good = label(message.message_id, talk.thumbs) if _is_bot(message) else None
            if good is not None and 0 < span.end - span.start <= window // 2:
                turns.append(LabelledTurn(span.start, span.end, good))
        if turns:
            talks.append(Talk(talk.messages[0].conversation_id, rendered.input_ids, turns))
    return talks


def _is_bot(message: Event) -> bool:
    return message.author_kind == "external"
