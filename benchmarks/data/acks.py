"""How long people wait until a thumb is durable: `python -m benchmarks.data.acks --help`.

A server in a process of its own (the app under uvicorn, or `bb3x serve`), and connections that send
feedback at fixed times whether or not the last answer came in time. A latency counts from the time at which
the request was *due*, so that a server that stalls is not asked less. What was acknowledged is then looked
for in the table.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.data.committer import commit_inbox
from bb3x_ray.data.inbox import open_inbox
from bb3x_ray.data.table import open_table, scan
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage

ROOT = Path(__file__).parents[2]
START_SECONDS = 240


@dataclass(frozen=True, slots=True)
class AckTimes:
    """Milliseconds from when a thumb was due to be sent to its acknowledgement; `per_second` as reached.

    refused   answers other than 200
    lost      acknowledged, but not in the table afterwards
    doubled   rows too many of what was acknowledged
    sync_*    a bare write with fdatasync on the same disk right afterwards: what the machine gives
    """

    ack: str
    server: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    acknowledged: int
    refused: int
    lost: int
    doubled: int
    per_second: float
    sync_p50_ms: float
    sync_p99_ms: float


def measure(
    ack: str = "disk",
    seconds: float = 60,
    rate: float = 200,
    connections: int = 8,
    server: str = "app",
    folder: Path | None = None,
) -> AckTimes:
    """Acknowledge `rate` thumbs a second for `seconds`.

    ack       disk, or shared: into a SeaweedFS that is started for it, and syncs every object
    server    app: uvicorn; serve: the whole of `bb3x serve`
    folder    on the disk to be measured; else where temporary files go
    """
    with tempfile.TemporaryDirectory(dir=folder) as aside, _log_root(ack, Path(aside)) as log_root:
        store = Path(aside) / "store"
        with _server(server, store, ack, log_root) as port:
            completions = [_complete(port) for _ in range(connections)]
            _press(port, completions, 1.0, rate)  # warm
            began = time.monotonic()
            pressed = _press(port, completions, seconds, rate)
            took = time.monotonic() - began
        return _times(ack, server, pressed, took, Storage(store), log_root)


@dataclass(slots=True)
class Pressed:
    """One thumb: seconds until its answer, and its event's id, or "" where it was refused."""

    seconds: float
    event_id: str


