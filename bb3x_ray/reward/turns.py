"""The bot turns of conversations as rows to score, and how a thumb and a score become one number."""

import math
from collections.abc import Collection, Iterable

import pyarrow as pa

from bb3x_ray.reward.evidence import rated_in
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.reward.signal_model import THUMB, SignalModel
from bb3x_ray.reward.signals import after_text, context_text, thumbs_of
from bb3x_ray.schemas.conversation import Conversation

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
        ("evidence", pa.float64()),
        ("trusted", pa.bool_()),
    ]
)


def turns_table(
    conversations: Iterable[Conversation],
    distrusted: Collection[str],
    signals: SignalModel | None = None,
    reliability: Reliability | None = None,
) -> pa.Table:
    """One row a bot message, in the order of the conversations.

    rating     the standing thumb; null for people who are distrusted: their label is dropped, their turns are
               scored all the same (law 7)
    evidence   what all feedback and annotations add to the log odds of good; null where there are none

    signals       weighs the evidence; None: as it starts
    reliability   of what people did; None: everybody's counts
    """
    signals, reliability = signals or SignalModel(), reliability or Reliability()
    rows = []
    for conversation in conversations:
        trusted = conversation.person not in distrusted
        rated = [e for e in rated_in(conversation) if trusted or e.annotations]
        reliable = reliability if trusted else Reliability({conversation.person: 0.0})
        odds = signals.log_odds(rated, reliable, reactions=False).tolist() if rated else []
        known = dict(zip((e.message_id for e in rated), odds, strict=True))
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
                        "evidence": known.get(message.message_id),
                        "trusted": trusted,
                    }
                )
    return pa.Table.from_pylist(rows, schema=TURNS_SCHEMA)


def with_evidence(score: float, evidence: float | None, base_rate: float) -> float:
    """How good a turn is, from the reward model's score and what people said; the score where nobody did.

    A thumb alone makes 0.85 or 0.15 (evidence ±1.73). The score moves that by how far it lies, in log odds,
    above or below the base rate: what the model expects of replies at large is no news about this one, and
    where few replies are good it would drown every thumb up. Weaker evidence, as of people who are doubted,
    takes away the smaller a part of that base, and none moves the score against what was said.

    with_evidence(0.2, 1.73, 0.2) = 0.85, with_evidence(0.05, 1.73, 0.2) = 0.54
    """
    if evidence is None:
        return score
    moved = evidence - min(1.0, abs(evidence) / THUMB) * _logit(base_rate)
    return _sigmoid(_logit(score) + (max(0.0, moved) if evidence > 0 else min(0.0, moved)))


def _logit(p: float) -> float:
    p = min(max(p, _EDGE), 1 - _EDGE)
    return math.log(p / (1 - p))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
