"""kill -9 at any moment, of replicas, committer and compaction: nothing is lost or doubled."""

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bb3x_ray.data.committer import commit_inbox, committing
from bb3x_ray.data.compact import compact
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.data.verify import verify
from bb3x_ray.storage import Storage
from tests.data.log_checks import committed_ids
from tests.data.make import talk

ROOT = Path(__file__).parents[2]
KILLS = [5, pytest.param(30, marks=pytest.mark.slow)]

WRITER = """
import os, sys, threading
from pathlib import Path
from bb3x_ray.data.segments import SegmentWriter
from tests.data.make import talk
writer = SegmentWriter(Path(sys.argv[1]), "victim", seal_seconds=0.05, seal_bytes=20_000)
def work(n):
    for i in range(1_000_000):
        name = f"{sys.argv[2]}-{n}-{i}"
        writer.append(talk(name))
        os.write(1, (name + "\\n").encode())
threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
[t.start() for t in threads]; [t.join() for t in threads]
"""

# Small batches: many places to be killed in one commit.
COMMITTER = """
import sys
from bb3x_ray.data import committer
from bb3x_ray.storage import Storage
committer._BATCH_BYTES = 2_000
print("ready", flush=True)
sys.stdin.readline()
while True:
    committer.commit_inbox(Storage(sys.argv[1]))
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_replica_loses_nothing_that_it_acknowledged(storage: Storage, kills: int) -> None:
    moments = random.Random(kills)
    acknowledged: set[str] = set()
    for run in range(kills):
        process = start(WRITER, str(storage.path("inbox")), f"run{run}")
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        if run % 3 == 0:
            commit_inbox(storage)  # while it writes
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        # The last line may be cut by the kill: it counts only when it is whole.
        acknowledged.update(line.strip() for line in lines if line.endswith("\n"))
    commit_inbox(storage)
    ids = set(committed_ids(storage))
    assert {f"{name}-{position}" for name in acknowledged for position in (0, 1)} <= ids
    assert len(acknowledged) > 20 * kills
    assert verify(storage).damages == []


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_committer_loses_and_doubles_nothing(storage: Storage, kills: int) -> None:
    moments = random.Random(kills)
    acknowledged: list[str] = []
    enough = threading.Event()

    def replica() -> None:
        with SegmentWriter(storage.path("inbox"), "r", seal_seconds=60, seal_bytes=1_000) as writer:
            while not enough.is_set():
                events = talk(f"c{len(acknowledged)}", 3)
                writer.append(events)
                acknowledged.extend(event.event_id for event in events)
                if len(acknowledged) % 30 == 0:  # a client that did not hear the answer sends again
                    writer.append(events)
                time.sleep(0.005)

    writing = threading.Thread(target=replica)
    writing.start()
    try:
        for _ in range(kills):
            process = start(COMMITTER, str(storage.root))
            assert process.stdin is not None and process.stdout is not None
            process.stdout.readline()
            process.stdin.write("go\n")
            process.stdin.flush()
            time.sleep(moments.uniform(0, 0.5))
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
    finally:
        enough.set()
        writing.join()
    commit_inbox(storage)
    assert sorted(committed_ids(storage)) == sorted(acknowledged)
    assert verify(storage).damages == []
    assert not list(storage.path("inbox").glob("*.jsonl"))


COMPACTOR = """
import sys
from bb3x_ray.data import compact
from bb3x_ray.storage import Storage
compact._SECTION = 1  # two files a section: many commits to be killed between
print("ready", flush=True)
sys.stdin.readline()
while True:
    compact.compact(Storage(sys.argv[1]), 0)
"""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_compaction_loses_and_doubles_nothing(storage: Storage, kills: int) -> None:
    moments = random.Random(kills)
    expected: list[str] = []
    for run in range(kills):
        for number in range(6):
            events = talk(f"c{run}.{number}", 3)
            with committing(storage) as log:
                log.append(events)
            expected += [event.event_id for event in events]
        process = start(COMPACTOR, str(storage.root))
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(moments.uniform(0, 0.5))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert committed_ids(storage) == expected
    assert verify(storage).damages == []
    compact(storage, keep_hours=0)
    assert committed_ids(storage) == expected
    assert len(list(storage.path("interactions").glob("*.parquet"))) == 1
