"""Texts for SafetyMix from a file."""

import gzip
import json
from pathlib import Path

from bb3x_ray.schemas.errors import UserError

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def read_texts(path: Path) -> list[str]:
    """The texts of a file, .gz or not, each as one line, in their order.

    One a line; or JSON lines, each with a `text`, or a pair of hh-rlhf (`chosen`), of which the first
    message of the human is taken: later ones are often harmless by themselves.

    Raises UserError for a file that is missing, is no text, or has a line without a text.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give one text a line, or JSON lines with `text`.")
    try:
        raw = path.read_bytes()
        lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError, EOFError):
        raise UserError(f"{path} is not UTF-8 text: give one text a line, or JSON lines.") from None
    is_json = any(suffix in (".jsonl", ".json") for suffix in path.suffixes)
    texts = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            text = _of_json(line, path, number) if is_json else line
            texts.append(" ".join(text.split()))
    return [text for text in texts if text]


def _of_json(line: str, path: Path, number: int) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        raise UserError(f"{path}, line {number}: not valid JSON; give one object a line.") from None
    said = row.get("text", row.get("chosen")) if isinstance(row, dict) else None
    if not isinstance(said, str):
        raise UserError(f"{path}, line {number}: no `text` (nor `chosen`) that is a string; add one.")
    if "text" not in row and _HUMAN in said:
        return said.split(_HUMAN, 1)[1].split(_ASSISTANT, 1)[0]
    return said
