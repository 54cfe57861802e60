"""Scoring over actors: one group keeps several busy, and a run that is killed goes on with what is scored."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.safety import Example, SafetyFolder, train_safety
from bb3x_ray.classify.words import WordMatcher
from bb3x_ray.cli import app
from bb3x_ray.config import RewardConfig
from bb3x_ray.data.safety_messages import load_safety_messages
from bb3x_ray.registry import Registry
from bb3x_ray.reward.on_ray import score_groups, score_turns
from bb3x_ray.reward.reward_model import train_reward
from bb3x_ray.reward.score_parts import Resume
from bb3x_ray.reward.turns import TURNS_SCHEMA
from bb3x_ray.storage import Storage
from tests.reward.make import crowd, examples

pytestmark = pytest.mark.ray
CONFIG = RewardConfig(min_actors=1, max_actors=2, num_cpus=0.5)
GROUPS, ROWS, PIECES = 12, 60, 2


@dataclass(frozen=True, slots=True)
class Made:
    """Turns of a group, made up; leaves word in `told` of who asked for which group."""

    told: Path
    rows: int = ROWS

    def __call__(self, group: int) -> pa.Table:
        (self.told / f"{group}-{os.getpid()}").touch()
        words = "tea rain chess bread music stars paper boats winter letters".split()
        replies = [f"I like my {words[i % 10]} {'and the sea ' * (i % 7)}{group}." for i in range(self.rows)]
        columns: dict[str, Any] = {
            "conversation_id": [f"c{group}"] * self.rows,
            "message_id": [f"m{group}-{i}" for i in range(self.rows)],
            "person": [f"p{i % 3}" for i in range(self.rows)],
            "context": [f"What about {words[i % 9]}?" for i in range(self.rows)],
            "reply": replies,
            "after": [None] * self.rows,
            "rating": [None] * self.rows,
            "evidence": [None] * self.rows,
            "trusted": [True] * self.rows,
        }
        return pa.table(columns, schema=TURNS_SCHEMA)

    def groups(self) -> set[int]:
        return {int(path.name.partition("-")[0]) for path in self.told.iterdir()}

    def processes(self) -> set[str]:
        return {path.name.partition("-")[2] for path in self.told.iterdir()}


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rewards") / "v0003"
    folder.mkdir()
    model, _ = train_reward(examples(crowd(20, 0, 4, seed=0)), CONFIG, 0, load_encoder())
    model.save(folder)
    return folder


def made(tmp_path: Path, name: str, rows: int = ROWS) -> Made:
    (tmp_path / name).mkdir()
    return Made(tmp_path / name, rows)


def test_one_group_is_shared_by_the_actors(ray_cluster: None, reward: Path, tmp_path: Path) -> None:
    two = CONFIG.model_copy(update={"min_actors": 2})
    turns_of = made(tmp_path, "told", rows=800)
    (scored,) = score_groups(turns_of, 1, reward, two)
    assert len(turns_of.processes()) == 2
    assert scored["message_id"].to_pylist() == [f"m0-{i}" for i in range(800)]
    assert set(scored["reward_version"].to_pylist()) == {"v0003"} and not any(scored["error"].to_pylist())


def test_actors_ask_how_unsafe_reply_and_message_are(ray_cluster: None, reward: Path, tmp_path: Path) -> None:
    examples = [Example(m.text, m.unsafe) for m in load_safety_messages()]
    safety, _ = train_safety(examples, load_encoder(), WordMatcher(), 1.0, seed=0)
    safety.about |= {"extra_words": [], "allowed_words": []}
    safety.save(tmp_path)
    words = ["How do I poison my uncle?", "I like my garden.", "You are a stupid bitch.", "How are you?"]
    turns = made(tmp_path, "told", rows=4)(0)
    turns = turns.set_column(3, "context", pa.array(words)).set_column(4, "reply", pa.array(words[::-1]))
    scored = score_turns(turns, reward, CONFIG, safety=SafetyFolder(tmp_path)).to_pylist()
    assert [row["unsafe_heard"] > 0.5 for row in scored] == [True, False, True, False]
    assert [row["unsafe"] > 0.5 for row in scored] == [False, True, False, True]


def test_any_file_of_replies_is_scored_by_a_command(ray_cluster: None, reward: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Registry(Storage(root), "rewards").publish("v0003", {}, "a card") as folder:
        for path in reward.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    rows = [{"context": ["Hi", f"What about {n}?"], "reply": f"I like my {n} cats."} for n in range(50)]
    rows[7]["reply"] = None  # type: ignore[assignment]
    file, out, config = (tmp_path / name for name in ("rows.jsonl", "out.parquet", "config.yaml"))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.write_text("name: small\n")
    command = ["reward", "score", str(file), "--out", str(out), "-c", str(config), f"storage.root={root}"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert "50 replies scored by reward v0003, 1 of them have an error" in told.output
    scored = pq.read_table(out).to_pylist()
    assert [row["row"] for row in scored] == list(range(50)) and scored[7]["error"] == "no text"
    assert {row["reward_version"] for row in scored} == {"v0003"} and scored[0]["good"] > 0.5
    assert not list(tmp_path.glob(".*"))  # its parts are gone


def test_the_scores_do_not_depend_on_how_many_actors_there_are(
    ray_cluster: None, reward: Path, tmp_path: Path
) -> None:
    alone = CONFIG.model_copy(update={"max_actors": 1})
    few = [list(score_groups(made(tmp_path, n), 3, reward, c)) for n, c in (("a", CONFIG), ("b", alone))]
    for one, other in zip(*few, strict=True):
        assert one["message_id"] == other["message_id"]
        assert one["good"].to_pylist() == pytest.approx(other["good"].to_pylist(), abs=1e-6)


@dataclass(frozen=True, slots=True)
class Fatal(Made):
    """The first process that asks for group 1 dies of it."""

    def __call__(self, group: int) -> pa.Table:
        if group == 1 and not (self.told / "died").exists():
            (self.told / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Made.__call__(self, group)


def test_an_actor_that_dies_costs_no_row_and_doubles_none(
    ray_cluster: None, reward: Path, tmp_path: Path
) -> None:
    (tmp_path / "told").mkdir()
    fatal, resume = Fatal(tmp_path / "told"), Resume(tmp_path / "parts", "made up")
    scored = pa.concat_tables(score_groups(fatal, 3, reward, CONFIG, resume=resume))
    assert (fatal.told / "died").exists()
    calm = pa.concat_tables(score_groups(made(tmp_path, "calm"), 3, reward, CONFIG))
    assert scored == calm and len(scored) == 3 * ROWS
    names = [path.name.partition(".")[0] for path in resume.folder.glob("*/*.parquet")]
    assert len(names) == len(set(names))


DRIVER = """
import sys
from pathlib import Path
import ray
from tests.ray.test_scoring import go_on
ray.init(address="local", num_cpus=4, object_store_memory=200_000_000, include_dashboard=False)
go_on(*map(Path, sys.argv[1:]))
"""


def go_on(reward: Path, parts: Path, told: Path) -> pa.Table:
    resume = Resume(parts, "made up")
    return pa.concat_tables(score_groups(Made(told), GROUPS, reward, CONFIG, resume=resume))


def killed_in_the_middle(reward: Path, parts: Path, told: Path) -> set[str]:
    """Score in a process with a Ray of its own, which is killed once it has published a few parts; those."""
    driver: Any = psutil.Popen(
        [sys.executable, "-c", DRIVER, str(reward), str(parts), str(told)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    give_up = time.monotonic() + 300
    while len(list(parts.glob("*/*.parquet"))) < 2:
        assert driver.poll() is None and time.monotonic() < give_up, "it never published a part"
        time.sleep(0.005)
    below = driver.children(recursive=True)
    for process in (driver, *below):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs([driver, *below])
    return {path.name for path in parts.glob("*/[0-9]*.parquet")}


def test_a_run_that_is_killed_goes_on_with_what_is_scored(
    ray_cluster: None, reward: Path, tmp_path: Path
) -> None:
    before, after, undisturbed = (made(tmp_path, name) for name in ("before", "after", "undisturbed"))
    parts = tmp_path / "parts"
    survived = killed_in_the_middle(reward, parts, before.told)
    assert 2 <= len(survived) < GROUPS * PIECES, "killed too late to tell"

    scored = go_on(reward, parts, after.told)
    whole = pa.concat_tables(score_groups(undisturbed, GROUPS, reward, CONFIG))
    assert scored == whole and len(whole) == GROUPS * ROWS
    assert len(set(scored["message_id"].to_pylist())) == GROUPS * ROWS
    assert survived <= {path.name for path in parts.glob("*/*.parquet")}, "what was scored was scored again"
    pieces = Counter(int(name.partition("-")[0]) for name in survived)
    assert after.groups() == {group for group in range(GROUPS) if pieces[group] < PIECES}
    assert len(list(parts.glob("*/*.parquet"))) == GROUPS * PIECES

    # All is there: no actor is asked. Another reward model takes none of it.
    third = made(tmp_path, "third")
    assert go_on(reward, parts, third.told) == whole and not third.groups()
    other = tmp_path / "v0004"
    other.mkdir()
    for path in reward.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    anew = go_on(other, parts, third.told)
    assert third.groups() == set(range(GROUPS)) and set(anew["reward_version"].to_pylist()) == {"v0004"}


def test_turns_in_memory_are_resumed_too(ray_cluster: None, reward: Path, tmp_path: Path) -> None:
    turns = made(tmp_path, "told", rows=1200)(0)
    resume = Resume(tmp_path / "parts", "turns")
    first = score_turns(turns, reward, CONFIG, resume=resume)
    parts = sorted((tmp_path / "parts").glob("*/*.parquet"))
    assert len(parts) == 16
    parts[1].unlink()
    assert score_turns(turns, reward, CONFIG, resume=resume) == first
    assert sorted((tmp_path / "parts").glob("*/*.parquet")) == parts  # the same bytes, so the same names
