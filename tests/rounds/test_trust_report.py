"""A round's stored result tells why people are distrusted, and quotes nobody who was not asked for."""

import json
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from bb3x_ray import cli
from bb3x_ray.config import TrustConfig
from bb3x_ray.data import slices
from bb3x_ray.reward.signals import Signal, signals_of
from bb3x_ray.reward.trust import estimate_trust
from bb3x_ray.reward.trust.report import load_history, load_report, save_trust
from bb3x_ray.rounds.trust_report import find_report, report_as_json, show_report
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage
from tests.data.make import to_table
from tests.reward.make import conversation, crowd
from tests.reward.test_trust import knowing

LOCAL = str(Path(__file__).parents[2] / "configs" / "local.yaml")


def as_talk(signal: Signal, number: int) -> Conversation:
    thumb = {1: 1 if signal.label else -1}
    return conversation(f"c{number:03d}", signal.person, signal.context, signal.reply, thumbs=thumb)


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    """One round in which people talked and trust was estimated."""
    storage = Storage(tmp_path / "store")
    talks = [as_talk(s, i) for i, s in enumerate(crowd(10, 2, thumbs=8, seed=4, noise=0.1))]
    signals = signals_of(talks)
    trust = estimate_trust(signals, knowing, TrustConfig())
    with storage.publish("rounds/0001/collect") as folder:
        slices.write(folder / "conversations.parquet", [to_table(talks)])
    with storage.publish("rounds/0001/score") as folder:
        save_trust(folder, trust, signals)
    return storage


def said(store: Storage, terminal: bool = False, **asked: bool) -> str:
    out = StringIO()
    show_report(find_report(store), Console(file=out, force_terminal=terminal, width=200), **asked)
    return out.getvalue()


def test_the_table_names_who_is_distrusted_and_why_without_a_word_of_theirs(store: Storage) -> None:
    words = said(store, with_thumbs=True)
    assert "Round 1: 12 people, 2 distrusted, 0 groups." in words
    assert "flipper-10" in words and "flipper-11" in words and "helper-" not in words
    assert "thumbs against the models, by 0.9" in words and "likely right about" in words
    assert "c080-1" in words and "off by 0.90" in words
    assert "I like" not in words and "What about it" not in words and "anywhere" not in words


def test_words_are_for_a_terminal_only(store: Storage) -> None:
    assert "the bot: I like my" in said(store, terminal=True, show_text=True)
    with pytest.raises(UserError, match="--show-text is for a terminal"):
        said(store, show_text=True)


def test_one_person_or_everybody_can_be_asked_for(store: Storage) -> None:
    assert [p.person for p in find_report(store, person="helper-3").shown] == ["helper-3"]
    assert len(find_report(store, everybody=True).shown) == 12
    with pytest.raises(UserError, match="knows nobody called ada"):
        find_report(store, person="ada")
    with pytest.raises(UserError, match="round 2 does not have a score step"):
        find_report(store, number=2)


def test_json_holds_every_thumb_and_no_text(store: Storage) -> None:
    text = json.dumps(report_as_json(find_report(store)))
    row = json.loads(text)
    assert row["distrusted"] == 2 and len(row["shown"][0]["judged"]) == 8
    assert {"message_id", "thumb", "models", "off"} == set(row["shown"][0]["judged"][0])
    assert "I like" not in text


def test_what_is_stored_holds_no_text_and_is_the_next_rounds_start(store: Storage) -> None:
    folder = store.path("rounds/0001/score")
    stored = " ".join(str(pq.read_table(path).to_pydict()) for path in folder.glob("*.parquet"))
    assert "helper-3" in stored and "I like" not in stored and "What about" not in stored
    history = load_history(folder)
    assert len(history.people) == 12 and history.counts.sum() == 96
    assert load_report(folder)[0].distrusted


def test_who_always_presses_one_thumb_and_who_is_in_a_group_is_told_so(tmp_path: Path) -> None:
    people = crowd(30, 0, thumbs=8, seed=4)
    lines = crowd(1, 0, 8, seed=77, noise=0.0)
    farm = [
        Signal("c", f"f{i}-{j}", f"farm-{i}", f"tell me about the {j}", line.reply, 0)
        for i in range(4)
        for j, line in enumerate(lines)
    ]
    trust = estimate_trust([*people, *farm], knowing, TrustConfig())
    save_trust(tmp_path, trust, [*people, *farm])
    report = {p.person: p for p in load_report(tmp_path)}["farm-2"]
    assert report.distrusted and report.group == 1
    assert report.why.startswith(
        "does the same as the others of group 1, who count as one; pressed down all 8"
    )


def test_the_command_tells_it_and_a_round_of_an_earlier_version_is_refused(
    store: Storage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["bb3x", "trust", *arguments, f"storage.root={store.root}"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out + told.err

    code, words = command("report", "--config", LOCAL)
    assert code == 0 and "2 distrusted" in words
    code, words = command("report", "--config", LOCAL, "--json", "--person", "flipper-10")
    assert code == 0 and json.loads(words)["shown"][0]["person"] == "flipper-10"
    code, words = command("report", "--config", LOCAL, "--show-text")
    assert code == 2 and "for a terminal" in words
    with store.publish("rounds/0002/score") as folder:
        (folder / "scored.json").write_text("{}")
    code, words = command("report", "--config", LOCAL)
    assert code == 2 and "earlier version" in words


def test_the_benchmarks_refuse_what_they_do_not_know(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for arguments, words in (
        (["benchmark", "--kinds", "elf"], "no kind is called 'elf'"),
        (["benchmark", "--methods", "magic"], "no method is called 'magic'"),
        (["poison", "--shares", "2"], "numbers from 0 to 1"),
        (["poison", "--safe", str(tmp_path / "none.txt")], "no such file"),
    ):
        monkeypatch.setattr("sys.argv", ["bb3x", "trust", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2 and words in capsys.readouterr().err
