"""hh-rlhf, openai, open-webui, chitchat and Parquet: what their entries become, and their bad ones."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bb3x_ray.data.event_rows import check_event, to_table
from bb3x_ray.data.ingest import ingest
from bb3x_ray.data.table import head
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage
from tests.data.make import read_conversations, said, talk, thumb
from tests.data.readers.parsed import parsed


def lines(path: Path, *entries: Any) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def taken_in(storage: Storage, path: Path, format: str) -> list[Conversation]:
    report = ingest(storage, path, format)
    assert ingest(storage, path, format).events_new == 0 and report.duplicates == 0
    rows, _ = parsed(path, format)
    for row in rows:
        check_event(Event.from_dict(row))
    return read_conversations(storage, 0, head(storage))


# hh-rlhf

PAIR = {
    "chosen": "\n\nHuman: hi there\n\nAssistant: hello\n\nHuman: tea?\n\nAssistant: green tea",
    "rejected": "\n\nHuman: hi there\n\nAssistant: hello\n\nHuman: tea?\n\nAssistant: text { no }",
}


def test_a_pair_is_two_conversations_with_a_thumb_on_each_last_reply(
    tmp_path: Path, storage: Storage
) -> None:
    chosen, rejected = taken_in(storage, lines(tmp_path / "x.jsonl", PAIR), "hh-rlhf")
    assert [m.text for m in chosen.messages] == ["hi there", "hello", "tea?", "green tea"]
    assert [m.text for m in rejected.messages][:3] == ["hi there", "hello", "tea?"]
    assert [m.author.kind for m in chosen.messages] == ["person", "external", "person", "external"]
    assert [(f.rating, f.message_id) for f in chosen.feedback] == [(1, chosen.messages[-1].message_id)]
    assert [(f.rating, f.message_id) for f in rejected.feedback] == [(-1, rejected.messages[-1].message_id)]
    assert chosen.person == rejected.person


def test_bad_pairs_are_left_out(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [
        {**PAIR, "rejected": "text {"},
        {**PAIR, "chosen": 5},
        {"chosen": PAIR["chosen"]},
        {**PAIR, "chosen": PAIR["chosen"] + "\n\nHuman: text {"},
        {"prompt": "text {"},
    ]
    rows, rejects = parsed(lines(tmp_path / "x.jsonl", *bad, PAIR), "hh-rlhf")
    assert len(rows) == 10 and [line for line, _ in rejects] == [1, 2, 3, 4, 5]
    assert not any("text {" in reason for _, reason in rejects)


def test_the_real_pairs_are_read_whole(shared_data: Path, storage: Storage) -> None:
    report = ingest(storage, shared_data / "hh-rlhf" / "harmless-base-even.jsonl.gz", "hh-rlhf")
    assert (report.conversations, report.thumbs_up, report.thumbs_down) == (2 * 1156, 1156, 1156)
    assert report.left_out == report.duplicates == 0


# openai


def test_messages_with_and_without_thumbs(tmp_path: Path, storage: Storage) -> None:
    first = {
        "id": "c1",
        "user": "ada",
        "model": "m-1",
        "created": 1_700_000_000,
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]},
            {"role": "tool", "content": "42"},
            {
                "role": "assistant",
                "content": "it is 42",
                "rating": -1,
                "reasons": ["rude", "slow"],
                "comment": "no",
                "correction": "it is 41",
            },
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": "43"},
        ],
    }
    plain = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "label": True,
    }
    path = lines(tmp_path / "x.jsonl", first, plain)
    rated, labelled = taken_in(storage, path, "openai")
    assert [m.text for m in rated.messages] == ["look", "it is 42", "again", "43"]
    assert [m.author.name for m in rated.messages][1::2] == ["openai:m-1", "openai:m-1"]
    ((feedback),) = rated.feedback
    assert (feedback.rating, feedback.reasons, feedback.comment) == (-1, ("rude", "other"), "no")
    assert feedback.correction == "it is 41"
    assert feedback.message_id == rated.messages[1].message_id
    assert [f.rating for f in labelled.feedback] == [1]
    rows, _ = parsed(path, "openai")
    assert rows[0]["at"] == 1_700_000_000_000_000
    assert json.loads(rows[0]["details"])["before"][0]["content"] == "be kind"
    assert [one["role"] for one in json.loads(rows[1]["details"])["before"]] == ["assistant", "tool"]


def test_bad_messages_are_left_out(tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "a"}]}
    bad: list[Any] = [
        {"messages": []},
        {"messages": ["text {"]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "assistant", "content": "text {", "rating": "text {"}]},
        {"messages": [{"role": "assistant", "content": "text {", "rating": 1, "reasons": "text {"}]},
        {"messages": [{"role": "assistant", "content": "text {", "rating": 1, "comment": 5}]},
        {"messages": [{"role": "system", "content": "text {"}]},
    ]
    rows, rejects = parsed(lines(tmp_path / "x.jsonl", *bad, good), "openai")
    assert len(rows) == 1 and [line for line, _ in rejects] == list(range(1, 8))
    assert not any("text {" in reason for _, reason in rejects)


# open-webui


def rating(rated: str, value: Any, **data: Any) -> dict[str, Any]:
    """A chat whose second question was answered twice: b2 and c2."""
    tree = {
        "a1": {"id": "a1", "parentId": None, "role": "user", "content": "hi", "timestamp": 1_700_000_000},
        "a2": {"id": "a2", "parentId": "a1", "role": "assistant", "content": "hello", "model": "m:1b"},
        "b1": {"id": "b1", "parentId": "a2", "role": "user", "content": "tea?"},
        "b2": {"id": "b2", "parentId": "b1", "role": "assistant", "content": "coffee", "model": "m:1b"},
        "c2": {"id": "c2", "parentId": "b1", "role": "assistant", "content": "tea", "model": "m:7b"},
    }
    return {
        "id": f"f-{rated}",
        "user_id": "user-1",
        "type": "rating",
        "data": {"rating": value, "model_id": "m:1b", **data},
        "meta": {"chat_id": "chat-1", "message_id": rated, "arena": False},
        "snapshot": {"chat": {"id": "chat-1", "chat": {"history": {"currentId": "c2", "messages": tree}}}},
        "created_at": 1_700_000_100,
        "updated_at": 1_700_000_200,
    }


def test_each_rating_is_the_conversation_that_led_to_it(tmp_path: Path, storage: Storage) -> None:
    path = tmp_path / "export.json"
    worse = rating("b2", -1, reason="not_factually_correct", comment="wrong", details={"rating": 2})
    path.write_text(json.dumps([worse, rating("c2", "1"), rating("a2", 0)]))
    coffee, tea, hello = taken_in(storage, path, "open-webui")
    assert [m.text for m in coffee.messages] == ["hi", "hello", "tea?", "coffee"]
    assert [m.text for m in tea.messages] == ["hi", "hello", "tea?", "tea"]
    assert tea.messages[-1].author.name == "open-webui:m:7b"
    assert [(f.rating, f.reasons, f.comment) for f in coffee.feedback] == [(-1, ("nonsensical",), "wrong")]
    assert [f.rating for f in tea.feedback] == [1] and hello.feedback == ()
    assert len({coffee.person, tea.person, hello.person}) == 1


def test_bad_ratings_are_left_out_and_a_rating_without_its_chat_is_kept(tmp_path: Path) -> None:
    circle = rating("b2", 1)
    circle["snapshot"]["chat"]["chat"]["history"]["messages"]["a1"]["parentId"] = "b2"
    bare = {**rating("b2", 1), "snapshot": None}
    bad = [
        rating("b2", "text {"),
        rating("b1", 1),
        rating("zz", 1),
        circle,
        {"data": "text {"},
        {"x": "text {"},
    ]
    bad += [{**rating("b2", 1), "meta": None}]
    path = tmp_path / "export.json"
    path.write_text("[" + ",\n".join(json.dumps(one) for one in [*bad, bare]) + "]")
    rows, rejects = parsed(path, "open-webui")
    assert [(row["kind"], row["rating"]) for row in rows] == [("feedback", 1)]
    assert [line for line, _ in rejects] == list(range(1, 8))
    assert not any("text {" in reason for _, reason in rejects)


# chitchat


def test_people_talking_to_people(tmp_path: Path, storage: Storage) -> None:
    def one(text: str, sender: str) -> dict[str, str]:
        return {"text": text, "sender": sender, "timestamp": "2018-05-02T19:38:15Z"}

    talks = {
        "x": {
            "messages": [[one("hi", "a"), one("you there?", "a")], [one("yes", "b")]],
            "ratings": {"witty": 9},
        },
        "y": {"messages": [[{"text": "text {"}]], "ratings": {}},
        "z": {"messages": [], "ratings": {}},
    }
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(talks))
    (found,) = taken_in(storage, path, "chitchat")
    assert [m.text for m in found.messages] == ["hi", "you there?", "yes"]
    assert all(m.author.is_person for m in found.messages)
    assert len({m.author.name for m in found.messages}) == 2
    rows, rejects = parsed(path, "chitchat")
    assert [row["rating"] for row in rows if row["kind"] == "annotation"] == [4]
    assert [reason for _, reason in rejects] == ["conversation 2: message 0: sender must be a string"]
    path.write_text("[1, 2]")
    with pytest.raises(UserError, match=r"dataset\.json"):
        ingest(storage, path, "chitchat")


# parquet


def test_events_as_rows_come_back_the_same(tmp_path: Path, storage: Storage) -> None:
    events = [
        *talk("c1", 4, consent="store"),
        thumb("t1", "c1-m1", -1, conversation="c1"),
        said("c2", 0, None),
    ]
    path = tmp_path / "events.parquet"
    pq.write_table(to_table(events, 1), path, row_group_size=2)
    report = ingest(storage, path, "parquet")
    assert (report.events_new, report.left_out, report.thumbs_down) == (6, 0, 1)
    rows, _ = parsed(path, "parquet")
    assert [Event.from_dict(row) for row in rows] == events
    assert ingest(storage, path, "parquet").events_new == 0


def test_bad_rows_are_left_out_by_the_logs_rules(tmp_path: Path) -> None:
    good = talk("c1", 2)[1].to_dict()
    changes: list[dict[str, Any]] = [
        {"event_id": ""},
        {"at": None},
        {"kind": "text {"},
        {"author_kind": None},
        {"author_name": ""},
        {"position": None},
        {"message_id": ""},
        {"kind": "feedback", "rating": 3},
        {"kind": "feedback", "message_id": ""},
    ]
    rows = [{**good, "event_id": f"e{i}", **change} for i, change in enumerate(changes)]
    fine = [{**good, "event_id": "f1"}, {**good, "event_id": "f2", "kind": "feedback", "rating": None}]
    path = tmp_path / "events.parquet"
    pq.write_table(pa.Table.from_pylist([*rows, *fine]), path)
    found, rejects = parsed(path, "parquet")
    assert [row["event_id"] for row in found] == ["f1", "f2"]
    assert [line for line, _ in rejects] == list(range(1, 10))
    assert not any("text {" in reason for _, reason in rejects)
    for row in rows:
        with pytest.raises(ValueError):
            check_event(Event.from_dict(row))


def test_files_that_hold_no_events_end_in_a_sentence(tmp_path: Path, storage: Storage) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(UserError, match="not a Parquet file"):
        ingest(storage, path, "parquet")
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(UserError, match="lacks the columns event_id, kind"):
        ingest(storage, path, "parquet")
