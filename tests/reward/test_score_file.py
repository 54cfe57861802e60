"""Files of replies become groups of turns, row by row, and scores become a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bb3x_ray.classify.pairs import Pair
from bb3x_ray.reward import score_file
from bb3x_ray.reward.score_file import FILE_SCHEMA, FileTurns, write_scored
from bb3x_ray.reward.score_rows import RowScorer
from bb3x_ray.reward.signals import TURNS, context_text
from bb3x_ray.reward.turns import TURNS_SCHEMA
from bb3x_ray.schemas.conversation import Message, model, person
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import SCORED_SCHEMA

ROWS = [
    {"context": f"Hi {i}", "reply": f"Hello {i}.", "after": "Thanks!" if i % 2 else None} for i in range(9)
]


def all_turns(turns: FileTurns) -> list[dict[str, Any]]:
    tables = [turns(group) for group in range(len(turns.cuts))]
    assert all(table.schema == TURNS_SCHEMA for table in tables)
    return pa.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_every_row_is_in_one_group_at_its_place(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "LINES", 4)
    monkeypatch.setattr(score_file, "ROWS", 2)
    path = tmp_path / name
    if name.endswith("jsonl"):
        path.write_text("\n\n".join(map(json.dumps, ROWS)))
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=5)
    turns = FileTurns.of(path)
    assert turns.rows == 9 and len(turns.cuts) == (3 if name.endswith("jsonl") else 5)
    found = all_turns(turns)
    assert [row["message_id"] for row in found] == [str(i) for i in range(9)]
    assert [{k: row[k] for k in ROWS[0]} for row in found] == ROWS


def test_a_context_may_be_a_list_in_the_order_in_which_it_was_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"context": ["one", "two\nlines", "three"], "reply": "four", "id": 7}) + "\n")
    (row,) = all_turns(FileTurns.of(path))
    assert row["context"] == "three\ntwo lines\none" and row["conversation_id"] == "7"


def test_a_list_is_read_as_a_round_reads_a_conversation(tmp_path: Path) -> None:
    told = [f"number {i}" for i in range(2 * TURNS + 1)]
    talk = [Message(str(i), model("v1") if i % 2 else person("ada"), text) for i, text in enumerate(told)]
    roles = ["assistant" if i % 2 else "user" for i in range(len(told))]
    said = [{"role": role, "content": text} for role, text in zip(roles, told, strict=True)]
    doubled = [*said, {"role": "user", "content": "and more"}, {"role": "assistant", "content": "hm"}]
    path = tmp_path / "rows.jsonl"
    prompted = [{"role": "system", "content": "Be kind."}, *said]
    contexts = [
        told,
        said,
        prompted,
        doubled,
        [],
        [{"role": "narrator", "content": "a"}],
        [{"role": []}],
        [3],
    ]
    path.write_text("\n".join(json.dumps({"context": one, "reply": "yes"}) for one in contexts))
    found = [row["context"] for row in all_turns(FileTurns.of(path))]
    assert found[:3] == [context_text(talk)] * 3 and len(found[0].split("\n")) == TURNS
    assert found[3].split("\n")[:4] == ["", "hm", f"{told[-1]} and more", told[-2]]
    assert found[4:] == ["", None, None, None]


@pytest.mark.parametrize("column", ["context", "reply", "after", "id"])
def test_a_cell_that_is_not_utf8_makes_an_error_of_its_row_alone(tmp_path: Path, column: str) -> None:
    good = pa.array(["a", "b", "c"])
    bad = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).cast(pa.string(), safe=False)
    names = ("context", "reply", "after", "id")
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({name: bad if name == column else good for name in names}), path)
    turns = FileTurns.of(path)(0)
    assert turns.schema == TURNS_SCHEMA
    scored = RowScorer(_Even(), "v0001", None, 100)(turns)
    assert scored["error"].to_pylist() == ["", "not UTF-8", ""]
    assert write_scored([scored], tmp_path / "scores.parquet") == (3, 1)
    ids = ["a", None if column == "id" else "b", "c"]
    assert pq.read_table(tmp_path / "scores.parquet")["id"].to_pylist() == ids


class _Even:
    base_rate = 0.5

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        return np.full(len(pairs), 0.5)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '["reply"]',
        '{"context": "a", "reply": 3}',
        '{"context": "a", "reply": "\\ud800"}',
        '{"context": "a", "id": "\\ud800"}',
    ],
)
def test_a_line_that_is_no_row_keeps_its_place_without_text(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(ROWS[0]), line, json.dumps(ROWS[1])]))
    assert [row["reply"] for row in all_turns(FileTurns.of(path))] == ["Hello 0.", None, "Hello 1."]


def test_a_file_without_replies_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(UserError, match="no such file"):
        FileTurns.of(path)
    path.write_text('{"text": "secret"}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl: .*no context and no reply") as told:
        FileTurns.of(path)
    assert "secret" not in str(told.value)


def test_scores_become_a_file_when_all_are_there(tmp_path: Path) -> None:
    rows = [{"message_id": str(i), "good": i / 4, "error": "" if i else "no text"} for i in range(4)]
    table = pa.Table.from_pylist(rows, schema=SCORED_SCHEMA)
    out = tmp_path / "new" / "scores.parquet"
    assert write_scored([table.slice(0, 3), table.slice(3)], out) == (4, 1)
    written = pq.read_table(out)
    assert written.schema == FILE_SCHEMA and written["row"].to_pylist() == [0, 1, 2, 3]

    def broken() -> Any:
        yield table
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_scored(broken(), tmp_path / "other.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
