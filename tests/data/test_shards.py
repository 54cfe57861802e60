"""Whole conversations out of whatever files the log happens to have, each once, with what stands of them."""

import pickle
import random
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from bb3x_ray.data.shards import plan_shards, read_shard, shards
from bb3x_ray.data.table import TABLE, open_table
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import EVENT_SCHEMA, EVERYTHING, Event
from bb3x_ray.storage import Storage
from tests.data.make import commit, said, talk, thumb

COLUMNS = ["conversation_id", "position", "message_id", "text", "commit_seq"]
ALL = ("message", "feedback", "annotation", "consent")


def rows_of(storage: Storage, kinds: Sequence[str] = ALL, **about: object) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for table in shards(storage, COLUMNS, kinds=kinds, **about):  # type: ignore[arg-type]
        rows += table.to_pylist()
    return rows


def texts_of(rows: list[dict[str, object]]) -> dict[object, list[object]]:
    found: dict[object, list[object]] = {}
    for row in rows:
        found.setdefault(row["conversation_id"], []).append(row["text"])
    return found


def ratings(rows: list[dict[str, object]]) -> dict[object, list[int]]:
    """message_id -> its standing ratings; messages of which nobody ever said anything are left out."""
    return {
        row["message_id"]: [one["rating"] for one in row["feedback"]]  # type: ignore[attr-defined]
        for row in rows
        if row["feedback"] is not None
    }


def test_an_empty_log_has_no_shards(storage: Storage) -> None:
    assert plan_shards(storage, COLUMNS) == [] and rows_of(storage) == []


def test_conversations_come_whole_and_in_order_from_one_file(storage: Storage) -> None:
    commit(storage, said("b", 1, "b1"), *talk("a", 3), said("b", 0, "b0"))
    rows = rows_of(storage)
    assert texts_of(rows) == {"b": ["b0", "b1"], "a": ["words 0", "words 1", "words 2"]}
    assert [row["conversation_id"] for row in rows] == ["b", "b", "a", "a", "a"]
    assert list(rows[0]) == [*COLUMNS, "feedback", "annotation", "annotations", "consent"]


def test_a_conversation_that_crosses_files_is_gathered_once(storage: Storage) -> None:
    commit(storage, said("c", 0, "c0"), *talk("alone"))
    commit(storage, said("c", 1, "c1"), *talk("other"))
    commit(storage, said("c", 2, "c2"))
    for rows_a_shard in (1, 3, 1000):
        plan = plan_shards(storage, COLUMNS, shard_rows=rows_a_shard)
        tables = [read_shard(pickle.loads(pickle.dumps(shard))) for shard in plan]
        rows = pa.concat_tables(tables).to_pylist()
        assert texts_of(rows) == {
            "alone": ["words 0", "words 1"],
            "other": ["words 0", "words 1"],
            "c": ["c0", "c1", "c2"],
        }
        assert len(rows) == 7
    assert len(plan) == 1, "neighbouring small files are one shard"


def test_the_latest_of_two_at_one_position_stands_whichever_file_holds_it(storage: Storage) -> None:
    commit(storage, said("c", 0, "q"), said("c", 1, "first", event_id="1"))
    commit(storage, said("c", 1, "second", event_id="2"))
    assert texts_of(rows_of(storage)) == {"c": ["q", "second"]}


@pytest.mark.parametrize("rows_a_shard", [1, 100])
def test_late_feedback_joins_and_only_the_latest_of_a_person_stands(
    storage: Storage, rows_a_shard: int
) -> None:
    commit(storage, thumb("early", "c-m1", -1, at=1))  # before its message
    commit(storage, *talk("c", 6), thumb("same file", "c-m3", 1))
    commit(storage, thumb("late", "c-m1", 1, at=9), thumb("other", "c-m1", -1, at=2, person="bob"))
    commit(storage, thumb("back", "c-m3", None, at=3), thumb("odd", "c-m5", 1, conversation="not this one"))
    commit(storage, thumb("of nothing", "unknown", 1))
    plan = plan_shards(storage, COLUMNS, kinds=ALL, shard_rows=rows_a_shard)
    rows = [row for shard in plan for row in read_shard(shard).to_pylist()]
    assert ratings(rows) == {"c-m1": [1, -1], "c-m3": [], "c-m5": [1]}
    (about,) = [row["feedback"] for row in rows if row["message_id"] == "c-m5"]
    words = {"comment": "", "correction": ""}
    assert about == [{"event_id": "odd", "person": "ada", "rating": 1, "reasons": [], **words}]


