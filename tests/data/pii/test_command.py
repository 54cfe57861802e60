"""`bb3x deidentify` as a person runs it."""

import re
import sys
from pathlib import Path

import pytest

from bb3x_ray import cli

FOLDER = Path(__file__).parent


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bb3x", "deidentify", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_lines_go_in_and_clean_lines_come_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "said.txt").write_text("I am 25\nmail ann@post.at\nagain ann@post.at or 201-557-7065\n")
    (tmp_path / "key").write_text("a key of enough bytes\n")
    arguments = (str(tmp_path / "said.txt"), "--key", str(tmp_path / "key"), "--person", "ada")
    assert run(monkeypatch, *arguments) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "I am 25"
    pseudonyms = set(re.findall(r"person-[a-z2-7]{10}@example\.org", said.out))
    assert len(pseudonyms) == 1 and "ann" not in said.out and "7065" not in said.out
    assert said.err == "replaced: 2 mail, 1 phone\n"
    run(monkeypatch, *arguments)
    assert capsys.readouterr().out == said.out  # the same key, the same pseudonyms


def test_a_short_key_and_a_file_without_labels_end_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "said.txt").write_text("my mail is ann@post.at\n")
    (tmp_path / "key").write_text("short")
    assert run(monkeypatch, str(tmp_path / "said.txt"), "--key", str(tmp_path / "key")) == 2
    assert run(monkeypatch, str(tmp_path / "said.txt"), "--report") == 2
    said = capsys.readouterr().err
    assert "at least 16" in said and "line 1" in said and "ann@" not in said


def test_the_report_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--report", str(FOLDER / "tuned.jsonl")) == 0
    said = capsys.readouterr().out
    assert re.search(r"mail +\d+ +\d+ +\d+ +\d+ +1\.000", said) and "texts" in said
