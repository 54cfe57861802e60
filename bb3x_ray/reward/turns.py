"""The bot turns of conversations as rows to score, and how a thumb and a score become one number."""

import math
from collections.abc import Iterable

import pyarrow as pa

from bb3x_ray.reward.signals import after_text, context_text, thumbs_of
from bb3x_ray.schemas.conversation import Conversation

# How often a trusted person's thumb is right, by assumption: people err, and some trolls pass.
THUMB_RIGHT = 0.85
_EDGE = 1e-4

TURNS_SCHEMA = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("message_id", pa.string()),
        ("person", pa.string()),
        ("context", pa.string()),
        ("reply", pa.string()),
        ("after", pa.string()),
        ("rating", pa.int8()),
        ("trusted", pa.bool_()),
    ]
)


def turns_table(conversations: Iterable[Conversation], distrusted: frozenset[str]) -> pa.Table:
    """One row a bot message, in the order of the conversations. `rating` is the standing thumb, null for
    people who are distrusted: their label is dropped, their turns are scored all the same (law 7)."""
    rows = []
    for conversation in conversations:
        trusted = conversation.person not in distrusted
        thumbs = thumbs_of(conversation) if trusted else {}
        for index, message in enumerate(conversation.messages):
            if message.author.is_bot:
                rows.append(
                    {
                        "conversation_id": conversation.conversation_id,
                        "message_id": message.message_id,
                        "person": conversation.person,
                        "context": context_text(conversation.context_of(index)),
                        "reply": message.text,
                        "after": after_text(conversation, index),
                        "rating": thumbs.get(message.message_id),
                        "trusted": trusted,
                    }
                )
    return pa.Table.from_pylist(rows, schema=TURNS_SCHEMA)


def with_thumb(score: float, rating: int | None, base_rate: float) -> float:
    """How good a turn is, from the reward model's score and a trusted thumb; the score where there is none.

    A thumb alone makes 0.85 or 0.15. The score moves that by how far it lies, in log odds, above or below
    the base rate: what the model expects of replies at large is no news about this one, and where few
    replies are good it would drown every thumb up.

    with_thumb(0.2, 1, base_rate=0.2) = 0.85, with_thumb(0.05, 1, 0.2) = 0.54, with_thumb(0.5, -1, 0.2) = 0.41
    """
    if rating is None:
        return score
    return _sigmoid(_logit(score) - _logit(base_rate) + math.copysign(_logit(THUMB_RIGHT), rating))


def _logit(p: float) -> float:
    p = min(max(p, _EDGE), 1 - _EDGE)
    return math.log(p / (1 - p))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
