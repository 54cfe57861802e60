"""The six views against the release's rules, written out message by message."""

import json
import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bb3x_ray.data.views import SPLITS, VIEWS, check_split, chunk_of, read_view, split_of, view_named
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage
from tests.data.make import commit, said, talk, thumb
from tests.data.release import conversations, events_of, plain_examples


def view_of(storage: Storage, name: str, split: str | None = None, **about: Any) -> list[dict[str, Any]]:
    tables = read_view(storage, VIEWS[name], split, **about)
    rows = [row for table in tables for row in table.to_pylist()]
    return [{**row, "label_info": json.loads(row["label_info"])} for row in rows]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A log of 120 conversations, in three commits."""
    storage = Storage(tmp_path_factory.mktemp("released") / "store")
    records = conversations(120)
    for begin in (0, 50, 51):
        end = {0: 50, 50: 51, 51: 120}[begin]
        commit(storage, *(event for record in records[begin:end] for event in events_of(record)))
    return storage


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("split", [None, *SPLITS])
def test_views_follow_the_rules_of_the_release(released: Storage, name: str, split: str | None) -> None:
    view = VIEWS[name]
    expected = [
        example
        for record in conversations(120)
        for example in plain_examples(record, view.label, view.only)
        if split in (None, example["split"])
    ]
    found = view_of(released, name, split)
    assert [{key: row[key] for key in expected[0]} for row in found] == expected
    assert len(expected) > 3


def test_turns_are_the_context_with_its_senders(released: Storage) -> None:
    joined = view_of(released, "bot")
    apart = view_of(released, "bot", with_turns=True)
    assert ["\n".join(turn["text"] for turn in row["turns"]) for row in apart] == [
        r["context"] for r in joined
    ]
    senders = {
        record["chat_id"]: [m["sender"] for m in record["message_history"]] for record in conversations(120)
    }
    assert all(
        [turn["sender"] for turn in row["turns"]] == senders[row["conversation_id"]][: row["position"]]
        for row in apart
    )


def test_what_is_left_out_has_a_reason(storage: Storage) -> None:
    unverified = replace(said("c", 3, "not ours"), author_kind="unverified")
    commit(
        storage,
        *talk("c", 3),
        unverified,
        said("no", 0, None, consent="none"),
        said("half", 0),
        said("half", 1, None),
    )
    left_out: Counter[str] = Counter()
    assert [row["position"] for row in view_of(storage, "bot", left_out=left_out)] == [1]
    assert left_out == {"no_consent": 1, "no_text": 1, "unverified": 1, "first_message": 0}
    left_out = Counter()
    assert view_of(storage, "human-standard", left_out=left_out) == []
    assert left_out["safety_unknown"] == 1


def test_conversations_without_a_chunk_are_split_by_a_stable_hash(storage: Storage) -> None:
    commit(storage, *(event for c in range(400) for event in talk(f"c{c}")))
    shares = Counter(row["split"] for row in view_of(storage, "bot"))
    assert sum(shares.values()) == 400 and shares["train"] > 350 and min(shares.values()) > 3
    (row,) = [row for row in view_of(storage, "bot") if row["conversation_id"] == "c7"]
    assert row["split"] == split_of(chunk_of("c7"))
    assert [chunk_of(f"c{c}") for c in range(4)] == [19, 55, 89, 54]
    assert [split_of(chunk) for chunk in (0, 2, 3, 5, 6, 99)] == [
        "test",
        "test",
        "valid",
        "valid",
        "train",
        "train",
    ]


def test_label_info_says_what_stands_by_now(storage: Storage) -> None:
    details = json.dumps({"is_liked": True, "memories": ["a"]})
    events = talk("c", 6)
    events[1] = replace(events[1], details=details)
    commit(storage, *events, thumb("t1", "c-m1", 1))
    before = view_of(storage, "bot")
    assert [(row["thumb"], row["label_info"]) for row in before] == [
        (1, {"is_liked": True, "memories": ["a"]}),
        (None, {}),
        (None, {}),
    ]
    commit(storage, thumb("t2", "c-m1", None, at=2), thumb("t3", "c-m3", -1), thumb("t4", "c-m5", 1))
    commit(storage, thumb("t5", "c-m5", -1, person="bob"))
    after = view_of(storage, "bot")
    assert [(row["thumb"], row["label_info"]) for row in after] == [
        (None, {"is_liked": False, "memories": ["a"], "is_disliked": False}),
        (-1, {"is_liked": False, "is_disliked": True, "dislike_type": "rude"}),
        (None, {"is_liked": True, "is_disliked": True, "dislike_type": "rude"}),
    ]


def test_a_canned_reply_is_a_label_that_says_so(storage: Storage) -> None:
    commit(storage, said("c", 0), replace(said("c", 1), author_kind="canned", author_name="safety"))
    (row,) = view_of(storage, "bot")
    assert row["label_info"] == {"is_safety_controlled_response": True} and row["author_kind"] == "canned"


def test_a_person_who_never_spoke_trips_nothing(storage: Storage) -> None:
    commit(storage, said("c", 0, bot=True), said("c", 1))
    (row,) = view_of(storage, "bot-standard")
    assert row["adversarial_human"] is False


def test_an_empty_log_has_no_examples(storage: Storage) -> None:
    assert view_of(storage, "bot") == []


@pytest.mark.parametrize(
    ("given", "meant"), [("bots", "bot"), ("Human_Standard", "human-standard"), ("crowd", "bot-crowd")]
)
def test_a_wrong_name_is_answered_with_the_nearest(given: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"did you mean '{meant}'"):
        view_named(given)


def test_a_wrong_split_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'valid'"):
        check_split("validation")


@pytest.mark.parametrize("buffer_bytes", [2**30, 16])
def test_contexts_short_and_long_beginning_anywhere_are_the_texts_joined(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, buffer_bytes: int
) -> None:
    monkeypatch.setattr("bb3x_ray.data.views._BUFFER_BYTES", buffer_bytes)
    words = ["a", "ja", "dreizehn über", "a text that is longer than twelve bytes", "", "x" * 300, "ende"]
    for number in range(len(words)):
        turned = words[number:] + words[:number]
        commit(storage, *(said(f"c{number}", at, text, bot=at % 2 > 0) for at, text in enumerate(turned)))
    rows = view_of(storage, "bot")
    assert len(rows) == 21
    for row in rows:
        number = int(row["conversation_id"][1:])
        turned = words[number:] + words[:number]
        assert (row["context"], row["label"]) == (
            "\n".join(turned[: row["position"]]),
            turned[row["position"]],
        )


@pytest.mark.parametrize("group_rows", [1_000_000, 10])  # row groups are decoded whole, or by batches
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_in_the_same_order(
    released: Storage, threads: int, group_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bb3x_ray.data.shard.BATCH_ROWS", 100)
    monkeypatch.setattr("bb3x_ray.data.shard._GROUP_ROWS", group_rows)
    left_out: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    found = view_of(released, "bot-crowd", threads=threads, left_out=left_out)
    assert found == view_of(released, "bot-crowd", threads=1, left_out=expected)
    assert left_out == expected and left_out["not_annotated"] > 100


def test_who_stops_after_a_few_examples_leaves_nothing_running(released: Storage) -> None:
    tables = read_view(released, VIEWS["bot"], threads=3)
    assert len(next(tables))
    tables.close()  # type: ignore[attr-defined]
    assert not [one for one in threading.enumerate() if one.name.startswith("bb3x-read")]
