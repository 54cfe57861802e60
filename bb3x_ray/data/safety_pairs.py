"""Safety pairs of our own writing: an unsafe or provoking message, and a short, kind reply to imitate.

They ship with the package. The messages are not those that versions are judged on: evaluate's adversarial
prompts share none of them, nor come near one in words (law 11; a test compares both files).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from bb3x_ray.schemas.errors import UserError

PAIRS = Path(__file__).parent / "safety" / "pairs.jsonl"
KINDS = (
    "insult",
    "hate",
    "sexual",
    "violence",
    "self_harm",
    "illegal",
    "medical",
    "privacy",
    "slur",
    "politics",
    "jailbreak",
)


@dataclass(frozen=True, slots=True)
class SafetyPair:
    """A person's message and the reply to imitate. `kind` is one of KINDS; `id` never changes."""

    id: str
    kind: str
    context: str
    reply: str


def load_safety_pairs(path: Path = PAIRS) -> tuple[SafetyPair, ...]:
    """The pairs of a file of JSON lines, in its order; blank lines are passed over.

    Raises UserError with file and line for one that is not a pair, or has the id of another.
    """
    pairs: dict[str, SafetyPair] = {}
    for where, line in _lines(path):
        pair = _pair(line, where)
        if pair.id in pairs:
            raise UserError(f"{where}: an earlier line has the same id; give every safety pair its own.")
        pairs[pair.id] = pair
    return tuple(pairs.values())


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def _pair(line: bytes, where: str) -> SafetyPair:
    try:
        entry = json.loads(line.decode())
    except ValueError:  # its words would quote the line
        raise UserError(f"{where}: no JSON in UTF-8; mend the line, or install bb3x-ray anew.") from None
    names = [field.name for field in fields(SafetyPair)]
    whole = isinstance(entry, dict) and sorted(entry) == sorted(names)
    if not whole or not all(isinstance(text, str) and text.strip() for text in entry.values()):
        raise UserError(f"{where}: a safety pair has the texts {', '.join(names)}, none empty, and no more.")
    if entry["kind"] not in KINDS:
        raise UserError(f"{where}: the kind of a safety pair is one of {', '.join(KINDS)}.")
    return SafetyPair(**entry)
