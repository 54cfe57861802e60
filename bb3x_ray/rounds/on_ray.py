"""The rounds' door to Ray: connect, and hand the server what it needs from other rooms."""

import logging
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from bb3x_ray.config import Config, LogConfig, RayConfig
from bb3x_ray.data.inbox import EventWriter, open_inbox
from bb3x_ray.data.lookup import Lookup
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.arms import FindArms
from bb3x_ray.rounds.server_key import server_key
from bb3x_ray.rounds.turn_parts import prepare_parts
from bb3x_ray.schemas.event import Event
from bb3x_ray.serve.admission import Access
from bb3x_ray.serve.on_ray import ServerHandle, Wiring, start
from bb3x_ray.storage import Storage


@contextmanager
def connected(config: RayConfig) -> Iterator[None]:
    """Ray for the length of the block: the job's or a given cluster, else one started here.

    Logical CPUs are declared, because Serve, Data and Train would wait for each other on two cores.
    """
    joins = config.address or os.environ.get("RAY_ADDRESS")
    # Serve, Data and Train share few cores here: threads that wait must not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not joins:
        # Nobody but this process connects to a Ray that lives as long as it does.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for chatty in ("ray.serve", "ray.data", "ray.train"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    quiet: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "ignore_reinit_error": True,
    }
    already = ray.is_initialized()
    if not already:
        if joins:
            about: dict[str, Any] = {"address": config.address or "auto"}
        else:
            about = {
                "address": "local",
                "num_cpus": config.num_cpus,
                "object_store_memory": config.object_store_mb * 1_000_000,
                "include_dashboard": False,
            }
        with _without(b"Set ray log level from environment variable"):
            ray.init(**about, **quiet)
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler ends the process with a trace of addresses.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if not already:
            ray.shutdown()


@contextmanager
def _without(words: bytes) -> Iterator[None]:
    """Leave lines with `words`, which no setting turns off, out of what is written to stderr meanwhile."""
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if words not in line:
                    os.write(2, line)


class FindModel:
    """version, or None for the champion -> (version, folder with every hash verified)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, version: str | None) -> tuple[str, Path]:
        models = Registry(Storage(self._root), "models")
        version = version or models.champion
        return version, models.folder(version)


class FindChampion:
    """The champion's version."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self) -> str:
        return Registry(Storage(self._root), "models").champion


class OpenLog:
    """replica id -> that replica's own writer."""

    def __init__(self, root: Path, config: LogConfig) -> None:
        self._address, self._config = config.root or str(root), config

    def __call__(self, replica: str) -> EventWriter:
        inbox = open_inbox(self._address)
        return inbox.writer(replica, self._config.seal_seconds, self._config.seal_bytes)


class EventsOf:
    """person -> their events in the log; looks into it from the first question on."""

    def __init__(self, root: Path, config: LogConfig) -> None:
        self._root, self._address = root, config.root
        self._lookup: Lookup | None = None

    def __call__(self, person: str) -> list[Event]:
        if self._lookup is None:
            inbox = open_inbox(self._address) if self._address else None
            self._lookup = Lookup(Storage(self._root), inbox)
        return self._lookup.of_person(person)


def start_server(
    storage: Storage, config: Config, say: Callable[[str], None] = lambda line: None
) -> ServerHandle:
    """The chat server on the connected Ray, answering with the champion."""
    wiring = Wiring(
        FindModel(storage.root),
        FindChampion(storage.root),
        OpenLog(storage.root, config.log),
        server_key(storage),
        prepare_parts(storage, config, say),
        EventsOf(storage.root, config.log),
        Access.of(config.serve),
        FindArms(storage.root, config.canary.share),
    )
    return start(wiring, config.serve, config.chat, config.model)
