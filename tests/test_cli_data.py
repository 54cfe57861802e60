"""show, export and analyze as they are typed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bb3x_ray import cli
from bb3x_ray.data.tombstones import Request, ask_for_erasure
from bb3x_ray.rounds.ledger import only_run
from bb3x_ray.storage import Storage
from tests.data.make import commit, said, talk, thumb
from tests.data.release import conversations, events_of

CONFIG = str(Path(__file__).parents[1] / "configs" / "recorded.yaml")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bb3x(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], storage: Storage) -> Command:
    """arguments -> (exit code, stdout, stderr), on the log of `storage`."""
    storage.root.mkdir(parents=True, exist_ok=True)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bb3x", *arguments, "-c", CONFIG, f"storage.root={storage.root}"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return command


def test_show_prints_examples_for_people_and_for_programs(bb3x: Command, storage: Storage) -> None:
    commit(storage, *(event for record in conversations(60) for event in events_of(record)))
    code, out, _ = bb3x("show", "bot", "--split", "valid", "-n", "3")
    assert code == 0 and out.count("label, bot:") == 3 and out.count(" · valid · ") == 3
    code, out, _ = bb3x("show", "human-standard", "-n", "2", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["author_kind"], row["adversarial_human"]) for row in rows] == [("person", False)] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "bots"), "did you mean 'bot'"),
        (("show", "bot", "--split", "validation"), "did you mean 'valid'"),
        (("export", "OUT", "--format", "open-ai"), "did you mean 'openai'"),
        (("export", "OUT", "--format", "trl"), "nothing to export"),
        (("analyze",), "is empty"),
    ],
)
def test_mistakes_end_in_one_sentence(
    bb3x: Command, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = bb3x(*(str(tmp_path / "out") if one == "OUT" else one for one in arguments))
    assert code == 2 and words in err and "Traceback" not in err
    assert err.startswith("bb3x: ") and err.endswith(".\n") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("show", "bot"), ("analyze",), ("log", "status"), ("log", "verify")])
def test_where_there_is_no_store_none_is_made(
    bb3x: Command, storage: Storage, arguments: tuple[str, ...]
) -> None:
    storage.root.rmdir()
    code, _, err = bb3x(*arguments)
    assert code == 2 and err.startswith("bb3x: there is no store at") and not storage.root.exists()


def test_nothing_leaves_while_somebody_waits_to_be_erased(
    bb3x: Command, storage: Storage, tmp_path: Path
) -> None:
    commit(storage, *(event for record in conversations(3) for event in events_of(record)))
    with only_run(storage):
        ask_for_erasure(storage, Request("somebody"))
        for arguments in (
            ("show", "bot"),
            ("analyze",),
            ("export", str(tmp_path / "out"), "--format", "bb3"),
        ):
            code, out, err = bb3x(*arguments)
            assert code == 2 and "1 asked to be erased" in err and out == ""
        code, _, err = bb3x("log", "status")
        assert code == 0 and "1 asked to be erased" in err
    assert bb3x("show", "bot")[0] == 0


def test_an_empty_view_says_so(bb3x: Command) -> None:
    assert bb3x("show", "bot") == (0, "", "no examples in bot.\n")


def test_export_says_what_it_wrote_and_what_not(bb3x: Command, storage: Storage, tmp_path: Path) -> None:
    commit(storage, *talk("c", 4), thumb("t", "c-m1", 1))
    code, out, err = bb3x("export", str(tmp_path / "out"), "--format", "trl", "--view", "bot")
    assert code == 0 and out == (
        f"1 records of 1 conversations in {tmp_path / 'out'}, 0 texts de-identified\n"
    )
    assert err == "left out: 1 no_thumb\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "train.jsonl"]


def test_analyze_prints_and_draws(bb3x: Command, storage: Storage, tmp_path: Path) -> None:
    commit(storage, *talk("c", 4), thumb("t", "c-m1", 1))
    code, out, _ = bb3x("analyze", "--out", str(tmp_path / "out"))
    assert code == 0 and "conversations" in out and (tmp_path / "out" / "index.html").is_file()
    code, out, _ = bb3x("analyze", "--json")
    assert json.loads(out)["thumbs"]["up"] == 1


def test_an_export_leaves_out_what_reaches_a_person(bb3x: Command, storage: Storage, tmp_path: Path) -> None:
    commit(storage, said("c", 0, "write to ada@lovelace.example"), said("c", 1, "I will, at 5"))
    code, out, _ = bb3x("export", str(tmp_path / "out"), "--format", "openai")
    assert code == 0 and out.endswith("1 texts de-identified\n")
    written = (tmp_path / "out" / "train.jsonl").read_text()
    assert "lovelace" not in written and "I will, at 5" in written
    bb3x("export", str(tmp_path / "raw"), "--format", "openai", "log.deidentify=none")
    assert "lovelace" in (tmp_path / "raw" / "train.jsonl").read_text()
