"""The benchmark of the log: real runs of its measures on a tiny deployment, and what is kept of them."""

import json
import os
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bb3x_ray.data.table import head
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage
from benchmarks.data import acknowledged, arm, deployment, growth, measures, results, stores
from benchmarks.data.goals import Goal
from benchmarks.data.results import Found, Result

SIZE = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / f"deployment-{SIZE}"
    deployment.write(folder, SIZE)
    return folder


@pytest.fixture(scope="module")
def ingested(folder: Path) -> tuple[Path, list[Goal], Result]:
    """The store that the measure `ingest` left, its goals and its result."""
    pytest.importorskip("duckdb", reason="the peer comes with the extra [bench]")
    root = folder.with_name("store")
    goals, result = measures.run("ingest", SIZE, folder, root, 1, folder.with_name("results.jsonl"))
    return root, goals, result


def test_ingest_leaves_its_store_and_a_line_of_results(
    folder: Path, ingested: tuple[Path, list[Goal], Result]
) -> None:
    root, goals, result = ingested
    said = stores.ingested(folder, root)
    assert said["conversations"] == SIZE and head(Storage(root)) == said["events_new"]
    assert result.utterances == stores.utterances(said) > SIZE
    assert result.seconds > result.start_seconds > 0 and result.peak_bytes > 0 and result.ratio
    assert any(goal.reached is not None for goal in goals)
    assert results.read(folder.with_name("results.jsonl"))[0] == result
    assert not list(root.parent.glob("*.parquet"))  # DuckDB's


@pytest.mark.ray
def test_a_view_is_measured_on_the_store_that_is_there(
    folder: Path, ingested: tuple[Path, list[Goal], Result]
) -> None:
    root = ingested[0]
    files = {path: path.stat().st_mtime_ns for path in (root / "interactions").rglob("*")}
    _, result = measures.run("view", SIZE, folder, root, 1, folder.with_name("results.jsonl"))
    assert result.utterances == ingested[2].utterances and result.also["examples"] > 0
    assert files == {path: path.stat().st_mtime_ns for path in (root / "interactions").rglob("*")}


def test_a_measure_that_returns_goals_alone_is_told_by_its_whole_call(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(folder: Path, root: Path, repeats: int) -> list[Goal]:
        assert not (root / "rounds").exists()
        assert head(Storage(root)) > 0  # the store is made where it is missing
        (root / "rounds" / "0001").mkdir(parents=True)
        time.sleep(0.1)
        return [Goal("slept", "0.1")]

    monkeypatch.setitem(measures.MEASURES, "curation", measure)
    monkeypatch.setattr(measures, "OF_SIZE", [*measures.OF_SIZE, "curation"])
    for _ in range(2):  # what the first one left in the store is not there for the second
        goals, result = measures.run("curation", SIZE, folder, tmp_path / "store", 1, tmp_path / "results")
        assert [goal.found for goal in goals] == ["0.1"]
        assert result.seconds >= 0.1 and result.utterances > SIZE and result.conversations == SIZE
    assert not (tmp_path / "store" / "rounds").exists()


def test_growth_survives_a_measure_that_fails_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path, root: Path, repeats: int) -> list[Goal]:
        raise arm.ArmFailed("broken on purpose")

    def fine(folder: Path, root: Path, repeats: int) -> Found:
        said = stores.ingested(folder, root)
        calls.append(said["conversations"])
        return Found([], stores.utterances(said), said["seconds"], 0.0, 1, said["start_seconds"])

    calls: list[int] = []
    monkeypatch.setitem(measures.MEASURES, "broken", broken)
    monkeypatch.setitem(measures.MEASURES, "fine", fine)
    monkeypatch.setattr(measures, "OF_SIZE", ["broken", "fine"])
    kept, plot = tmp_path / "results.jsonl", tmp_path / "img" / "growth.png"
    plan = growth.Plan((60, 20), ("broken", "fine"), tmp_path, tmp_path / "growth", kept, plot, keep=True)
    out = Console(file=StringIO(), width=120)
    failed = growth.grow(plan, out)
    assert len(failed) == 2 and all("broken on purpose" in one for one in failed)
    assert [(r.measure, r.conversations) for r in results.read(kept)] == [("fine", 20), ("fine", 60)]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert not plan.stores.exists()
    assert growth.grow(plan, out) == failed and calls == [20, 60]  # kept results are not measured again


def _result(utterances: int, seconds: float, start: float = 0.0) -> Result:
    return Result("m", utterances // 10, utterances, seconds, start, 0.0, 1, None, {}, "cpu", "2025-01-01")


def test_exponents_lie_between_neighbours_and_leave_the_start_out() -> None:
    curve = [_result(1000, 11.0, 10.0), _result(10_000, 20.0, 10.0), _result(20_000, 50.0, 10.0)]
    assert growth.exponents(curve) == pytest.approx([1.0, 2.0])
    assert growth.marginal(curve) == pytest.approx([1000.0, 3000.0])
    reached = {goal.measure: goal.reached for goal in growth.goals({"m": curve})}
    assert reached == {"m, exponent at the largest sizes": False, "m, peak GiB": True}


def test_a_damaged_line_of_results_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results.append(path, _result(10, 1.0))
    with path.open("a") as file:
        file.write('{"measure": "m"\n')
    with pytest.raises(UserError, match=r"results\.jsonl, line 2"):
        results.read(path)


def test_an_arm_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    sleep = f"[{sys.executable!r}, '-c', 'import time; time.sleep(60)']"
    code = f"import subprocess; p = subprocess.Popen({sleep}); "
    code += f"open({str(pid)!r}, 'w').write(str(p.pid)); p.wait()"
    with pytest.raises(arm.ArmFailed, match="more than 3 s"):
        arm.run("timeit", "-n1", "-r1", code, limit_seconds=3)
    state = Path(f"/proc/{pid.read_text()}/stat")
    while state.exists() and state.read_text().split()[2] != "Z":
        time.sleep(0.05)  # a process that was told to die takes a moment; the test's own time limit ends this
    with pytest.raises(arm.ArmFailed, match="failed"):
        arm.run("timeit", "-n1", "-r1", "raise SystemExit(3)")


def test_what_ran_is_watched_with_its_processes() -> None:
    value, took = arm.watched(lambda: sum(range(3_000_000)))
    assert value == 4_499_998_500_000 and took.seconds > 0 and took.peak_bytes > os.sysconf("SC_PAGE_SIZE")


def test_acknowledgements_are_told_with_their_goals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledged, "WAYS", ("disk",))  # test_acks_bench.py runs `shared`
    found = acknowledged.measure(tmp_path, tmp_path / "store", 1, seconds=1)
    assert found.utterances == 200
    assert [goal.found for goal in found.goals if "lost" in goal.measure] == ["0, 0"]
    assert found.also["disk_p99_ms"] >= found.also["disk_p50_ms"] > 0 == found.also["disk_refused"]


@pytest.mark.ray
def test_curation_counts_what_it_made(folder: Path, tmp_path: Path, tiny_model: Path) -> None:
    store = tmp_path / "store"
    arm.run("benchmarks.data.ingest_ours", str(folder), str(store))
    said = arm.run("benchmarks.data.curation", str(store), str(tiny_model)).said
    assert said["thumbs"] > 0 and said["imitate"] > said["avoid"] > 0
    assert said["rows_made"] > 0 and said["tokens"] > 1000
    assert said["utterances"] == sum(
        len(json.loads(line)["message_history"])
        for path in folder.glob("*.jsonl")
        for line in path.read_text().splitlines()
    )
