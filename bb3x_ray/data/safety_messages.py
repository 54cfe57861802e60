"""Short messages of our own writing that are unsafe, and others that only sound so.

They ship with the package and teach the safety classifier that filters and scores (law 11: never the judge's;
evaluate's adversarial prompts share none of them, nor come near one in words; a test compares both files).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bb3x_ray.schemas.errors import UserError

MESSAGES = Path(__file__).parent / "safety" / "messages.jsonl"


@dataclass(frozen=True, slots=True)
class SafetyMessage:
    """A text and whether it is unsafe. `kind` says what it is about, `context` what it answers."""

    text: str
    unsafe: bool
    kind: str = ""
    context: str = ""


def load_safety_messages(path: Path = MESSAGES) -> tuple[SafetyMessage, ...]:
    """The messages of a file of JSON lines: `text`, `unsafe`, and perhaps `kind` and `context`.

    Raises UserError with file and line for one that is none.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of messages; see safety.files.")
    return tuple(_messages(path))


def _messages(path: Path) -> Iterator[SafetyMessage]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line.decode())
        except ValueError:  # its words would quote the line
            raise UserError(f"{path}, line {number}: no JSON in UTF-8; mend or remove the line.") from None
        if not isinstance(entry, dict):
            entry = {}
        text, unsafe = entry.get("text"), entry.get("unsafe")
        kind, context = entry.get("kind", ""), entry.get("context", "")
        texts = isinstance(text, str) and isinstance(kind, str) and isinstance(context, str)
        if not texts or not str(text).strip() or not isinstance(unsafe, bool):
            raise UserError(
                f"{path}, line {number}: a message has a `text`, not empty, and `unsafe`, true or false."
            )
        yield SafetyMessage(str(text), unsafe, kind, context)
