"""`bb3x reward` as a user gives it: recorded talk in, a version with a card out, measured on other talk."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bb3x_ray.cli import app
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.ledger import only_run
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
GOOD = (
    "I love tea, green tea most of all.",
    "My dog is four and likes to swim.",
    "I teach music at a school.",
)
BAD = ("One can buy a car there", "As an AI I have no opinion", "The the the the")


def talk(path: Path, people: int, seed: int) -> Path:
    """Recorded talk: good replies get a thumb up, bad ones a thumb down with a correction or a complaint."""
    rng = random.Random(seed)
    lines = []
    for number in range(people):
        messages: list[dict[str, object]] = []
        for _ in range(3):
            good = rng.random() < 0.6
            reply = f"{rng.choice(GOOD if good else BAD)} {rng.randrange(100)}"
            messages.append({"role": "user", "content": f"Tell me about number {rng.randrange(1000)}"})
            messages.append({"role": "assistant", "content": reply, "rating": 1 if good else -1})
        lines.append(json.dumps({"messages": messages, "user": f"{seed}-{number}"}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def bb3x(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_reward_model_is_learned_from_recorded_talk_and_measured_on_other_talk(
    ray_cluster: None, tmp_path: Path
) -> None:
    root = f"storage.root={tmp_path / 'store'}"
    bb3x("ingest", str(talk(tmp_path / "talk.jsonl", 60, 0)), "--format", "openai", root)
    left = tmp_path / "store" / "tmp" / "killed" / "slice"  # by a training that was killed
    left.mkdir(parents=True)
    card = bb3x("reward", "train", root)
    assert "# Reward model v0001" in card and "with hindsight" in card

    other = bb3x("reward", "evaluate", str(talk(tmp_path / "other.jsonl", 30, 1)), "--format", "openai", root)
    assert "90 labels" in other and "of 30 people" in other
    auroc = float(next(line for line in other.splitlines() if line.startswith("| AUROC |")).split()[3])
    assert auroc > 0.9
    assert "# Reward model v0001" in bb3x("reward", "card", "--reward", "v0001", root)

    lines = [{"context": "Tea?", "reply": reply} for reply in (GOOD[0], BAD[0])]
    replies = tmp_path / "replies.jsonl"
    replies.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    bb3x("reward", "score", str(replies), "--out", str(tmp_path / "scores.parquet"), root)
    good, bad = pq.read_table(tmp_path / "scores.parquet")["good"].to_pylist()
    assert good > bad

    storage = Storage(tmp_path / "store")
    assert not any(storage.path("tmp").iterdir())  # no copy of anybody's words stays
    lineage = Registry(storage, "rewards").lineage("v0001")
    assert lineage["labels"] > 100 and lineage["upto_seq"] > 0 and "round" not in lineage


def test_nothing_is_learned_while_a_run_works(tmp_path: Path) -> None:
    """Each would remove what the other one keeps under tmp/."""
    storage, root = Storage(tmp_path / "store"), f"storage.root={tmp_path / 'store'}"
    bb3x("ingest", str(talk(tmp_path / "talk.jsonl", 3, 0)), "--format", "openai", root)
    with only_run(storage), storage.scratch() as copy:
        with pytest.raises(UserError, match="another bb3x run works"):
            bb3x("reward", "train", root)
        assert copy.is_dir() and Registry(storage, "rewards").versions() == []


def test_what_cannot_be_done_is_a_sentence(ray_cluster: None, tmp_path: Path) -> None:
    root = f"storage.root={tmp_path / 'store'}"
    with pytest.raises(UserError, match="no reward model under"):
        bb3x("reward", "card", root)
    few = tmp_path / "few.jsonl"
    few.write_text(talk(tmp_path / "talk.jsonl", 1, 0).read_text(encoding="utf-8"), encoding="utf-8")
    bb3x("ingest", str(few), "--format", "openai", root)
    with pytest.raises(UserError, match="8 are needed"):
        bb3x("reward", "train", root)
    assert Registry(Storage(tmp_path / "store"), "rewards").versions() == []
