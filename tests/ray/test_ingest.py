"""Blocks parsed by Ray Data: the same log as in one process, also when the ingest is killed on the way."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bb3x_ray.data.ingest import ingest
from bb3x_ray.data.table import head, open_table, scan
from bb3x_ray.storage import Storage
from tests.data.readers.release import talk, write

pytestmark = pytest.mark.ray

# Blocks and commits small enough that a kill falls between them.
KILLED = """
import sys
from bb3x_ray.data import ingest, parse
from bb3x_ray.data.on_ray import ingest as on_ray
from bb3x_ray.storage import Storage
ingest._COMMIT_BYTES, parse.BLOCK_BYTES = 200_000, 30_000
ingest.ingest(Storage(sys.argv[1]), sys.argv[2], "bb3", by_tasks=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("release")
    for chunk in range(8):
        write(found / f"chunk_{chunk}.jsonl", [talk(n) for n in range(chunk * 500, chunk * 500 + 500)])
    bad = found / "chunk_5.jsonl"
    bad.write_bytes(bad.read_bytes().replace(b'"c2600"', b'"c2600'))
    return found


def rows(storage: Storage) -> list[dict[str, object]]:
    table = open_table(storage)
    assert table is not None
    names = ["commit_seq", "event_id", "chunk", "text", "rating"]
    found: list[dict[str, object]] = scan(storage, table, names, None).sort_by("commit_seq").to_pylist()
    return found


def test_the_log_is_the_same_as_from_one_process(ray_cluster: None, folder: Path, tmp_path: Path) -> None:
    alone, by_tasks = Storage(tmp_path / "alone"), Storage(tmp_path / "tasks")
    expected = ingest(alone, folder, "bb3")
    assert ingest(by_tasks, folder, "bb3", by_tasks=True) == expected
    assert [line for line, _ in expected.rejected] == [101] and expected.conversations == 3999
    assert rows(by_tasks) == rows(alone)
    assert ingest(by_tasks, folder, "bb3").events_new == 0


def test_killed_on_the_way_and_run_again(ray_cluster: None, folder: Path, tmp_path: Path) -> None:
    killed, whole = Storage(tmp_path / "killed"), Storage(tmp_path / "whole")
    driver: Any = psutil.Popen(
        [sys.executable, "-c", KILLED, str(killed.root), str(folder)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while head(killed) == 0:
        assert driver.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    below = driver.children(recursive=True)  # its Ray would go with it, but not at once
    for process in (driver, *below):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs([driver, *below])
    taken = head(killed)
    assert 0 < taken < 3999 * 3
    report = ingest(killed, folder, "bb3", by_tasks=True)
    assert (report.duplicates, report.events_new) == (taken, 3999 * 3 - taken)
    ingest(whole, folder, "bb3")
    assert rows(killed) == rows(whole)
