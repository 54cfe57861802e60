"""The servers that are compared: ours, whole, on Ray Serve; and `transformers serve`."""

import http.client
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bb3x_ray.config import ChatConfig, LogConfig, ModelConfig, RayConfig, ServeConfig
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.on_ray import OpenLog, connected
from bb3x_ray.serve.on_ray import ServerHandle, Wiring, start
from bb3x_ray.storage import Storage

START_SECONDS = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Find:
    """version, or None for the one named in a file -> (version, folder with every hash verified)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, version: str | None) -> tuple[str, Path]:
        version = version or live(self._root)
        return version, Registry(Storage(self._root), "models").folder(version)


class _Live:
    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self) -> str:
        return live(self._root)


def live(root: Path) -> str:
    return (root / "live").read_text()


def set_live(root: Path, version: str) -> None:
    aside = root / "live.new"
    aside.write_text(version)
    aside.replace(root / "live")


@contextmanager
def ours(root: Path, chat: ChatConfig, config: ServeConfig, dtype: str) -> Iterator[ServerHandle]:
    """Our server over the models in `root`, as `bb3x serve` runs it: proxy, replica, log on the disk."""
    wiring = Wiring(_Find(root), _Live(root), OpenLog(root, LogConfig()), secrets.token_bytes(32))
    os.environ["RAY_worker_niceness"] = "0"  # nobody is nicer than the other
    with connected(RayConfig(num_cpus=4)):
        server = start(wiring, config, chat, ModelConfig(dtype=dtype))  # type: ignore[arg-type]
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def transformers_serve(model: Path, dtype: str, *options: str) -> Iterator[int]:
    """The port of `transformers serve` with that model in memory."""
    port = free_port()
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", str(model), "--port", str(port), "--device", "cpu", "--dtype", dtype]
    log_path = model.parent / "peer.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log, env={**os.environ})
    try:
        _wait(port, process, log_path)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(port: int, process: "subprocess.Popen[bytes]", log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        wire = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            wire.request("GET", "/health")
            if wire.getresponse().status == 200:
                return
        except OSError:
            pass  # not there yet
        finally:
            wire.close()
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"transformers serve did not start:\n{log_path.read_text()[-2000:]}")
        time.sleep(0.2)
