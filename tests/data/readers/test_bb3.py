"""BlenderBot 3's release format: both spellings, chunks, thumbs with reasons, annotations."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bb3x_ray.data.event_rows import check_event
from bb3x_ray.data.ingest import ingest
from bb3x_ray.data.parsed_rows import digests_of
from bb3x_ray.data.readers.bb3 import chunk_of, reasons_of
from bb3x_ray.data.table import head
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage
from tests.data.make import read_conversations
from tests.data.readers.parsed import parsed
from tests.data.readers.release import bot, human, talk, write

DOCUMENTED = talk(
    1,
    human(
        "text { hello }", safety={"duo_safety": "__notok__", "string_matcher": "__ok__"}, mturk={"good": 2}
    ),
    bot(
        "text { reply }",
        is_disliked=True,
        dislike_type="Off Topic / Ignoring me",
        memories=["made up"],
        memory_decision="access memory",
        search_decision="search",
        search_query="text { query }",
        search_knowledge_doc_titles=["a", "b"],
        reward="Predicted class: __ok__ with probability: 0.97",
        previous_interaction_failure=None,
    ),
    human("text { you missed it }", is_dislike_feedback=True),
    bot("text { let us talk of tea }", is_safety_controlled_response=True),
    bot("text { sorry }", from_model_crash=True),
)


def camel(value: Any) -> Any:
    """The data card's spelling of the same conversation."""
    senders = {"bot": "Chatbot", "human": "Human"}
    if isinstance(value, list):
        return [camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, inner in value.items():
        first, *rest = key.split("_")
        found[first + "".join(map(str.capitalize, rest))] = (
            senders[inner] if key == "sender" else camel(inner)
        )
    return found


def test_a_message_keeps_what_the_release_says_of_it(tmp_path: Path) -> None:
    rows, rejects = parsed(write(tmp_path / "chunk_17.jsonl", [DOCUMENTED]), "bb3")
    assert rejects == []
    messages = [row for row in rows if row["kind"] == "message"]
    assert [m["position"] for m in messages] == [0, 1, 2, 3, 4]
    assert [m["author_kind"] for m in messages] == ["person", "external", "person", "canned", "canned"]
    assert {row["chunk"] for row in rows} == {17}
    assert len({row["conversation_id"] for row in rows}) == len({row["person"] for row in rows}) == 1
    assert "u1" not in messages[0]["person"] and messages[0]["author_name"] == messages[0]["person"]
    asked, replied = (json.loads(m["details"]) for m in messages[:2])
    assert asked["safety"] == {"duo_safety": "__notok__", "string_matcher": "__ok__"} and asked["mturk"] == {
        "good": 2
    }
    assert replied["search_knowledge_doc_titles"] == ["a", "b"] and replied["memories"] == ["made up"]
    assert "previous_interaction_failure" in replied and "mturk" not in replied and "text" not in replied
    assert json.loads(messages[2]["details"])["is_dislike_feedback"] is True


def test_a_thumb_is_a_feedback_with_our_reason_and_theirs(tmp_path: Path) -> None:
    liked = talk(
        2, human("text {"), bot("text {", is_liked=True), bot("text {", is_liked=True, is_disliked=True)
    )
    rows, _ = parsed(write(tmp_path / "x.jsonl", [DOCUMENTED, liked]), "bb3")
    thumbs = [row for row in rows if row["kind"] == "feedback"]
    assert [(t["rating"], t["reasons"]) for t in thumbs] == [(-1, ["off_topic"]), (1, [])]
    assert json.loads(thumbs[0]["details"]) == {"dislike_type": "Off Topic / Ignoring me"}
    assert thumbs[0]["message_id"] == [r for r in rows if r["kind"] == "message"][1]["message_id"]
    assert thumbs[1]["chunk"] is None


def test_the_data_cards_spelling_is_read_alike(tmp_path: Path) -> None:
    theirs = camel(DOCUMENTED)
    assert "isDisliked" in theirs["messageHistory"][1] and theirs["messageHistory"][1]["sender"] == "Chatbot"
    assert "duoSafety" in theirs["messageHistory"][0]["safety"]
    plain, camels = (
        parsed(write(tmp_path / name, [one]), "bb3")[0]
        for name, one in (("a.jsonl", DOCUMENTED), ("b.jsonl", theirs))
    )
    assert plain == camels
    short = talk(
        1, {"text": "a", "sender": "Human", "safety": {"duoSafety": "__ok__", "stringMatcher": "__ok__"}}
    )
    (row,), _ = parsed(write(tmp_path / "c.jsonl", [short]), "bb3")
    assert json.loads(row["details"])["safety"] == {"duo_safety": "__ok__", "string_matcher": "__ok__"}


def test_every_row_would_pass_the_logs_own_check_and_has_its_digest(tmp_path: Path) -> None:
    rows, _ = parsed(write(tmp_path / "3.jsonl", [DOCUMENTED, *(talk(n) for n in range(9))]), "bb3")
    for row in rows:
        check_event(Event.from_dict(row))
    assert [row["digest"] for row in rows] == [
        bytes(d).ljust(16, b"\0") for d in digests_of(r["event_id"] for r in rows)
    ]
    assert len({row["event_id"] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    "name, chunk",
    [
        ("chunk_17.jsonl", 17),
        ("chunk17.json.gz", 17),
        ("deployment-data-0.jsonl", 0),
        ("3.jsonl", 3),
        ("bb3x_data.jsonl", None),
        ("bb3.jsonl", None),
        ("data_20221231.jsonl", None),
    ],
)
def test_the_number_of_a_chunk_is_in_the_files_name(name: str, chunk: int | None) -> None:
    assert chunk_of(name) == chunk


def test_folders_are_read_in_the_order_of_their_chunks(tmp_path: Path, storage: Storage) -> None:
    for number in (10, 9, 2):
        write(tmp_path / "data" / f"chunk_{number}.jsonl", [talk(number)])
    write(tmp_path / "data" / "chunk_1" / "part.json", [talk(1)])
    with gzip.open(tmp_path / "data" / "chunk_99.jsonl.gz", "wt") as file:
        file.write(json.dumps(talk(99)))
    (tmp_path / "data" / "README.md").write_text("no data")
    rows, rejects = parsed(tmp_path / "data", "bb3")
    assert rejects == [] and [row["chunk"] for row in rows[::3]] == [1, 2, 9, 10, 99]
    report = ingest(storage, tmp_path / "data", "bb3")
    assert (report.conversations, report.events_new, report.thumbs_up) == (5, 15, 5)
    assert ingest(storage, tmp_path / "data" / "chunk_9.jsonl", "bb3").events_new == 0
    found = read_conversations(storage, 0, head(storage))
    assert {c.messages[0].text for c in found} == {f"text {{ {n}.0 }}" for n in (1, 2, 9, 10, 99)}
    assert len({c.person for c in found}) == 3  # u0, u1 and u2 come back


def test_an_array_and_a_compressed_file_give_the_same_events(tmp_path: Path) -> None:
    talks = [DOCUMENTED, *(talk(n) for n in range(5))]
    lines = write(tmp_path / "lines.jsonl", talks)
    array, packed = tmp_path / "array.json", tmp_path / "packed.jsonl.gz"
    array.write_text(json.dumps(talks, indent=1))
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + lines.read_bytes()))
    assert parsed(lines, "bb3") == parsed(array, "bb3") == parsed(packed, "bb3")


