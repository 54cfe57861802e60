"""`bb3x log`: sentences for people, JSON for programs, exit code 1 where the log is damaged."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bb3x_ray import cli
from bb3x_ray.data.committer import commit_inbox
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.storage import Storage
from tests.data.make import talk

LOCAL = str(Path(__file__).parents[1] / "configs" / "local.yaml")
Log = Callable[..., tuple[int, str]]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], storage: Storage) -> Log:
    """arguments -> (exit code, what it printed), with one commit of four messages under the root."""
    with SegmentWriter(storage.path("inbox"), "r", 60, 1_000_000) as writer:
        writer.append(talk("c1", 4))
    commit_inbox(storage)

    def command(verb: str, *arguments: str) -> tuple[int, str]:
        root = f"storage.root={storage.root}"
        monkeypatch.setattr(sys, "argv", ["bb3x", "log", verb, "-c", LOCAL, *arguments, root])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), capsys.readouterr().out

    return command


def test_status_in_words_and_as_json(log: Log) -> None:
    code, said = log("status")
    assert code == 0 and "head      4" in said and "4 message" in said
    code, said = log("status", "--json")
    assert code == 0 and json.loads(said)["rows"] == {"message": 4}


def test_compact_says_what_it_did(log: Log, storage: Storage) -> None:
    with SegmentWriter(storage.path("inbox"), "r", 60, 1_000_000) as writer:
        writer.append(talk("c2"))
    commit_inbox(storage)
    code, said = log("compact")
    assert code == 0 and "2 files before, 1 now, 6 rows written again" in said
    assert json.loads(log("compact", "--json")[1])["rows"] == 0


def test_verify_ends_with_1_and_a_sentence_for_each_damage_and_restore_mends(
    log: Log, storage: Storage
) -> None:
    code, said = log("verify")
    assert code == 0 and said == "4 events in the table, 4 in the archive, 0 wait; 0 damages\n"
    for folder in ("interactions", "interactions_ids"):
        storage.path(folder).rename(storage.root.parent / folder)
    code, said = log("verify")
    assert code == 1
    assert "4 of its events are not in the table: `bb3x log restore` commits them." in said.splitlines()[0]
    assert len(json.loads(log("verify", "--json")[1])["damages"]) == 1
    assert log("restore") == (0, "4 events committed again, 0 were in the table\n")
    assert log("verify")[0] == 0
