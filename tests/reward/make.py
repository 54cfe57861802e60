"""Small conversations and thumbs for the tests of this room."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.reward.evidence import Evidence
from bb3x_ray.reward.examples import Example, examples_of
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.reward.signal_model import SignalModel
from bb3x_ray.reward.signals import Signal
from bb3x_ray.schemas.conversation import Conversation, Feedback, Message, model, person


class LetterEncoder(Encoder):
    """Stands in for the encoder: a text's letters as a vector of length 1."""

    def __init__(self, source: str = "letters") -> None:
        self.source = source

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.array(
            [[t.lower().count(chr(97 + i)) + 0.01 for i in range(26)] for t in texts], np.float32
        ).reshape(-1, 26)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def conversation(
    name: str, who: str, *turns: str, thumbs: dict[int, int] | None = None, **more: Any
) -> Conversation:
    """Person and model in turn, the person first; `thumbs`: index of the message -> rating."""
    messages = tuple(
        Message(f"{name}-{i}", model("v0001") if i % 2 else person(who), text, "stop" if i % 2 else None)
        for i, text in enumerate(turns)
    )
    feedback = tuple(
        Feedback(f"f-{name}-{i}", f"{name}-{i}", who, rating) for i, rating in (thumbs or {}).items()
    )
    return Conversation(
        name, who, messages, **{"source": "served", "consent_basis": "store", "feedback": feedback, **more}
    )


def crowd(helpers: int, flippers: int, thumbs: int, seed: int, noise: float = 0.1) -> list[Signal]:
    """Thumbs on replies that are good when they speak in the first person. Flippers press the wrong one."""
    rng = random.Random(seed)
    signals = []
    for number in range(helpers + flippers):
        who = f"helper-{number}" if number < helpers else f"flipper-{number}"
        for i in range(thumbs):
            good = rng.random() < 0.4
            word = hashlib.sha256(f"{seed}{number}{i}".encode()).hexdigest()[:6]
            reply = f"I like my {word}." if good else f"One can buy a {word} anywhere"
            label = good != (rng.random() < noise)
            label = label if number < helpers else not label
            signals.append(Signal(f"c{number}", f"m{number}-{i}", who, "What about it?", reply, int(label)))
    return signals


def examples(signals: Sequence[Signal], distrusted: frozenset[str] = frozenset()) -> list[Example]:
    """What the reward model learns from these thumbs."""
    evidence = [
        Evidence(
            s.conversation_id,
            s.message_id,
            s.person,
            s.context,
            s.reply,
            s.after,
            2 * s.label - 1,
            s.reasons,
            cut_off=s.cut_off,
        )
        for s in signals
    ]
    return examples_of(evidence, SignalModel(), Reliability(), distrusted, 0)
