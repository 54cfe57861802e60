"""What modules mean: their output is read strictly, because whatever is not clear counts as no."""

import re
from collections.abc import Sequence

from bb3x_ray.serve.memory import Memory
from bb3x_ray.serve.modules.module import one_line
from bb3x_ray.serve.modules.trace import labelled

_YES = re.compile(r"[\W_]*yes\b", re.IGNORECASE)
_DOUBT = re.compile(r"\b(?:no|not|or|but|maybe|perhaps)\b|n't\b", re.IGNORECASE)
_NOTHING = re.compile(r"\W*(?:none|nothing|no|n/a|null|unknown|not sure)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\W*(\d{1,3})\b")
_QUOTES = "\"'`“”‘’*- "
_OF_ONESELF = re.compile(r"(?:i|i'm|i've|my)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]{3,}")
MAX_QUERY, MAX_KNOWLEDGE, MAX_ENTITY, MAX_MEMORY = 120, 400, 60, 160


def is_yes(output: str) -> bool:
    """A clear yes: the first word is one, and none that takes it back follows."""
    return bool(_YES.match(output)) and not _DOUBT.search(output)


def text_of(output: str, most: int) -> str:
    """The first line that says something, without quotes around it; "" where it says that there is none."""
    line = next((line for line in output.splitlines() if line.strip(_QUOTES)), "")
    line = one_line(line, most).strip(_QUOTES)
    return "" if _NOTHING.match(line) else line


def chosen(output: str, memories: Sequence[Memory]) -> Memory | None:
    """The memory that was chosen, by its number from 1 or by its words. One that does not exist is none."""
    line = text_of(output, MAX_KNOWLEDGE)
    number = _NUMBER.match(line)
    if number is not None:
        place = int(number[1])
        return memories[place - 1] if 1 <= place <= len(memories) else None
    plain = _plain(line)
    return (
        next((m for m in memories if plain in (_plain(m.text), _plain(labelled(m)))), None) if plain else None
    )


def entity(output: str, talk: str) -> str:
    """What the talk is about, in words that occur in it; "" for what was made up."""
    words = text_of(output, MAX_ENTITY).rstrip(".!?")
    return words if words and _plain(words) in _plain(talk) else ""


def memory_text(output: str, said: str) -> str:
    """A note about oneself that shares a word with what was `said`; "" for anything else."""
    note = text_of(output, MAX_MEMORY)
    shared = {*_WORD.findall(note.lower())} & {*_WORD.findall(said.lower())}
    return note if _OF_ONESELF.match(note) and shared else ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