def test_a_conversation_that_goes_on_adds_what_is_new(tmp_path: Path, storage: Storage) -> None:
    ingest(storage, write(tmp_path / "a.jsonl", [talk(1)]), "bb3")
    longer = talk(1)
    longer["message_history"].append(human("text {"))
    report = ingest(storage, write(tmp_path / "b.jsonl", [longer]), "bb3")
    assert (report.events_new, report.duplicates) == (1, 3)
    (found,) = read_conversations(storage, 0, head(storage))
    assert len(found.messages) == 3


BAD: dict[str, Any] = {
    "no history": {"chat_id": "c"},
    "empty history": talk(1, message_history=[]),
    "a text": "text {",
    "message": talk(1, human("text {"), "text {"),  # type: ignore[arg-type]
    "text": talk(1, human(None)),  # type: ignore[arg-type]
    "sender": talk(1, human("text {", sender="text {")),
    "list as sender": talk(1, human("text {", sender=["bot"])),
    "thumb": talk(1, bot("text {", is_liked="text {")),
    "ids": talk(1, chat_id={"text {": 1}),
    "surrogate": talk(1, human("text { \ud83d")),
    "surrogate in a document": talk(1, bot("text {", search_knowledge_doc_content=["\ud83d"])),
    "infinity": talk(1, bot("text {", reward=float("inf"))),
}


@pytest.mark.parametrize("layout", ["lines", "array"])
@pytest.mark.parametrize("what", BAD)
def test_a_bad_conversation_is_left_out_whole_without_its_text(
    tmp_path: Path, what: str, layout: str
) -> None:
    path = tmp_path / "x.json"
    entries = [json.dumps(one) for one in (talk(5), BAD[what], talk(6))]
    path.write_text("\n".join(entries) if layout == "lines" else "[" + ",\n".join(entries) + "]")
    rows, ((line, reason),) = parsed(path, "bb3")
    assert line == 2 and reason and "text {" not in reason
    assert [row["text"] for row in rows if row["position"] == 0] == ["text { 5.0 }", "text { 6.0 }"]


def test_reasons_are_ours() -> None:
    assert reasons_of("Nonsensical / Incorrect") == ("nonsensical",)
    assert reasons_of(["Looks like spam / ads", "rude / inappropriate", "spam"]) == ("spam", "rude")
    assert reasons_of("something new") == ("other",)
    assert reasons_of(None) == reasons_of("") == ()
