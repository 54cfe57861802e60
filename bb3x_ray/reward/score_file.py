"""Any file of (context, reply[, after]) rows as groups of turns to score, and their scores as Parquet.

Rows are a Parquet file's, or JSON lines. `context` is text, turns newest first, one a line, the first of them
the person's; or a list in the order in which it was said, of texts, the person's and the bot's by turns and
the last one the person's, or of messages ({"role": "user", "content": "Hi"}). `id`, where it is there, comes
back beside the scores.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bb3x_ray.reward.signals import context_text
from bb3x_ray.reward.turns import TURNS_SCHEMA
from bb3x_ray.schemas.conversation import Message, external, person
from bb3x_ray.schemas.errors import UserError

LINES, ROWS = 8192, 65_536  # of a group
_COLUMNS = ("context", "reply", "after", "id")
_NOT_UTF8 = b"\xff"  # stands for a cell that cannot be decoded
_AUTHORS = {"user": person("user"), "assistant": external("assistant")}

# row   place in the file, from 0; for JSON lines without blank ones
FILE_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("good", pa.float64()),
        ("fresh", pa.float64()),
        ("unsafe", pa.float64()),
        ("unsafe_heard", pa.float64()),
        ("error", pa.string()),
        ("reward_version", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Of JSON lines: bytes from `start` to `end`. Of Parquet: row group `start`, from its row `end` on."""

    start: int
    end: int
    first_row: int


@dataclass(frozen=True, slots=True)
class FileTurns:
    """Call it with the number of a group for its turns (TURNS_SCHEMA); `message_id` is the row's place."""

    path: Path
    cuts: tuple[_Cut, ...]
    rows: int

    @classmethod
    def of(cls, path: Path) -> "FileTurns":
        """Raises UserError for a file that is not there, or has no column `reply` or `context`."""
        if not path.is_file():
            raise UserError(f"{path}: there is no such file.")
        cuts, rows = _cut_parquet(path) if _is_parquet(path) else _cut_lines(path)
        return cls(path, tuple(cuts), rows)

    def __call__(self, group: int) -> pa.Table:
        cut = self.cuts[group]
        entries = _parquet_rows(self.path, cut) if _is_parquet(self.path) else _line_rows(self.path, cut)
        turns = [_turn(entry, cut.first_row + place) for place, entry in enumerate(entries)]
        replies = pa.array([_bytes(turn.pop("reply")) for turn in turns], pa.binary())
        table = pa.Table.from_pylist(turns, schema=TURNS_SCHEMA)
        place = TURNS_SCHEMA.get_field_index("reply")
        # Unchecked: a reply that is no UTF-8 is told as such where it is scored.
        return table.set_column(place, TURNS_SCHEMA.field(place), replies.cast(pa.string(), safe=False))


def write_scored(tables: Iterable[pa.Table], out: Path) -> tuple[int, int]:
    """SCORED_SCHEMA of FileTurns -> Parquet of FILE_SCHEMA, a table at a time; (rows, rows with an error).

    The file is there once it is whole.
    """
    rows = errors = 0
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pq.ParquetWriter(aside, FILE_SCHEMA, compression="zstd") as file:
            for table in tables:
                columns = {name: table[name] for name in FILE_SCHEMA.names if name in table.column_names}
                columns |= {"row": table["message_id"].cast(pa.int64()), "id": table["conversation_id"]}
                file.write_table(pa.table(columns).select(FILE_SCHEMA.names).cast(FILE_SCHEMA))
                rows += len(table)
                errors += sum(1 for error in table["error"].to_pylist() if error)
        os.replace(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    return rows, errors


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _cut_parquet(path: Path) -> tuple[list[_Cut], int]:
    file = pq.ParquetFile(path)
    _check_columns(path, file.schema_arrow.names)
    cuts, rows = [], 0
    for group in range(file.metadata.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        cuts += [_Cut(group, first, rows + first) for first in range(0, size, ROWS)]
        rows += size
    return cuts, rows


def _cut_lines(path: Path) -> tuple[list[_Cut], int]:
    cuts, rows, start, end, lines = [], 0, 0, 0, 0
    with path.open("rb") as file:
        for line in file:
            if not rows and line.strip():
                _check_columns(path, list(_entry(line)))
            end += len(line)
            lines += bool(line.strip())
            rows += bool(line.strip())
            if lines == LINES:
                cuts.append(_Cut(start, end, rows - lines))
                start, lines = end, 0
    if lines:
        cuts.append(_Cut(start, end, rows - lines))
    return cuts, rows


def _check_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in ("context", "reply") if name not in names]
    if missing:
        raise UserError(
            f"{path}: its rows have no {' and no '.join(missing)}; give Parquet or JSON lines with context "
            "and reply, and after (what the person said next) where it is known."
        )


def _parquet_rows(path: Path, cut: _Cut) -> list[dict[str, Any]]:
    file = pq.ParquetFile(path)
    columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
    table = file.read_row_group(cut.start, columns=columns).slice(cut.end, ROWS)
    cells = [_cells(table[name]) for name in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """Values of a column; Arrow gives none at all where one of them is not UTF-8."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_cell(value) for value in column]
    return values


def _cell(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return _NOT_UTF8


def _line_rows(path: Path, cut: _Cut) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        file.seek(cut.start)
        lines = file.read(cut.end - cut.start).split(b"\n")
    return [_entry(line) for line in lines if line.strip()]


def _entry(line: bytes) -> dict[str, Any]:
    """What a line holds; nothing where it is no JSON object, which makes a row with an error."""
    try:
        entry = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _turn(entry: dict[str, Any], row: int) -> dict[str, Any]:
    given = entry.get("id")
    unreadable = _NOT_UTF8 in [entry.get(name) for name in _COLUMNS]
    return {
        "conversation_id": None if given is None or given == _NOT_UTF8 else _text(str(given)),
        "message_id": str(row),
        "context": "" if unreadable else _context(entry.get("context")),
        "reply": _NOT_UTF8 if unreadable else _text(entry.get("reply")),
        "after": _text(entry.get("after")),
        "trusted": True,
    }


def _context(value: Any) -> str | None:
    """What a round gives the reward model to read; None for what is no context."""
    if not isinstance(value, list):
        return _text(value)
    talk = [said for said in value if not (isinstance(said, dict) and said.get("role") == "system")]
    messages = [_message(said, from_end) for from_end, said in enumerate(reversed(talk))]
    known = [message for message in reversed(messages) if message is not None]
    return _text(context_text(known)) if len(known) == len(messages) else None


def _message(said: Any, from_end: int) -> Message | None:
    """Message number `from_end` from the end, 0 the last; None for what is none."""
    if isinstance(said, str):
        return Message(str(from_end), _AUTHORS["assistant" if from_end % 2 else "user"], said)
    role, text = (said.get("role"), said.get("content")) if isinstance(said, dict) else (None, None)
    if isinstance(role, str) and role in _AUTHORS and isinstance(text, str):
        return Message(str(from_end), _AUTHORS[role], text)
    return None


def _bytes(text: str | bytes | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text


def _text(value: Any) -> str | None:
    """None for what is no text: JSON can hold half a surrogate pair, which Arrow cannot."""
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        return None
    return value
