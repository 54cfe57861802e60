"""`ray job submit` against a Ray head of its own on this machine: what is submitted is what runs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bb3x_ray.registry import Registry
from bb3x_ray.storage import Storage
from tests.ray.test_run import write_config

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent  # not resolved: the environment's own programs
START_SECONDS = 90


@dataclass(frozen=True)
class Head:
    """A running Ray head; jobs go to `address`, drivers connect to `port` of this machine."""

    address: str
    port: int

    def submit(
        self, *command: str, timeout_s: float = 120, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Submit the repository with a command; returns when the job has ended, with its output."""
        arguments = ["job", "submit", "--address", self.address, "--working-dir", "."]
        arguments += ["--submission-id", f"test-{uuid.uuid4().hex[:8]}"]
        if env:
            arguments += ["--runtime-env-json", json.dumps({"env_vars": env})]
        return subprocess.run(
            [str(BIN / "ray"), *arguments, "--", *command],
            cwd=ROOT,
            env=own_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


def own_environment() -> dict[str, str]:
    """Without what would lead to another Ray on this machine."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_JOB_ID")}
    return inherited | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def free_ports(count: int) -> list[int]:
    """All held until the last is known, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start_head(folder: Path) -> tuple[subprocess.Popen[bytes], Head]:
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=8", f"--temp-dir={folder}"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=300000000"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=own_environment(), stdout=log, stderr=log, start_new_session=True
        )
    return process, Head(f"http://127.0.0.1:{ports['dashboard-port']}", ports["port"])


def wait_until_it_answers(process: subprocess.Popen[bytes], head: Head, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{head.address}/api/jobs/", timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise TimeoutError(f"the head did not answer in {START_SECONDS} s: {log.read_text()}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """`ray start --block` ends its children when it is asked to; nothing else is touched."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the session that we made for it
        process.wait(30)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="bb3x-", dir="/tmp"))  # short: socket paths have 107 characters
    process, head = start_head(folder)
    try:
        wait_until_it_answers(process, head, folder / "head.log")
        yield head
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)


WHERE = """
import os, ray, bb3x_ray, sys
ray.init(address="auto", log_to_driver=False)
task = ray.remote(num_cpus=1)(lambda: (__import__("bb3x_ray").__file__, os.getcwd()))
found = {"driver": [bb3x_ray.__file__, os.getcwd()], "worker": list(ray.get(task.remote())),
         "port": ray.get_runtime_context().gcs_address.split(":")[-1]}
sys.stdout.write("FOUND " + __import__("json").dumps(found) + chr(10))
"""


def test_driver_and_workers_run_the_code_that_was_submitted(head: Head) -> None:
    """Not what happens to be installed: the uploaded copy, on every node, in the cluster of the job."""
    done = head.submit(sys.executable, "-c", f"exec({WHERE!r})")
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))
    for file, folder in (found["driver"], found["worker"]):
        assert file == f"{folder}/bb3x_ray/__init__.py"
        assert not Path(folder).is_relative_to(ROOT)
    assert found["port"] == str(head.port)


def test_a_model_is_imported_by_a_job(head: Head, tiny_model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = head.submit(
        str(BIN / "bb3x"), "models", "import", str(tiny_model), f"storage.root={store}",
        env={"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "v0001 from" in done.stdout
    registry = Registry(Storage(store), "models")
    assert registry.champion == "v0001"
    assert (registry.folder("v0001") / "model.safetensors").is_file()


def test_a_job_that_cannot_run_fails_with_its_sentence(head: Head) -> None:
    done = head.submit(str(BIN / "bb3x"), "run", "--config", "configs/local.yaml", "train.epoch=2")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "did you mean 'train.epochs'?" in said
    assert "Traceback" not in said


CONNECTED = """
import sys, ray
from bb3x_ray.config import RayConfig
from bb3x_ray.rounds.on_ray import connected
with connected(RayConfig()):
    sys.stdout.write("JOINED " + ray.get_runtime_context().gcs_address.split(":")[-1] + " ")
    sys.stdout.write(str(int(ray.cluster_resources()["CPU"])) + chr(10))
"""


def test_our_commands_join_the_cluster_of_their_job(head: Head) -> None:
    """`ray.address: null` starts a Ray of its own only outside of jobs."""
    done = head.submit(sys.executable, "-c", f"exec({CONNECTED!r})")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"JOINED {head.port} 8" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_run_as_a_job(head: Head, tmp_path: Path) -> None:
    """Serve, Data, Train and DeepSpeed on the cluster's workers, from the code that was submitted."""
    store = tmp_path / "store"
    config = write_config(tmp_path, store, rounds=1)
    quick = "log.seal_seconds=0.1"  # people who talk for a second would be collected in the next round
    done = head.submit(str(BIN / "bb3x"), "run", "--config", str(config), quick, timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
    storage = Storage(store)
    for step in ("collect", "score", "curate", "train", "evaluate"):
        assert storage.is_published(f"rounds/0001/{step}")
    candidate = Registry(storage, "models").lineage("v0002")
    assert candidate["parent"] == "v0001" and candidate["metrics"]["steps"] >= 1