def test_annotations_and_consents_of_a_conversation_stand_in_each_of_its_rows(storage: Storage) -> None:
    score = Event("s1", "annotation", 5, "c", "ada", "served", "store", False, rating=2)
    commit(storage, *talk("c"), score, *talk("d"))
    gone = Event("no", "consent", 9, "d", "ada", "served", "none", False)
    commit(storage, replace(score, event_id="s2", at=6, rating=4), replace(score, event_id="s0", at=1), gone)
    rows = rows_of(storage)
    assert [(r["conversation_id"], r["annotation"], r["consent"]) for r in rows] == [
        ("c", 4, None),
        ("c", 4, None),
        ("d", None, "none"),
        ("d", None, "none"),
    ]


def test_what_is_said_of_everything_reaches_all_files(storage: Storage) -> None:
    """A withdrawal comes in a file of its own, long after the talk that it is about."""
    commit(storage, *talk("c"))
    commit(storage, *talk("d"), *talk("of bob", person="bob"))
    commit(storage, Event("no", "consent", 9, EVERYTHING, "ada", "served", "none", False))
    commit(storage, *talk("e"))
    for rows_a_shard in (1, 5, 1000):
        plan = plan_shards(storage, COLUMNS, kinds=ALL, shard_rows=rows_a_shard)
        rows = [row for shard in plan for row in read_shard(shard).to_pylist()]
        withdrawn = {row["conversation_id"] for row in rows if row["consent"] == "none"}
        assert withdrawn == {"c", "d", "e"} and len(rows) == 8


def test_a_plan_of_a_range_leaves_out_what_nobody_touched(storage: Storage) -> None:
    commit(storage, *talk("c"))
    second = commit(storage, *talk("d"), said("e", 0))
    upto = commit(storage, said("e", 1), thumb("t", "c-m1", 1, conversation="c"))

    def planned(also: tuple[str, ...] = ()) -> set[str]:
        plan = plan_shards(storage, COLUMNS, upto, ALL, shard_rows=1, after_seq=second, also=also)
        return {row["conversation_id"] for shard in plan for row in read_shard(shard).to_pylist()}

    assert planned() == {"e"}
    assert planned(("c",)) == {"c", "e"}
    with pytest.raises(ValueError, match="upto_seq"):
        plan_shards(storage, COLUMNS, after_seq=second)


def test_nothing_beyond_upto_seq_is_looked_at(storage: Storage) -> None:
    first = commit(storage, *talk("c"), *talk("d"))
    before = rows_of(storage)
    version = DeltaTable(str(storage.path(TABLE))).version()
    commit(storage, said("c", 2, "more"), thumb("t", "c-m1", 1), *talk("e"))
    assert rows_of(storage, upto_seq=first) == before
    assert rows_of(storage, upto_seq=first - 1) == before[:-1]
    assert rows_of(storage, table_version=version) == before
    assert len(rows_of(storage)) == 7


def test_files_from_before_a_column_read_as_null(storage: Storage) -> None:
    commit(storage, *talk("old"))
    table = open_table(storage)
    assert table is not None
    (path,) = storage.path(TABLE).glob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["chunk", "details"]), path)
    commit(storage, *[replace(event, chunk=4, details="{}") for event in talk("new")])
    rows = [
        row for table in shards(storage, ["conversation_id", "chunk", "details"]) for row in table.to_pylist()
    ]
    assert {(r["conversation_id"], r["chunk"], r["details"]) for r in rows} == {
        ("old", None, None),
        ("new", 4, "{}"),
    }


