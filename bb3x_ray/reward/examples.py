"""What the reward model learns from: replies with P(good), and what it is measured by."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bb3x_ray.classify.pairs import Pair
from bb3x_ray.reward.evidence import Evidence
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.reward.signal_model import BAD, GOOD, SignalModel
from bb3x_ray.reward.signals import after_text, context_text, thumbs_of
from bb3x_ray.schemas.conversation import Conversation

# Weight of a reply that is known only by a reaction, or by its conversation's rating. With 0.2 ten of these
# for each thumb drowned what the thumbs said (AUROC .71 for .73).
WEAK = 0.05
# Replies known by a reaction alone, for each that somebody rated: there are far more of them.
REACTIONS_PER_RATED = 1.0
_LEAST = 0.05  # reliability below which a thumb is no evidence
_MEASURES = 0.5  # and below which no model is measured, or calibrated, by it


@dataclass(frozen=True, slots=True)
class Example:
    """`pair.label` is P(good), what is learned; None where the evidence is in balance: nothing to learn.

    label    what it is measured by, 1 or 0: what annotators said, else what the thumb is taken for; None: it
             is not measured, as where nobody said anything, or somebody who is doubted
    reasons  of a thumb down
    cut_off  the length limit broke the reply off
    """

    pair: Pair
    person: str
    label: int | None = None
    reasons: tuple[str, ...] = ()
    cut_off: bool = False
    teaches: bool = True


def examples_of(
    evidence: Sequence[Evidence],
    model: SignalModel,
    reliability: Reliability,
    distrusted: Collection[str],
    seed: int,
) -> list[Example]:
    """An example a reply that somebody rated, then some that are known by reactions, then corrections.

    What the distrusted say counts for nothing; what annotators say of replies to them does.
    """
    rated = [e for e in evidence if e.is_rated and (e.annotations or _counts(e, reliability, distrusted))]
    # What a reply teaches must come from what was said of it, not from how good replies are at large.
    said = 1 / (1 + np.exp(-model.log_odds(rated, reliability)))
    good = model.good(rated, reliability)
    examples = [
        _rated(e, float(p), not BAD < own < GOOD, reliability(e.person, e.message_id))
        for e, p, own in zip(rated, good, said.tolist(), strict=True)
    ]
    examples += _reacted(
        evidence, model, reliability, distrusted, int(len(rated) * REACTIONS_PER_RATED), seed
    )
    for e in evidence:
        if e.correction and e.thumb == -1 and _counts(e, reliability, distrusted):
            examples.append(
                Example(Pair(e.context, e.correction, 1.0, max(0.0, reliability(e.person, ""))), e.person)
            )
    return examples


def _counts(e: Evidence, reliability: Reliability, distrusted: Collection[str]) -> bool:
    """Whether what the person did says anything of the reply."""
    return e.person not in distrusted and abs(reliability(e.person, e.message_id)) > _LEAST


def _rated(e: Evidence, p: float, teaches: bool, reliable: float) -> Example:
    label = None
    if e.share_good is not None:
        label = int(e.share_good > 0.5) if e.share_good != 0.5 else None
    elif e.thumb is not None and abs(reliable) >= _MEASURES:
        label = int(e.thumb * reliable > 0)
    return Example(
        Pair(e.context, e.reply, float(p), 1.0, e.after),
        e.person,
        label,
        e.reasons,
        e.cut_off,
        teaches,
    )


def _reacted(
    evidence: Sequence[Evidence],
    model: SignalModel,
    reliability: Reliability,
    distrusted: Collection[str],
    most: int,
    seed: int,
) -> list[Example]:
    """Without hindsight: it would only learn from them what a reaction is."""
    found = [e for e in evidence if not e.is_rated and _counts(e, reliability, distrusted)]
    found = sorted(found, key=lambda e: hashlib.sha256(f"{seed}:{e.message_id}".encode()).digest())[:most]
    good = 1 / (1 + np.exp(-model.log_odds(found, reliability)))
    return [
        Example(Pair(e.context, e.reply, float(p), WEAK), e.person, cut_off=e.cut_off)
        for e, p in zip(found, good, strict=True)
        if not BAD < p < GOOD
    ]


def weak_examples(
    conversations: Iterable[tuple[Conversation, int]], distrusted: Collection[str]
) -> list[Example]:
    """Replies without a thumb in conversations that were rated as a whole, as examples of little weight.

    conversations   each with its rating, 1 to 5; 4 and 5 make good replies, 1 and 2 bad ones, 3 none
    """
    found = []
    for conversation, rating in conversations:
        if rating == 3 or conversation.person in distrusted:
            continue
        thumbs = thumbs_of(conversation)
        for index, message in enumerate(conversation.messages):
            if message.author.can_be_trained_on and message.text and message.message_id not in thumbs:
                context, after = (
                    context_text(conversation.context_of(index)),
                    after_text(conversation, index),
                )
                pair = Pair(context, message.text, float(rating > 3), WEAK, after)
                found.append(Example(pair, conversation.person))
    return found