def _press(port: int, completions: list[str], seconds: float, rate: float) -> list[Pressed]:
    """Thumbs at even distances, each connection its share of them."""
    total = round(seconds * rate)
    found: list[list[Pressed]] = [[] for _ in completions]
    begin = time.monotonic() + 0.1

    def connection(number: int) -> None:
        wire = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        wire.connect()
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for thumb in range(number, total, len(completions)):
            due = begin + thumb / rate
            time.sleep(max(0.0, due - time.monotonic()))
            body = {"completion_id": completions[number], "rating": (-1, 1)[thumb % 2], "user": "ada"}
            status, answer = _post(wire, "/v1/feedback", body)
            found[number].append(Pressed(time.monotonic() - due, answer["id"] if status == 200 else ""))
        wire.close()

    threads = [threading.Thread(target=connection, args=(n,)) for n in range(len(completions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for per_connection in found for one in per_connection]


def _post(wire: http.client.HTTPConnection, path: str, body: object) -> tuple[int, dict[str, str]]:
    wire.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = wire.getresponse()
    return answer.status, json.loads(answer.read())


def _complete(port: int) -> str:
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    said = {"messages": [{"role": "user", "content": "Hello"}], "user": "ada", "store": True}
    status, answer = _post(wire, "/v1/chat/completions", said)
    wire.close()
    if status != 200:
        raise UserError(f"the server did not answer a message (status {status}).")
    return answer["id"]


def _times(
    ack: str, server: str, pressed: list[Pressed], took: float, storage: Storage, log_root: str
) -> AckTimes:
    bare = _bare_syncs(storage.root, 400, rate=100)
    commit_inbox(storage, open_inbox(log_root or str(storage.root)))
    table = open_table(storage)
    ids = scan(storage, table, ["event_id"], None)["event_id"].to_pylist() if table else []
    acknowledged = {one.event_id for one in pressed if one.event_id}
    there = [event_id for event_id in ids if event_id in acknowledged]
    latencies = np.array([one.seconds for one in pressed if one.event_id]) * 1000
    return AckTimes(
        ack=ack,
        server=server,
        p50_ms=_percentile(latencies, 50),
        p99_ms=_percentile(latencies, 99),
        max_ms=round(float(latencies.max()), 2),
        acknowledged=len(acknowledged),
        refused=sum(not one.event_id for one in pressed),
        lost=len(acknowledged - set(there)),
        doubled=len(there) - len(set(there)),
        per_second=round(len(acknowledged) / took, 1),
        sync_p50_ms=_percentile(bare, 50),
        sync_p99_ms=_percentile(bare, 99),
    )


def _bare_syncs(folder: Path, count: int, rate: float) -> np.ndarray:
    """Milliseconds [count] of a write and its sync, at even distances."""
    folder.mkdir(parents=True, exist_ok=True)
    path, found = folder / "bare", []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for _ in range(count):
        time.sleep(1 / rate)
        began = time.monotonic()
        os.write(fd, b"x" * 500)
        os.fdatasync(fd)
        found.append(time.monotonic() - began)
    os.close(fd)
    path.unlink()
    return np.array(found) * 1000


def _percentile(milliseconds: np.ndarray, share: float) -> float:
    return round(float(np.percentile(milliseconds, share)), 2)


@contextmanager
def _log_root(ack: str, aside: Path) -> Iterator[str]:
    """The value of `log.root`."""
    if ack == "disk":
        yield ""
        return
    from tests.seaweed import running_store

    with running_store(aside / "seaweed") as store:
        store.sync_every_object()
        yield f"{store.address}/log"


@contextmanager
def _server(kind: str, store: Path, ack: str, log_root: str) -> Iterator[int]:
    """The port of a server that answers; it is stopped, and its log sealed, at the end."""
    port = _free_port()
    model = _tiny_model(store.parent / "model")
    if kind == "app":
        command = [sys.executable, "-m", "benchmarks.data.acks", "--app", str(port), str(model)]
        command += [str(store), log_root]
    else:
        settings = {"storage.root": store, "model.source": model, "serve.port": port, "log.ack": ack}
        settings |= {"chat.max_new_tokens": 8, "log.root": log_root, "serve.threads": 1}
        command = [sys.executable, "-m", "bb3x_ray.cli", "serve"]
        command += [f"{key}={value}" for key, value in settings.items() if value != ""]
    log_path = store.parent / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ})
    try:
        _wait(port, process, log_path)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


def _wait(port: int, process: "subprocess.Popen[bytes]", log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            wire = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            wire.request("GET", "/health")
            if wire.getresponse().status == 200:
                return
        except OSError:
            pass  # not there yet
        finally:
            wire.close()
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(f"the server did not start:\n{log_path.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)


def _tiny_model(folder: Path) -> Path:
    from tests.tiny import make_tiny_model

    return make_tiny_model(folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve_app(port: int, model: str, root: str, log_root: str) -> None:
    """The server's process: the real app, engine and log, without Ray around them."""
    import torch
    import uvicorn

    from bb3x_ray.serve.app import create_app
    from bb3x_ray.serve.engines.lanes import Lanes

    torch.set_num_threads(1)
    chat, config = ChatConfig(max_new_tokens=8), ServeConfig()
    limits = {"max_batch": 8, "max_queued": 100, "max_context_tokens": chat.max_context_tokens}
    engine = Lanes("v0001", Path(model), **limits, dtype="float32")
    log = open_inbox(log_root or root).writer("replica", seal_seconds=2.0, seal_bytes=4_000_000)
    app = create_app(engine, log.append, b"the key of this benchmark", chat, config)
    uvicorn.run(app, port=port, log_level="warning", access_log=False)  # returns at SIGTERM
    engine.close()
    log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--ack", choices=["disk", "shared"], default="disk")
    parser.add_argument("--server", choices=["app", "serve"], default="app")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=200, help="thumbs a second")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--app", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.app:
        port, model, root, log_root = options.app
        _serve_app(int(port), model, root, log_root)
        return
    found = measure(
        options.ack, options.seconds, options.rate, options.connections, options.server, options.folder
    )
    print(json.dumps(asdict(found)))  # noqa: T201


if __name__ == "__main__":
    main()
