"""Safety on both sides of a turn: what a person says, and what the model answers, before anybody sees it.

Who detects is handed in (`Detector`: the project's classifier and word matcher). Which kind of trouble it is
only chooses the canned reply; a small list of our own words tells it (`safety/kinds.json`). A few phrases
about self-harm and emergencies are trouble by themselves, whatever a classifier thinks: there a missed one
is worse than a false alarm. Insults and the like get a change of topic, serious matters do not; where no
word tells the kind, the reply says where help is before it changes the topic.

A reply is checked whole, never sentence by sentence. The thresholds are set on whole replies, so that the
false alarms that were measured (`bb3x safety report`) are those that people meet; a sentence that has been
shown cannot be taken back when the next one turns it bad; and replies are short, so that waiting costs a
second. The price: where safety is on, a streamed reply comes in one piece.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from bb3x_ray.classify.pairs import Pair
from bb3x_ray.schemas.errors import UserError

FOLDER = Path(__file__).parent / "safety"
KINDS = ("self_harm", "medical", "illegal", "insult")  # what is serious is looked for first
OTHER, FAILURE = "other", "failure"
SERIOUS = frozenset({"self_harm", "medical", FAILURE})  # no change of topic


class Detector(Protocol):
    """Pairs -> P(unsafe), float64 [N]; a person's message is a reply to "". `classify.safety.Safety` is one.

    threshold         above it a message is unsafe
    reply_threshold   the same of a reply in its context
    """

    threshold: float
    reply_threshold: float

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray: ...


class KindWords:
    """Which kind of trouble a text is, by a list of words: {kind: {alone: phrases, named_by: phrases}}."""

    def __init__(self, file: Path = FOLDER / "kinds.json") -> None:
        entries = _read(file)
        if sorted(entries) != sorted(KINDS):
            raise UserError(f"{file}: it must have the kinds {', '.join(KINDS)} and no more.")
        self._alone = {kind: _any_of(entries[kind]["alone"]) for kind in KINDS}
        self._named_by = {
            kind: _any_of([*entries[kind]["alone"], *entries[kind]["named_by"]]) for kind in KINDS
        }

    def alone(self, text: str) -> str | None:
        """The kind of a text that needs no classifier to be trouble, or None."""
        return _first(self._alone, text)

    def kind_of(self, text: str) -> str:
        """The kind of a text that is known to be unsafe; OTHER where no word tells."""
        return _first(self._named_by, text) or OTHER


class CannedReplies:
    """Our own words for each kind, in `safety/replies.json`."""

    def __init__(self, file: Path = FOLDER / "replies.json") -> None:
        self._replies: dict[str, list[str]] = _read(file)
        kinds = {*KINDS, OTHER, FAILURE, "topics"}
        if set(self._replies) != kinds or not all(self._replies.values()):
            raise UserError(f"{file}: it must have replies for {', '.join(sorted(kinds))}, and no more.")

    def choose(self, kind: str, key: str, said: Sequence[str] = ()) -> str:
        """A reply for this kind, the same for the same `key`; not one that was `said` already, if it can be.

        Ends in a change of topic, unless the matter is serious.
        """
        reply = self._fresh(kind, key, said)
        return reply if kind in SERIOUS else f"{reply} {self._fresh('topics', key, said)}"

    def _fresh(self, kind: str, key: str, said: Sequence[str]) -> str:
        choices = self._replies[kind]
        first = hashlib.sha256(f"{kind} {key}".encode()).digest()[0] % len(choices)
        in_order = [*choices[first:], *choices[:first]]
        heard = "\n".join(said)
        return next((reply for reply in in_order if reply not in heard), in_order[0])


class SafetyReplies:
    """Checks texts and has the words to say instead. Methods block; they may be called from many threads."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._lock = Lock()  # tokenizers cannot be asked by two threads at once

    @cached_property
    def _kinds(self) -> KindWords:
        return KindWords()

    def check_message(self, text: str) -> str | None:
        """The kind of trouble that a person's message is, or None when it is safe."""
        return self._kinds.alone(text) or self._judged(Pair("", text), text, self._detector.threshold)

    def check_reply(self, heard: Sequence[str], reply: str) -> str | None:
        """The same of a reply; `heard`: the texts before it, newest first."""
        if not reply.strip():
            return None
        pair = Pair("\n".join(" ".join(text.split()) for text in heard), reply)
        both = f"{reply}\n{heard[0] if heard else ''}"
        return self._kinds.alone(reply) or self._judged(pair, both, self._detector.reply_threshold)

    def _judged(self, pair: Pair, text: str, threshold: float) -> str | None:
        with self._lock:
            unsafe = float(self._detector([pair])[0])
        # Written so that a detector that answers NaN finds it unsafe.
        return None if unsafe <= threshold else self._kinds.kind_of(text)


def _any_of(phrases: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, phrases)) or '(?!)'})(?!\w)")


def _first(patterns: dict[str, re.Pattern[str]], text: str) -> str | None:
    plain = " ".join(text.lower().replace("’", "'").split())
    return next((kind for kind in KINDS if patterns[kind].search(plain)), None)


def _read(file: Path) -> dict[str, Any]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{file}: no JSON in UTF-8; mend it, or install bb3x-ray anew.") from None
    if not isinstance(entries, dict):
        raise UserError(f"{file}: it must be a JSON object.")
    return entries
