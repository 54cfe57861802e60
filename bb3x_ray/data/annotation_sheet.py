"""Sheets that annotators fill in: CSV that survives a spreadsheet.

    id,context,reply,label,weight
    r-0c6e…,"Person: Do you like tea?","I do, green tea most of all.",,0.8

What a spreadsheet would take for a formula (a cell that begins with = + - @, a tab or a carriage return) is
written with a ' before it, which is taken away again when it is read. Read are commas, semicolons or tabs,
quotes, line breaks in cells, a BOM, UTF-16.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bb3x_ray.schemas.conversation import LABELS
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import write_atomic

COLUMNS = ("id", "context", "reply", "label", "weight")
PERSON, BOT = "Person: ", "Bot: "
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_INDENT = "    "  # of a turn's further lines: no one's words can be taken for another turn


@dataclass(frozen=True, slots=True)
class Item:
    """A reply to annotate. `context`: the turns before it, see `to_context`; `weight`: see Annotation."""

    id: str
    context: str
    reply: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was read: `line` is where it begins, `cells` are by the column's name in lower case."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that cannot be used, told without what is written in it."""

    file: str
    line: int
    field: str
    words: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, {self.field}: {self.words}"


def to_context(turns: Iterable[tuple[bool, str]]) -> str:
    """(is it the person's, text) of each turn as lines: `Person: …` and `Bot: …`."""
    return "\n".join(
        (PERSON if is_person else BOT) + ("\n" + _INDENT).join(text.splitlines() or [""])
        for is_person, text in turns
    )


def turns_of(context: str) -> list[tuple[bool, str]]:
    """What `to_context` was given. Lines of another shape belong to the turn before."""
    turns: list[tuple[bool, str]] = []
    for line in context.split("\n"):
        if line.startswith((PERSON, BOT)):
            is_person = line.startswith(PERSON)
            turns.append((is_person, line.removeprefix(PERSON if is_person else BOT)))
        elif turns:
            turns[-1] = (turns[-1][0], f"{turns[-1][1]}\n{line.removeprefix(_INDENT)}")
        elif line:
            turns.append((True, line))
    return turns


def write_sheet(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Replaces `path` in one step, durably. With a BOM, by which spreadsheets know UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_escaped(cell) for cell in row] for row in rows)
    write_atomic(path, text.getvalue().encode("utf-8-sig", "replace"))


def read_sheet(path: Path, problems: list[Problem]) -> tuple[list[str], list[Row]]:
    """(columns in lower case, rows). Rows with more cells than columns become `problems`.

    Raises UserError for a file that is none, or has no column `id` or `message_id`, or one twice.
    """
    text = _text(path)
    # Excel may say in a first line which separator it means.
    said = re.match(r"sep=(.)\r?\n", text)
    lines = io.StringIO(text, newline="")
    before = 0
    if said:
        lines.readline()
        before = 1
    begin = text[said.end() if said else 0 :]
    reader = csv.reader(lines, delimiter=said[1] if said else _separator(begin), strict=True)
    try:
        columns = [cell.strip().lower() for cell in next(reader, [])]
        _check_columns(path, columns)
        return columns, list(_rows(path.name, reader, columns, before, problems))
    except csv.Error:
        raise UserError(
            f"{path}, line {reader.line_num + before}: not CSV that can be read (a quote that is not closed, "
            "or a cell of more than 128 KB): save the sheet as CSV again."
        ) from None


def _rows(file: str, reader: Any, columns: list[str], before: int, problems: list[Problem]) -> Iterator[Row]:
    line = reader.line_num + before
    for cells in reader:
        begin, line = line + 1, reader.line_num + before
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            words = (
                f"{len(cells)} cells under {len(columns)} columns; quote the cell with the separator in it"
            )
            problems.append(Problem(file, begin, "row", words))
            continue
        named = zip(columns, [*cells, *[""] * len(columns)], strict=False)
        yield Row(begin, {name: _unescaped(cell) for name, cell in named})


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the CSV file of a sheet.")
    raw = path.read_bytes()
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is not UTF-8: save the sheet as CSV UTF-8 (in a spreadsheet: Save as)."
        ) from None


def _separator(text: str) -> str:
    """The one that the first line has most of; a comma where it has none."""
    head = text.split("\n", 1)[0]
    return max(",;\t", key=head.count)


def _check_columns(path: Path, columns: list[str]) -> None:
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise UserError(f"{path}, line 1: a column is there twice ({len(twice)} in all); rename one of them.")
    if not {"id", "message_id"} & set(columns):
        raise UserError(
            f"{path}, line 1: there is no column id; give a sheet of `bb3x annotate export`, with its first "
            "line, whose columns are separated by commas, semicolons or tabs."
        )


def read_items(path: Path) -> list[Item]:
    """The replies of an exported sheet, for the rating page. Raises UserError for a row that is no reply."""
    problems: list[Problem] = []
    columns, rows = read_sheet(path, problems)
    missing = [name for name in ("id", "context", "reply") if name not in columns]
    if missing:
        raise UserError(
            f"{path}, line 1: there is no column {missing[0]}; give a sheet of `bb3x annotate export`."
        )
    items: dict[str, Item] = {}
    for row in rows:
        cells = row.cells
        if not cells["id"].strip() or cells["id"].strip() in items:
            what = "is there twice" if cells["id"].strip() else "is missing"
            problems.append(Problem(path.name, row.line, "id", f"{what}; export the sheet anew"))
            continue
        weight = weight_of(cells.get("weight", ""))
        if weight is None:
            problems.append(Problem(path.name, row.line, "weight", "not a number above 0; export it anew"))
            continue
        items[cells["id"].strip()] = Item(cells["id"].strip(), cells["context"], cells["reply"], weight)
    if problems:
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}.")
    if not items:
        raise UserError(f"{path} holds no replies: export a sheet with `bb3x annotate export`.")
    return list(items.values())


def weight_of(cell: str) -> float | None:
    """1 for an empty cell, None for what is no weight. Some spreadsheets write a comma in numbers."""
    try:
        weight = float(cell.strip().replace(",", ".") or 1)
    except ValueError:
        return None
    return weight if 0 < weight < float("inf") else None


def label_of(cell: str) -> str | None:
    """The label that a cell names, by its words or its number from 1 (the page's key); None for none."""
    words = re.sub(r"[\s-]+", "_", cell.strip().lower())
    if re.fullmatch(r"[1-9]", words) and int(words) <= len(LABELS):
        return LABELS[int(words) - 1]
    return words if words in LABELS else None


def _escaped(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _unescaped(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
