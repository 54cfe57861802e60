"""Sheets: what a spreadsheet saves comes back the same, and every bad row is named."""

import csv
import io
from pathlib import Path

import pytest

from bb3x_ray.data.annotation_sheet import (
    COLUMNS,
    Item,
    Problem,
    label_of,
    read_items,
    read_sheet,
    to_context,
    turns_of,
    weight_of,
    write_sheet,
)
from bb3x_ray.schemas.errors import UserError

ODD = (
    "=HYPERLINK(1)",
    "+1",
    "-1 is cold",
    "@sum",
    "\tindented",
    "\rodd",
    "'quoted'",
    "'=kept",
    "''-twice",
    'say "hi"; now, please',
    "two\nlines\r\nor three",
    "ünïcödé 🎈",
    "'",
    "plain",
    "- 💥",
)


def items(count: int = len(ODD)) -> list[Item]:
    return [
        Item(f"r-{n}", to_context([(True, ODD[n]), (False, ODD[-n])]), ODD[n], 0.5 + n) for n in range(count)
    ]


def rows_of(some: list[Item], label: str = "") -> list[list[str]]:
    return [[one.id, one.context, one.reply, label, str(one.weight)] for one in some]


def saved(path: Path, delimiter: str, encoding: str, quoting: int, newline: str = "\r\n") -> Path:
    """The sheet as a spreadsheet that opened it saves it again."""
    raw = path.read_bytes().decode("utf-8-sig")
    cells = list(csv.reader(io.StringIO(raw, newline="")))
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=newline).writerows(cells)  # type: ignore[arg-type]
    again = path.with_name("again.csv")
    again.write_bytes(text.getvalue().encode(encoding))
    return again


@pytest.mark.parametrize(
    "delimiter, encoding, quoting",
    [
        (",", "utf-8-sig", csv.QUOTE_MINIMAL),
        (",", "utf-8", csv.QUOTE_ALL),
        (";", "utf-8-sig", csv.QUOTE_MINIMAL),
        ("\t", "utf-16", csv.QUOTE_MINIMAL),
        (";", "utf-8", csv.QUOTE_NONNUMERIC),
    ],
)
def test_what_a_spreadsheet_saves_comes_back_the_same(
    tmp_path: Path, delimiter: str, encoding: str, quoting: int
) -> None:
    path = tmp_path / "sample.csv"
    write_sheet(path, COLUMNS, rows_of(items()))
    assert read_items(path) == items()
    assert read_items(saved(path, delimiter, encoding, quoting)) == items()
    assert read_items(saved(path, delimiter, encoding, csv.QUOTE_ALL, "\n")) == items()


def test_no_cell_of_a_sheet_is_a_formula(tmp_path: Path) -> None:
    write_sheet(tmp_path / "x.csv", COLUMNS, rows_of(items()))
    with (tmp_path / "x.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]


def test_nobodys_words_can_be_taken_for_another_turn() -> None:
    turns = [(True, "hello\nBot: I am a bot\n\nPerson: me"), (False, ""), (True, "  spaces  ")]
    assert turns_of(to_context(turns)) == turns
    assert turns_of("") == [] and turns_of("no name\nBot: hi") == [(True, "no name"), (False, "hi")]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('sep=;\r\nid;label\r\n"a\nb";good\r\n\r\nc;other;one too many\r\nd;;\r\ne\r\n')
    problems: list[Problem] = []
    columns, rows = read_sheet(path, problems)
    assert columns == ["id", "label"]
    assert [(row.line, row.cells["id"]) for row in rows] == [(3, "a\nb"), (7, "d"), (8, "e")]
    assert rows[-1].cells == {"id": "e", "label": ""}
    (problem,) = problems
    assert str(problem).startswith("x.csv, line 6, row: 3 cells under 2 columns; quote")
    assert "too many" not in str(problem)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "no column id"),
        (b"text {;other\r\n1;2", "no column id"),
        (b"id,label,label\r\n", "a column is there twice"),
        (b"id,context,reply,label\r\n", "holds no replies"),
        (b"id,label\r\nr,good\r\n", "no column context"),
        (b'id,context,reply\r\nr,"text {', "line 2: not CSV"),
        (b"id,context,reply\r\nr,text {,\xff\r\n", "not UTF-8"),
        (b"id,context,reply\r\n ,text {,text {\r\n", "line 2, id: is missing"),
        (b"id,context,reply\r\nr,a,b\r\nr,text {,text {\r\n", "line 3, id: is there twice"),
        (b"id,context,reply,weight\r\nr,a,b,text {\r\n", "line 2, weight: not a number"),
    ],
)
def test_what_is_no_sheet_is_told_with_file_line_and_cure(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as told:
        read_items(path)
    assert "odd.csv" in str(told.value) and "text {" not in str(told.value)
    with pytest.raises(UserError, match="no such file"):
        read_items(tmp_path / "missing.csv")


def test_labels_by_word_or_key_and_weights_as_spreadsheets_write_them() -> None:
    assert [
        label_of(cell) for cell in (" Good", "off-topic", "OFF TOPIC", "3", "7", "8", "0", "bad", "")
    ] == [
        "good",
        "off_topic",
        "off_topic",
        "off_topic",
        "other",
        None,
        None,
        None,
        None,
    ]
    assert [weight_of(cell) for cell in ("", "0,5", "1e1", "0", "-1", "nan", "inf", "x")] == [
        1.0,
        0.5,
        10.0,
        None,
        None,
        None,
        None,
        None,
    ]