def test_whatever_the_files_the_shards_hold_what_the_log_holds(storage: Storage) -> None:
    """Conversations cut into random commits, small row groups, rewritten by Delta's own compaction."""
    dice = random.Random(7)
    events = [event for c in range(40) for event in talk(f"c{c}", dice.randrange(1, 9))]
    events += [
        thumb(f"t{n}", f"c{dice.randrange(40)}-m{dice.randrange(9)}", dice.choice([1, -1, None]), at=n)
        for n in range(60)
    ]
    dice.shuffle(events)
    said_in = {e.message_id: e for e in events if e.kind == "message"}
    expected: dict[str, list[str | None]] = {}
    for e in sorted(said_in.values(), key=lambda e: (e.conversation_id, e.position)):
        expected.setdefault(e.conversation_id, []).append(e.text)
    standing = {
        e.message_id: e.rating
        for e in sorted((e for e in events if e.kind == "feedback"), key=lambda e: e.at)
        if e.message_id in said_in
    }
    while events:
        size = dice.randrange(1, 40)
        commit(storage, *events[:size])
        events = events[size:]
    for compacted in (False, True):
        if compacted:
            DeltaTable(str(storage.path(TABLE))).optimize.compact()
        for rows_a_shard in (1, 50, 10_000):
            plan = plan_shards(storage, COLUMNS, kinds=("message", "feedback"), shard_rows=rows_a_shard)
            rows = [row for shard in plan for row in read_shard(shard).to_pylist()]
            assert texts_of(rows) == expected
            given = {message: rating for message, rating in standing.items() if rating is not None}
            assert {m: r[0] for m, r in ratings(rows).items() if r} == given


def test_a_long_file_is_a_stream_of_bounded_tables(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bb3x_ray.data.shard.BATCH_ROWS", 10)
    commit(storage, *(event for c in range(30) for event in talk(f"c{c}", 4)))
    tables = list(shards(storage, COLUMNS))
    assert sum(map(len, tables)) == 120 and max(map(len, tables)) <= 13
    seen = [one for table in tables for one in table["conversation_id"].unique().to_pylist()]
    assert len(seen) == len(set(seen)) == 30


def test_unknown_columns_and_kinds_are_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        plan_shards(storage, ["nonsense"])
    with pytest.raises(ValueError, match="erasure"):
        plan_shards(storage, COLUMNS, kinds=("message", "erasure"))


def test_rows_that_delta_wrote_itself_are_read_too(storage: Storage) -> None:
    """A table whose files hold other string types than ours."""
    commit(storage, *talk("c"))
    schema = pa.schema(
        [(f.name, pa.large_string() if f.type == pa.string() else f.type) for f in EVENT_SCHEMA]
    )
    rows = [{**event.to_dict(), "commit_seq": 9} for event in talk("d")]
    write_deltalake(str(storage.path(TABLE)), pa.Table.from_pylist(rows, schema=schema), mode="append")
    assert set(texts_of(rows_of(storage))) == {"c", "d"}


def test_a_damaged_file_is_told_by_name(storage: Storage) -> None:
    commit(storage, *talk("c"))
    commit(storage, *talk("d"))
    path = sorted(storage.path(TABLE).glob("*.parquet"))[0]
    whole = path.read_bytes()
    for damage in (lambda: path.write_bytes(whole[: len(whole) // 2]), path.unlink):
        damage()
        with pytest.raises(UserError, match=rf"{path.name} is missing or damaged.*bb3x log verify"):
            rows_of(storage)
    path.write_bytes(whole)
    assert len(rows_of(storage)) == 4
    storage.path(TABLE, "_delta_log", f"{0:020d}.json").unlink()
    with pytest.raises(UserError, match="interactions is missing or damaged"):
        rows_of(storage)
