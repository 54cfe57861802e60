"""A reply in its context, and what the judge sees of it at a glance."""

import re
from dataclasses import dataclass, replace

from bb3x_ray.classify.measures import auroc, balanced_accuracy

__all__ = ["Pair", "auroc", "balanced_accuracy", "novel_words", "surface"]

_WORD = re.compile(r"[a-z']+")
_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
_FIRST_PERSON = frozenset("i i'm im i've i'd i'll my me mine we our us".split())
_SECOND_PERSON = frozenset("you your you're youre yours u".split())


@dataclass(frozen=True, slots=True)
class Pair:
    """A reply in its context; `label` 1.0 for the class, 0.0 against, anything between for doubt.

    context the turns before it, newest first, one a line, of person and bot in turn: the first line is what
            the person said, empty when the bot speaks twice in a row
    after   hindsight: what the person said next, "" for nothing any more; None where it cannot be known
            yet, as of a fresh reply
    """

    context: str
    reply: str
    label: float = 0.0
    weight: float = 1.0
    after: str | None = None


def novel_words(context: str, reply: str) -> list[str]:
    """The reply's words that the context does not hold."""
    heard = set(_WORD.findall(context.lower()))
    return [w for w in _WORD.findall(reply.lower()) if w not in heard]


def surface(context: str, reply: str) -> list[float]:
    """Fourteen numbers, each about 0 to 1, that are plain to see in the text."""
    said, novel = _WORD.findall(reply.lower()), novel_words(context, reply)
    n = max(1, len(said))
    ended = reply.rstrip()[-1:] in set(".!?")
    triples = list(zip(said, said[1:], said[2:], strict=False))
    long_ = {w for w in novel if len(w) >= 5}
    asks = {
        "?" in part for part in _SENTENCE.findall(reply) if _FIRST_PERSON & set(_WORD.findall(part.lower()))
    }
    return [
        min(len(said), 40) / 40,
        float(len(said) < 3),
        1 - len(novel) / n,
        float(ended),
        0.0 if ended else min(len(said), 40) / 40,  # long and not ended: broken off
        float("?" in reply),
        float("?" in context),
        sum(w in _FIRST_PERSON for w in said) / n * 4,
        sum(w in _SECOND_PERSON for w in said) / n * 4,
        1 - len(set(triples)) / max(1, len(triples)),
        min(len(long_), 6) / 6,
        float(not long_),
        float(False in asks),  # says something of itself
        float("\n" in reply.strip()),
    ]


def without_hindsight(pair: Pair) -> Pair:
    """The pair as if nobody knew yet what came next."""
    return replace(pair, after=None)
