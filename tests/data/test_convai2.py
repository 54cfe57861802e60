"""Recorded talk: the real file's counts, and what is left of damaged ones."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bb3x_ray.data import slices
from bb3x_ray.data.ingest import ingest
from bb3x_ray.data.readers import convai2
from bb3x_ray.data.table import head
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage
from tests.data.make import load, read_conversations


def dialog(number: int, scores: tuple[int | None, ...] = (None, 1), **about: Any) -> dict[str, Any]:
    messages = [
        {
            "id": i,
            "sender": f"participant{i % 2 + 1}",
            "text": f"text {{ {number}.{i} }}",
            "evaluation_score": score,
            "sender_class": "Bot" if i % 2 else "Human",
        }
        for i, score in enumerate(scores)
    ]
    return {
        "dialog": messages,
        "start_time": f"2018-10-29 03:32:{number:02d}.296000",
        "eval_score": None,
        "participant1_id": {"class": "User", "user_id": f"User {number}"},
        "participant2_id": {"class": "Bot", "user_id": "Bot 004"},
        **about,
    }


def read(path: Path) -> tuple[list[Event], list[tuple[int, str]]]:
    rejects: list[tuple[int, str]] = []
    events = list(convai2.read(path, lambda line, reason, raw: rejects.append((line, reason))))
    return events, rejects


def conversations(events: list[Event]) -> list[str]:
    """The number of each dialog that was read."""
    return [e.text.split()[2].split(".")[0] for e in events if e.position == 0 and e.text]


def test_the_volunteers_file_is_read_whole(shared_data: Path, storage: Storage) -> None:
    path = shared_data / "convai2" / "data_volunteers.json"
    report = ingest(storage, path, "convai2")
    assert (report.conversations, report.thumbs_up, report.thumbs_down) == (1111, 935, 440)
    assert (report.rejected, report.duplicates) == ([], 0)
    again = ingest(storage, path, "convai2")
    assert (again.events_new, again.duplicates) == (0, report.events_new)
    assert head(storage) == report.events_new == 14623 + 935 + 440 + (1111 - 518)

    info = slices.pin(storage, "rounds/0001/collect", 0, head(storage))
    assert (info.conversations, info.bot_turns, info.people, info.left_out) == (1111, 6959, 789, {})
    assert (info.thumbs_up, info.thumbs_down, info.simulated) == (935, 440, 0)
    found = load(storage, "rounds/0001/collect")
    assert sum(len(c.messages) for c in found) == 14623
    pairs = [(a, b) for c in found for a, b in zip(c.messages, c.messages[1:], strict=False)]
    assert sum(a.author == b.author for a, b in pairs) == 1197
    assert sum(c.messages[0].author.is_bot for c in found) == 245
    tables = slices.open_slice(storage, "rounds/0001/collect").tables(["annotation"])
    assert Counter(one for table in tables for one in table["annotation"].drop_null().to_pylist()) == {
        1: 208,
        2: 116,
        3: 120,
        4: 70,
        5: 79,
    }
    assert {c.consent_basis for c in found} == {"recorded:convai2"}
    # One of the five bots never says a word.
    assert len({m.author.name for c in found for m in c.messages if m.author.kind == "external"}) == 4
    assert not any("User" in c.person for c in found)


def test_the_paid_workers_file_loads_without_ids_and_thumbs(shared_data: Path) -> None:
    events, rejects = read(shared_data / "convai2" / "export_2018-07-07_train.json")
    assert rejects == []
    assert len({e.conversation_id for e in events}) == 1417
    assert Counter(e.kind for e in events) == {"message": 21081, "annotation": 1377}
    assert len({e.event_id for e in events}) == len(events)


def test_reading_gives_the_same_events_every_time(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([dialog(1), dialog(2, (None, 0, None, 1), eval_score=5)]))
    first, _ = read(path)
    assert first == read(path)[0]
    assert [e.rating for e in first if e.kind == "feedback"] == [1, -1, 1]
    assert [e.rating for e in first if e.kind == "annotation"] == [5]
    assert first[0].at == 1540783921296000


def test_one_object_a_line_is_the_same_as_an_array(tmp_path: Path) -> None:
    dialogs = [dialog(n) for n in range(3)]
    array, lines = tmp_path / "array.json", tmp_path / "lines.jsonl"
    array.write_text(json.dumps(dialogs, indent=1))
    lines.write_text("\n".join(map(json.dumps, dialogs)))
    assert read(array) == read(lines)
    assert len(conversations(read(lines)[0])) == 3


def test_the_good_lines_of_a_damaged_file_count(tmp_path: Path, storage: Storage) -> None:
    lines = [json.dumps(dialog(n)) for n in range(5)]
    lines[1] = lines[1][:60]
    lines[3] = '{"something": "else"}'
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines))
    report = ingest(storage, path, "convai2")
    assert (report.conversations, report.thumbs_up) == (3, 3)
    assert [line for line, _ in report.rejected] == [2, 4]
    (kept,) = storage.path("rejects").iterdir()
    assert [json.loads(line)["raw"] for line in kept.read_text().splitlines()] == [lines[1], lines[3]]
    assert len(read_conversations(storage, 0, head(storage))) == 3


@pytest.mark.parametrize("layout", ["one line", "an element a line", "indented"])
@pytest.mark.parametrize("damage", ["cut", "brace", "bytes", "quote"])
def test_the_good_elements_of_a_damaged_array_count(tmp_path: Path, layout: str, damage: str) -> None:
    elements = [
        json.dumps(dialog(n, (None, 1, None, 0)), indent=2 if layout == "indented" else None)
        for n in range(5)
    ]
    broken = elements[2]
    elements[2] = {
        "cut": broken[: len(broken) // 2],
        "brace": "".join(broken.rsplit("}", 1)),
        "bytes": broken.replace("text", "te\x00\x01xt", 1),
        "quote": broken.replace('"text"', '"text', 1),
    }[damage]
    path = tmp_path / "data.json"
    path.write_text("[" + (", " if layout == "one line" else ",\n").join(elements) + "]")
    events, rejects = read(path)
    assert conversations(events) == ["0", "1", "3", "4"]
    ((line, reason),) = rejects
    assert (
        line
        == {"one line": 1, "an element a line": 3, "indented": 2 * len(elements[0].splitlines()) + 1}[layout]
    )
    assert "element 3" in reason and "text {" not in reason


def test_a_truncated_array_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    whole = "[" + ",\n".join(json.dumps(dialog(n)) for n in range(4)) + "]"
    path.write_text(whole[:-30])
    events, rejects = read(path)
    assert conversations(events) == ["0", "1", "2"]
    assert [line for line, _ in rejects] == [4]
    path.write_text(whole[:-1])
    events, rejects = read(path)
    assert len(conversations(events)) == 4
    assert rejects == [(4, "the file ends before the array is closed")]


def test_entries_that_are_no_dialogs_are_rejected_whole_without_their_text(tmp_path: Path) -> None:
    def changed(number: int, **fields: Any) -> dict[str, Any]:
        entry = dialog(number)
        entry["dialog"][1].update(fields)
        return entry

    bad = [
        changed(1, text=None),
        changed(2, sender="participant3"),
        changed(3, evaluation_score=7),
        changed(4, text="half \ud83d"),
        dialog(5, ()),
        dialog(6, eval_score="great"),
        dialog(7, participant2_id={"class": "User", "user_id": "x"}),
        {"dialog": "text {"},
    ]
    bad[6]["dialog"][1]["sender_class"] = "Human"
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(entry) for entry in [*bad, dialog(9)]))
    events, rejects = read(path)
    assert conversations(events) == ["9"]
    assert [line for line, _ in rejects] == list(range(1, 9))
    assert not any("text {" in reason for _, reason in rejects)


def test_bad_files_end_in_one_sentence(tmp_path: Path, storage: Storage) -> None:
    empty, garbage = tmp_path / "empty.json", tmp_path / "garbage.json"
    empty.write_text(" \n")
    garbage.write_text("this is no data\n")
    with pytest.raises(UserError, match="no such file"):
        ingest(storage, tmp_path / "missing.json", "convai2")
    with pytest.raises(UserError, match="is empty"):
        ingest(storage, empty, "convai2")
    with pytest.raises(UserError, match="line 1"):
        ingest(storage, garbage, "convai2")
    with pytest.raises(UserError, match="unknown format 'csv': the formats are bb3, "):
        ingest(storage, garbage, "csv")
    assert head(storage) == 0


def test_a_number_of_thousands_of_digits_is_a_reject(tmp_path: Path) -> None:
    good, bad = json.dumps(dialog(1)), '{"dialog": ' + "9" * 5000 + "}"
    for content in (f"{bad}\n{good}", f"[{bad},\n{good}]"):
        path = tmp_path / "data.json"
        path.write_text(content)
        events, rejects = read(path)
        assert conversations(events) == ["1"] and [line for line, _ in rejects] == [1]
