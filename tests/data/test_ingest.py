"""Ingest as a whole: rejects, strict, crashes and hostile files; the same log whatever happens between."""

import gzip
import json
import random
from pathlib import Path

import pytest

from bb3x_ray.data import file_blocks, parse
from bb3x_ray.data import ingest as ingest_module
from bb3x_ray.data.committer import LogTable, commit_inbox
from bb3x_ray.data.ingest import Progress, ingest
from bb3x_ray.data.known_ids import KnownIds
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.data.table import head, open_table, scan
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage
from tests.data.make import talk as served
from tests.data.readers.release import bot, human, talk, write


def ids(storage: Storage) -> list[str]:
    """All event ids, in the order of the log."""
    table = open_table(storage)
    assert table is not None
    found = scan(storage, table, ["commit_seq", "event_id"], None).sort_by("commit_seq")
    assert found["commit_seq"].to_pylist() == list(range(1, head(storage) + 1))
    order: list[str] = found["event_id"].to_pylist()
    return order


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few lines and commits of a few blocks."""
    monkeypatch.setattr(parse, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(ingest_module, "_COMMIT_BYTES", 10_000)


def deployment(folder: Path, talks: int = 60) -> Path:
    for chunk in range(3):
        write(
            folder / f"chunk_{chunk}.jsonl",
            [talk(n) for n in range(chunk * talks // 3, (chunk + 1) * talks // 3)],
        )
    return folder


def test_small_blocks_and_commits_give_the_same_log(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = deployment(tmp_path / "data")
    seen: list[Progress] = []
    ingest(Storage(tmp_path / "a"), folder, "bb3", on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == sum(f.stat().st_size for f in folder.iterdir())
    table = open_table(Storage(tmp_path / "a"))
    assert table is not None and len(table.file_uris()) == table.version() > 2
    monkeypatch.undo()
    ingest(Storage(tmp_path / "b"), folder, "bb3")
    assert ids(Storage(tmp_path / "a")) == ids(Storage(tmp_path / "b"))


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("where", ["before the commit", "before the index"])
def test_killed_and_run_again_it_is_the_same_log(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, at: int, where: str
) -> None:
    folder, storage = deployment(tmp_path / "data"), Storage(tmp_path / "killed")
    ingest(Storage(tmp_path / "whole"), folder, "bb3")
    owner, name = (LogTable, "append_rows") if where == "before the commit" else (KnownIds, "add")
    real, calls = getattr(owner, name), 0

    def crash(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > at:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(KeyboardInterrupt):
            ingest(storage, folder, "bb3")
    before = head(storage)
    report = ingest(storage, folder, "bb3")
    assert report.duplicates == before and report.events_new + before == 180
    assert ids(storage) == ids(Storage(tmp_path / "whole"))
    assert not list(storage.path("rejects").glob(".*"))


def test_served_events_come_in_between(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, storage = deployment(tmp_path / "data"), Storage(tmp_path / "store")
    with SegmentWriter(storage.path("inbox"), "r", 60, 10_000_000) as writer:
        writer.append(served("c1"))

    def commit(at: Progress) -> None:
        if at.done > at.total / 2:
            commit_inbox(storage)

    ingest(storage, folder, "bb3", on_progress=commit)
    order = ids(storage)
    assert len(order) == 182 and 0 < order.index("c1-0") < 180
    assert ingest(storage, folder, "bb3").events_new == 0


def test_what_is_damaged_is_counted_and_kept(tmp_path: Path, small: None, storage: Storage) -> None:
    folder = deployment(tmp_path / "data")
    path = folder / "chunk_1.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[3] = lines[3][:40]
    lines[12] = b'{"message_history": "text {"}'
    lines[15] = b"\xff\xfetext {"
    path.write_bytes(b"\n".join(lines))
    report = ingest(storage, folder, "bb3")
    assert (report.conversations, report.left_out) == (57, 3)
    assert [line for line, _ in report.rejected] == [4, 13, 16]
    assert all(
        reason.startswith("chunk_1.jsonl: ") and "text {" not in reason for _, reason in report.rejected
    )
    (kept,) = storage.path("rejects").iterdir()
    raws = [json.loads(line)["raw"] for line in kept.read_text().splitlines()]
    assert [raw.encode("utf-8", "surrogateescape") for raw in raws] == [lines[3], lines[12], lines[15]]
    deployment(folder)
    assert ingest(storage, folder, "bb3").events_new == 9  # mended
    assert not list(storage.path("rejects").iterdir())


def test_strict_stops_at_the_first(tmp_path: Path, storage: Storage) -> None:
    path = write(tmp_path / "x.jsonl", [talk(0), talk(1, human(None)), talk(2)])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"x\.jsonl, line 2: message 0: text must be a string"):
        ingest(storage, path, "bb3", strict=True)
    assert head(storage) == 0 and len(list(storage.path("rejects").iterdir())) == 1
    assert ingest(storage, path, "bb3").events_new == 6


def test_hostile_lines_harm_nobody(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_blocks, "LINE_BYTES", 3_000_000)
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    documents = json.dumps(talk(1, bot("text {", search_knowledge=0))).replace(
        '": 0', '": ' + "[" * 900 + "]" * 900
    )
    hostile = [
        b"\x00" * 100,
        b"[" * 1_000_000,
        deep.encode(),
        documents.encode(),
        b'{"message_history": ' + b"9" * 5000 + b"}",
        b'{"message_history": [{"text": "\\ud800", "sender": "human"}]}',
        b'{"message_history": [{"text": "a\x00b", "sender": "human"}]}',
        b'{"message_history": [{"text": NaN, "sender": "human"}]}',
        b"x" * 20_000_000,
        b'"' * 1000,
        b"null",
        random.Random(0).randbytes(5000).replace(b"\n", b""),
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([*hostile, json.dumps(talk(7, human("nul \x00 is text"))).encode()]))
    report = ingest(storage, path, "bb3")
    assert [line for line, _ in report.rejected] == list(range(1, 13))
    assert (report.conversations, report.events_new) == (1, 1)
    assert not any("text {" in reason for _, reason in report.rejected)


def test_a_compressed_file_that_ends_too_early(tmp_path: Path, storage: Storage) -> None:
    path = tmp_path / "chunk_1.jsonl.gz"
    whole = "".join(
        json.dumps(talk(n, human(random.Random(n).randbytes(50).hex()))) + "\n" for n in range(500)
    )
    path.write_bytes(gzip.compress(whole.encode())[:-3000])
    report = ingest(storage, path, "bb3")
    assert report.events_new > 100
    assert any("ends too early" in reason for _, reason in report.rejected)


def test_a_wholly_bad_file_ends_in_a_sentence_and_keeps_its_rejects(tmp_path: Path, storage: Storage) -> None:
    path = write(tmp_path / "x.jsonl", [{"text {": 1}])
    with pytest.raises(UserError, match="line 1: not an object with the field 'message_history'"):
        ingest(storage, path, "bb3")
    assert len(list(storage.path("rejects").iterdir())) == 1 and head(storage) == 0
    with pytest.raises(UserError, match="the formats are bb3, chitchat"):
        ingest(storage, path, "trl")
