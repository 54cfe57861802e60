"""Exports: what they hold, that they load again, and that nothing half stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bb3x_ray.data.data_card import WHY
from bb3x_ray.data.export import export
from bb3x_ray.data.views import VIEWS, read_view
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage
from tests.data.make import commit, said, talk, thumb
from tests.data.release import conversations, events_of


@pytest.fixture
def released(storage: Storage) -> Storage:
    commit(storage, *(event for record in conversations(60) for event in events_of(record)))
    return storage


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]


def view_rows(storage: Storage, name: str) -> list[dict[str, Any]]:
    rows = [row for table in read_view(storage, VIEWS[name]) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row["conversation_id"], row["position"]))


def test_bb3_holds_every_message_as_the_release_had_it(released: Storage, tmp_path: Path) -> None:
    report = export(released, tmp_path / "out", "bb3")
    assert report.records == report.conversations == 60
    found = {line["chat_id"]: line for line in lines_of(tmp_path / "out")}
    for record in conversations(60):
        line = found[record["chat_id"]]
        assert line["user_pseudo_id"] == record["user_pseudo_id"]
        assert line["message_history"] == record["message_history"]
    chunks = {path.name for path in (tmp_path / "out").glob("*.jsonl")}
    assert chunks == {f"release_data_{record['chunk']:02d}.jsonl" for record in conversations(60)}


def test_bb3_of_other_sources_loads_again_with_equal_views(storage: Storage, tmp_path: Path) -> None:
    """Thumbs that were given, changed and taken back, a canned reply, no chunk, no details."""
    canned = replace(
        said("c", 5, "Let us talk of something else."), author_kind="canned", author_name="safety"
    )
    commit(storage, *talk("c", 5), canned, thumb("t1", "c-m1", -1), thumb("t2", "c-m3", 1), *talk("d", 3))
    commit(storage, thumb("t3", "c-m3", None, at=9), thumb("t4", "d-m1", 1))
    export(storage, tmp_path / "out", "bb3")
    again = Storage(tmp_path / "again")
    for path in sorted((tmp_path / "out").glob("*.jsonl")):
        chunk = int(path.stem[-2:])
        for line in path.open(encoding="utf-8"):
            commit(again, *events_of({**json.loads(line), "chunk": chunk}))
    for name in VIEWS:
        columns = ("conversation_id", "person", "context", "label", "adversarial_human", "split")
        before, after = view_rows(storage, name), view_rows(again, name)
        assert [[row[c] for c in columns] for row in before] == [[row[c] for c in columns] for row in after]
        infos = [[json.loads(row["label_info"]) for row in rows] for rows in (before, after)]
        assert infos[0] == infos[1]
    assert view_rows(again, "bot")


def test_openai_holds_messages_with_what_stands_of_their_thumbs(storage: Storage, tmp_path: Path) -> None:
    at = 1_700_000_000_000_000
    commit(
        storage,
        *(replace(event, at=at) for event in talk("c", 4)),
        replace(thumb("t", "c-m1", -1), comment="no", correction="yes"),
        thumb("u", "c-m3", 1),
        thumb("v", "c-m3", -1, person="bob"),
    )
    export(storage, tmp_path / "out", "openai")
    (line,) = lines_of(tmp_path / "out")
    assert line == {
        "messages": [
            {"role": "user", "content": "words 0"},
            {
                "role": "assistant",
                "content": "words 1",
                "model": "v0001",
                "rating": -1,
                "reasons": ["rude"],
                "comment": "no",
                "correction": "yes",
            },
            {"role": "user", "content": "words 2"},
            {"role": "assistant", "content": "words 3", "model": "v0001"},
        ],
        "id": "c",
        "user": "ada",
        "created": "2023-11-14T22:13:20+00:00",
    }


def test_openai_of_a_view_ends_with_the_label(storage: Storage, tmp_path: Path) -> None:
    commit(storage, *talk("c", 4), thumb("t", "c-m3", 1))
    export(storage, tmp_path / "out", "openai", VIEWS["bot"])
    ends = [(line["id"], line["messages"][-1]) for line in lines_of(tmp_path / "out")]
    assert ends == [
        ("c/1", {"role": "assistant", "content": "words 1"}),
        ("c/3", {"role": "assistant", "content": "words 3", "rating": 1}),
    ]


def test_trl_takes_what_a_reply_should_have_been_as_a_good_one(storage: Storage, tmp_path: Path) -> None:
    commit(storage, *talk("c"), replace(thumb("t", "c-m1", -1), correction="better words"))
    assert export(storage, tmp_path / "out", "trl").records == 2
    prompt = [{"role": "user", "content": "words 0"}]
    assert [
        (line["prompt"], line["completion"][0]["content"], line["label"])
        for line in lines_of(tmp_path / "out")
    ] == [
        (prompt, "words 1", False),
        (prompt, "better words", True),
    ]


def test_trl_holds_rated_replies_only(storage: Storage, tmp_path: Path) -> None:
    commit(storage, *talk("c", 4), thumb("t", "c-m3", -1), *talk("d"), thumb("u", "d-m1", 1))
    report = export(storage, tmp_path / "out", "trl")
    assert sorted(lines_of(tmp_path / "out"), key=lambda line: line["label"]) == [
        {
            "prompt": [
                {"role": "user", "content": "words 0"},
                {"role": "assistant", "content": "words 1"},
                {"role": "user", "content": "words 2"},
            ],
            "completion": [{"role": "assistant", "content": "words 3"}],
            "label": False,
        },
        {
            "prompt": [{"role": "user", "content": "words 0"}],
            "completion": [{"role": "assistant", "content": "words 1"}],
            "label": True,
        },
    ]
    assert report.records == 2 and report.left_out == {"no_thumb": 1}


def test_parquet_holds_the_events_that_stand(released: Storage, tmp_path: Path) -> None:
    score = Event("s", "annotation", 5, "c0", "p0", "bb3", "recorded:bb3", False, rating=4)
    commit(released, score)
    export(released, tmp_path / "out", "parquet")
    again = Storage(tmp_path / "again")
    for path in (tmp_path / "out").glob("*.parquet"):
        commit(again, *(Event.from_dict(row) for row in pq.read_table(path).to_pylist()))
    for name in VIEWS:
        assert view_rows(again, name) == view_rows(released, name)
    (row,) = [
        r
        for p in (tmp_path / "out").glob("*.parquet")
        for r in pq.read_table(p).to_pylist()
        if r["kind"] == "annotation"
    ]
    assert (row["conversation_id"], row["rating"]) == ("c0", 4)


def test_parquet_of_a_view_holds_its_examples(released: Storage, tmp_path: Path) -> None:
    export(released, tmp_path / "out", "parquet", VIEWS["human-crowd"], "valid")
    (path,) = (tmp_path / "out").glob("*.parquet")
    assert path.name == "valid.parquet"
    rows = sorted(pq.read_table(path).to_pylist(), key=lambda row: (row["conversation_id"], row["position"]))
    assert rows == [row for row in view_rows(released, "human-crowd") if row["split"] == "valid"] != []


@pytest.mark.parametrize("format", ["bb3", "openai", "trl", "parquet"])
def test_only_consented_words_leave_and_all_of_them_are_cleaned(
    storage: Storage, tmp_path: Path, format: str
) -> None:
    secret = "secret"
    details = json.dumps(
        {"memories": [secret], "safety": {"duo_safety": "__ok__"}, "nested": {"a": [secret]}}
    )
    agreed = [replace(event, text=f"{secret} words", details=details) for event in talk("yes", 4)]
    refused = [replace(event, text="forbidden", consent_basis="none") for event in talk("no", 2)]
    withdrawn = [replace(event, text="forbidden") for event in talk("gone", 2)]
    word = Event("w", "consent", 9, "gone", "ada", "served", "none", False)
    up = replace(thumb("t", "yes-m3", 1), comment=secret)
    commit(storage, *agreed, *refused, *withdrawn, up)
    commit(storage, word)

    def clean(text: str, person: str) -> str:
        assert person == "ada"
        return text.replace(secret, "someone")

    report = export(storage, tmp_path / "out", format, clean=clean)
    written = ""
    for path in (tmp_path / "out").iterdir():
        is_table = path.suffix == ".parquet"
        written += (
            json.dumps(pq.read_table(path).to_pylist()) if is_table else path.read_text(encoding="utf-8")
        )
    assert secret not in written and "forbidden" not in written and "someone words" in written
    assert report.left_out["no_consent"] == report.left_out["consent_withdrawn"] == 1
    assert report.conversations == 1 and report.cleaned == 13


def test_the_card_is_filled_from_the_data(released: Storage, tmp_path: Path) -> None:
    commit(released, said("x", 0, None, consent="none"))
    export(released, tmp_path / "out", "bb3")
    card = (tmp_path / "out" / "README.md").read_text()
    records = conversations(60)
    messages = [message for record in records for message in record["message_history"]]
    split = [record for record in records if record["chunk"] in (3, 4, 5)]
    human = sum(m["sender"] == "human" for record in split for m in record["message_history"])
    assert f"| valid | {len(split)} | {human} |" in card
    assert "| bb3 | recorded:bb3 | 60 |" in card and "7 people" in card
    assert f"| no_consent | 1 | {WHY['no_consent']} |" in card
    assert f"bb3:bot ({sum(m['sender'] == 'bot' for m in messages)})" in card
    assert '  - split: validation\n    path:\n    - "release_data_0[3-5].jsonl"\n' in card
    assert "To be filled in" in card and "**None.** The texts are as they were written." in card
    assert not any(message["text"] in card for message in messages if len(message["text"]) > 8)


def test_replies_that_a_client_only_claims_stay_out_of_whole_conversations(
    storage: Storage, tmp_path: Path
) -> None:
    commit(storage, *talk("ours"), said("c", 0), replace(said("c", 1), author_kind="unverified"))
    for format in ("bb3", "openai"):
        report = export(storage, tmp_path / format, format)
        assert report.records == 1 and report.left_out == {"unverified": 1}


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        ({"format": "opnai"}, "did you mean 'openai'"),
        ({"format": "bb3", "view": VIEWS["bot"]}, "leave --view out"),
        ({"format": "trl", "view": VIEWS["human"]}, "a view of the bot"),
    ],
)
def test_what_a_format_cannot_hold_is_said_before_anything_is_written(
    released: Storage, tmp_path: Path, about: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        export(released, tmp_path / "out", **about)
    assert list(tmp_path.glob("*out*")) == []


def test_a_place_that_is_taken_is_left_alone(released: Storage, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        export(released, tmp_path / "out", "bb3")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_nothing_to_export_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    commit(storage, said("no", 0, None, consent="none"))
    with pytest.raises(UserError, match="1 no_consent"):
        export(storage, tmp_path / "out", "openai")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_killed_export_leaves_nothing_half_and_the_next_one_cleans_up(
    released: Storage, tmp_path: Path
) -> None:
    """Killed for real, in the middle of the texts."""
    program = f"""
import sys, time
from bb3x_ray.data.export import export
from bb3x_ray.storage import Storage
count = 0
def clean(text, person):
    global count
    count += 1
    if count == 100:
        print("half", flush=True)
        time.sleep(600)
    return text
export(Storage({str(released.root)!r}), {str(tmp_path / "out")!r}, "bb3", clean=clean)
"""
    killed = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert killed.stdout is not None and killed.stdout.readline() == b"half\n"
    with pytest.raises(UserError, match="under way"):
        export(released, tmp_path / "out", "bb3")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    time.sleep(0)
    assert not (tmp_path / "out").exists()
    left = tmp_path / ".out.unfinished"
    (left / "stale.jsonl").write_text("stale")
    export(released, tmp_path / "out", "bb3")
    assert not left.exists() and not (tmp_path / "out" / "stale.jsonl").exists()
    assert len(lines_of(tmp_path / "out")) == 60
