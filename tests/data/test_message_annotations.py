"""Annotations of messages, corrections, answers to "what went wrong?": from the log to conversations."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bb3x_ray.data import slices
from bb3x_ray.data.deidentify import Deidentifier
from bb3x_ray.data.event_rows import check_event
from bb3x_ray.data.export import export
from bb3x_ray.data.ingest import ingest
from bb3x_ray.data.late_words import annotations_upto, feedback_upto
from bb3x_ray.data.readers.bb3 import labels_of
from bb3x_ray.data.slices import conversations_of
from bb3x_ray.reward.signals import after_text
from bb3x_ray.schemas.conversation import Annotation, Conversation
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage
from tests.data.make import commit, labelled, load, read_conversations, said, talk, thumb, to_table
from tests.data.readers.release import bot, human, write
from tests.data.readers.release import talk as release

NAME = "rounds/0001/collect"


def labels(conversation: Conversation) -> list[tuple[str, str, str]]:
    return [(a.message_id, a.rater, a.label) for a in conversation.annotations]


def test_the_latest_of_each_rater_stands_and_ratings_of_conversations_are_another_thing(
    storage: Storage,
) -> None:
    score = Event("score", "annotation", 9, "c", "ada", "served", "store", False, rating=4)
    commit(storage, *talk("c", 4), labelled("a1", "c-m1", "good", at=1), score)
    commit(
        storage,
        labelled("a2", "c-m1", "ignoring", at=5),
        labelled("a3", "c-m1", "good", "rater-2", at=2),
        labelled("a4", "c-m3", "other", at=2, conversation="not this one"),
        labelled("a5", "unknown", "other"),
    )
    upto = commit(storage, *talk("d"), replace(score, event_id="score 2", conversation_id="d", rating=2))
    slices.pin(storage, NAME, 0, upto)
    first, second = load(storage, NAME)
    assert labels(first) == [
        ("c-m1", "rater-1", "ignoring"),
        ("c-m1", "rater-2", "good"),
        ("c-m3", "rater-1", "other"),
    ]
    assert second.annotations == ()
    rated = slices.open_slice(storage, NAME).annotated()
    assert [(c.conversation_id, rating) for c, rating in rated] == [("c", 4), ("d", 2)]


def test_what_came_after_the_slice_counts_where_it_is_asked_for(storage: Storage) -> None:
    first = commit(storage, *talk("c"), *talk("d"), labelled("a1", "c-m1", "good"))
    slices.pin(storage, NAME, 0, first)
    upto = commit(storage, labelled("a2", "c-m1", "other", at=3), labelled("a3", "d-m1", "good"))
    pinned = slices.open_slice(storage, NAME)
    now = pinned.rated(feedback_upto(storage, upto), annotations_upto(storage, upto))
    assert [labels(c)[0][2] for c in now] == ["other", "good"]
    before = pinned.rated({}, annotations_upto(storage, first))
    assert [labels(c) for c in before] == [[("c-m1", "rater-1", "good")]]
    commit(storage, thumb("t", "c-m1", 1))
    (as_pinned,) = pinned.rated(feedback_upto(storage, upto + 1))
    assert labels(as_pinned) == [("c-m1", "rater-1", "good")] and as_pinned.feedback[0].rating == 1


@pytest.mark.parametrize(
    "bad", [{"reasons": ()}, {"reasons": ("bad",)}, {"author_name": None}, {"weight": 0}]
)
def test_an_annotation_of_a_message_needs_a_label_of_the_rubric_and_its_rater(bad: dict[str, object]) -> None:
    event = labelled("a", "c-m1", "good")
    check_event(event)
    with pytest.raises(ValueError, match=r"annotation|weight"):
        check_event(replace(event, **bad))
    with pytest.raises(ValueError, match="label must be one of good"):
        Annotation("c-m1", "rater-1", "bad", "a")


def test_corrections_are_cleaned_and_pinned(storage: Storage) -> None:
    words = {"comment": "mail bob@lovelace.example", "correction": "Write to eve@lovelace.example, please."}
    upto = commit(storage, *talk("c"), replace(thumb("t", "c-m1", -1), **words))
    slices.pin(storage, NAME, 0, upto, clean=Deidentifier(b"a key of this test, 32 bytes long"))
    ((feedback),) = load(storage, NAME)[0].feedback
    assert feedback.correction.startswith("Write to ") and feedback.correction.endswith(", please.")
    assert "lovelace" not in feedback.correction + feedback.comment
    ((late),) = feedback_upto(storage, upto)["c-m1"]
    assert late.correction == words["correction"]


def test_a_slice_of_before_there_were_such_columns_reads_as_empty(storage: Storage, tmp_path: Path) -> None:
    upto = commit(storage, *talk("c"), thumb("t", "c-m1", 1), labelled("a", "c-m1", "good"))
    (now,) = read_conversations(storage, 0, upto)
    table = to_table([now])
    for column, gone in (("messages", "is_feedback"), ("feedback", "correction")):
        rows = [
            [{k: v for k, v in one.items() if k != gone} for one in row] for row in table[column].to_pylist()
        ]
        old = [field for field in table.schema.field(column).type.value_type if field.name != gone]
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array(rows, pa.list_(pa.struct(old))))
    path = tmp_path / "old.parquet"
    pq.write_table(table.drop_columns(["annotations"]), path)
    old_slice = slices.Slice(path)
    assert list(old_slice.conversations()) == [replace(now, annotations=())]
    assert list(old_slice.rated({}, annotations_upto(storage, upto))) == [replace(now, feedback=())]
    assert list(conversations_of(to_table([now]))) == [now]


def test_a_parquet_export_brings_labels_and_corrections_back(storage: Storage, tmp_path: Path) -> None:
    upto = commit(
        storage,
        *talk("c", 4),
        replace(thumb("t", "c-m1", -1), correction="= better"),
        labelled("a1", "c-m1", "ignoring"),
        replace(labelled("a2", "c-m3", "good"), weight=2.5),
    )
    export(storage, tmp_path / "out", "parquet")
    again = Storage(tmp_path / "again")
    report = ingest(again, tmp_path / "out", "parquet")
    assert report.rejected == [] and report.events_new == 7
    (before,) = read_conversations(storage, 0, upto)
    assert read_conversations(again, 0, 7) == [before]
    assert [a.weight for a in before.annotations] == [1.0, 2.5]


def test_a_bad_label_in_a_parquet_file_is_left_out(storage: Storage, tmp_path: Path) -> None:
    events = [*talk("c"), replace(labelled("a", "c-m1", "good"), reasons=("great",))]
    pq.write_table(pa.Table.from_pylist([e.to_dict() for e in events]), tmp_path / "x.parquet")
    report = ingest(storage, tmp_path / "x.parquet", "parquet")
    assert report.events_new == 2 and "must be one of good" in report.rejected[0][1]


def test_of_the_release_workers_become_annotations_and_answers_comments(
    storage: Storage, tmp_path: Path
) -> None:
    history = release(
        1,
        human("hello", mturk={"good": 1}),
        bot("what?", is_disliked=True, dislike_type="other", mturk={"Nonsensical": 2, "good": 1}),
        bot("what did I do wrong?"),
        human("you were cold", is_dislike_feedback=True),
        human("and curt", is_dislike_feedback=True),
        human("so how are you?"),
        bot("well", is_liked=True),
        human("nothing, it was fine", is_dislike_feedback=True),
    )
    ingest(storage, write(tmp_path / "chunk_17.jsonl", [history]), "bb3")
    (talked,) = read_conversations(storage, 0, 100)
    ids = [message.message_id for message in talked.messages]
    assert [message.is_feedback for message in talked.messages] == [False] * 3 + [
        True,
        True,
        False,
        False,
        True,
    ]
    down, up = talked.feedback
    assert (down.message_id, down.comment, up.comment) == (
        ids[1],
        "you were cold\nand curt\nnothing, it was fine",
        "",
    )
    crowd = [(ids.index(message), label) for message, _, label in labels(talked)]
    assert crowd == [(0, "good"), (1, "nonsensical"), (1, "nonsensical"), (1, "good")]
    assert len({(a.message_id, a.rater) for a in talked.annotations}) == 4
    assert after_text(talked, 2) == "so how are you?", "answers to what went wrong are no hindsight"
    assert after_text(talked, 6) == ""


@pytest.mark.parametrize(
    "mturk, expected",
    [
        ({"good": 2, "off-topic": 1, "other": 0}, ["good", "good", "off_topic"]),
        ({"ignoring me": 1.0}, ["ignoring"]),
        ({"good": 0.67, "repeating": 0.33}, ["good", "good", "repeating"]),
        ({"good": 0.5, "rude": 0.5}, ["good", "inappropriate"]),
        ({"good": 3000}, ["good"]),
        ({"good": True, "x": "y", "z": float("nan")}, []),
        ({"something": 1}, ["other"]),
        (None, []),
        ([], []),
    ],
)
def test_numbers_of_workers(mturk: object, expected: list[str]) -> None:
    assert labels_of(mturk) == expected


def test_consent_holds_for_what_was_annotated(storage: Storage) -> None:
    upto = commit(storage, *talk("c"), said("no", 0, None, consent="none"), labelled("a", "no-m0", "good"))
    assert [c.conversation_id for c in read_conversations(storage, 0, upto)] == ["c"]
