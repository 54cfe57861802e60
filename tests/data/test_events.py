"""Every kind of event goes through segments into the table; late and early feedback; older tables."""

from dataclasses import replace

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from bb3x_ray.data.committer import commit_inbox
from bb3x_ray.data.event_rows import check_event
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.data.table import APP_ID, data_files, head, open_table, scan
from bb3x_ray.data.verify import verify
from bb3x_ray.schemas.event import EVENT_SCHEMA, Event, EventKind
from bb3x_ray.storage import Storage
from tests.data.make import read_conversations, said, talk, thumb


def commit(storage: Storage, *events: Event) -> int:
    with SegmentWriter(storage.path("inbox"), "r", 60, 10_000_000) as writer:
        writer.append(list(events))
    assert commit_inbox(storage).rejected == 0
    return head(storage)


def rows(storage: Storage) -> list[dict[str, object]]:
    table = open_table(storage)
    assert table is not None
    found: list[dict[str, object]] = (
        scan(storage, table, EVENT_SCHEMA.names, None).sort_by("commit_seq").to_pylist()
    )
    return found


def about(kind: EventKind, event_id: str, **more: object) -> Event:
    """A consent or an erasure of ada: no message, no text, no rating."""
    return replace(
        thumb(event_id, "", None), **{"kind": kind, "message_id": "", "conversation_id": "", **more}
    )


def test_every_kind_of_event_becomes_a_row(storage: Storage) -> None:
    chunked = replace(said("c", 0), chunk=7, details='{"is_liked": true}')
    annotation = about("annotation", "a", conversation_id="c", rating=4)
    consent = about("consent", "given", consent_basis="store")
    withdrawn = about("consent", "withdrawn", conversation_id="c", consent_basis="none")
    events = [chunked, thumb("t", "c-m1", 1), annotation, consent, withdrawn, about("erasure", "gone")]
    commit(storage, *events)
    found = rows(storage)
    assert [row["kind"] for row in found] == [event.kind for event in events]
    assert (found[0]["chunk"], found[0]["details"]) == (7, '{"is_liked": true}')
    assert [row["consent_basis"] for row in found[3:5]] == ["store", "none"]
    assert found[5]["person"] == "ada" and found[5]["text"] is None


@pytest.mark.parametrize("kind", ["consent", "erasure"])
def test_consent_and_erasure_need_their_person(kind: EventKind) -> None:
    check_event(about(kind, "x"))
    with pytest.raises(ValueError, match="need their person"):
        check_event(about(kind, "x", person=""))


def test_an_unknown_kind_and_a_wrong_rating_are_no_events() -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        check_event(replace(thumb("t", "m", 1), kind="applause"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1, -1 or null"):
        check_event(thumb("t", "m", 2))
    with pytest.raises(ValueError, match="needs the message_id"):
        check_event(thumb("t", "", 1))


def test_feedback_waits_for_its_turn_over_commits(storage: Storage) -> None:
    first = commit(storage, thumb("early", "c-m1", -1, at=5))
    assert read_conversations(storage, 0, first) == []
    second = commit(storage, *talk("c", at=1))
    (conversation,) = read_conversations(storage, first, second)
    assert [(f.event_id, f.rating) for f in conversation.feedback] == [("early", -1)]


def test_feedback_is_revised_and_revoked_over_commits_whatever_order_it_comes_in(storage: Storage) -> None:
    standing = []
    commit(storage, *talk("c", 4, at=1))
    for event in (
        thumb("given", "c-m1", -1, at=10),
        thumb("revised", "c-m1", 1, at=30),
        thumb("late, but pressed before", "c-m1", -1, at=20),
        thumb("revoked", "c-m1", None, at=40),
        thumb("given again", "c-m1", -1, at=50),
        thumb("of another turn", "c-m3", 1, at=60),
    ):
        upto = commit(storage, event)
        (conversation,) = read_conversations(storage, 0, upto)
        standing.append({f.message_id: f.rating for f in conversation.feedback})
    assert standing == [{"c-m1": -1}, {"c-m1": 1}, {"c-m1": 1}, {}, {"c-m1": -1}, {"c-m1": -1, "c-m3": 1}]


def test_a_table_of_an_older_schema_takes_new_rows_and_its_old_ones_are_not_rewritten(
    storage: Storage,
) -> None:
    newer = ("chunk", "details", "correction", "weight")
    older = pa.schema([field for field in EVENT_SCHEMA if field.name not in newer])
    old_rows = [{**event.to_dict(), "commit_seq": n} for n, event in enumerate(talk("old", 3), start=1)]
    path = storage.path("interactions")
    path.mkdir(parents=True)
    table = DeltaTable.create(str(path), older)
    write_deltalake(
        table,
        pa.Table.from_pylist(old_rows, schema=older),
        mode="append",
        commit_properties=CommitProperties(app_transactions=[Transaction(APP_ID, 3)]),
    )
    (old_file,) = path.glob("*.parquet")
    before = old_file.read_bytes(), old_file.stat().st_mtime_ns

    commit(storage, replace(said("new", 0), chunk=7, details="{}"), *talk("old", 2))

    found = rows(storage)
    assert [(row["event_id"], row["chunk"], row["details"]) for row in found] == [
        ("old-0", None, None),
        ("old-1", None, None),
        ("old-2", None, None),
        ("new-0", 7, "{}"),
    ]
    assert (old_file.read_bytes(), old_file.stat().st_mtime_ns) == before
    now = open_table(storage)
    assert now is not None
    assert old_file.name in [file.path for file in data_files(now)]
    assert now.schema().to_arrow().names == EVENT_SCHEMA.names
    assert verify(storage).damages == []
    (conversation, _) = read_conversations(storage, 0, head(storage))
    assert conversation.conversation_id == "old"
