"""The server as clients meet it: over HTTP, with a log on disk that it looks into."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from bb3x_ray.classify.pairs import Pair
from bb3x_ray.config import ChatConfig, ModulesConfig, ServeConfig
from bb3x_ray.data.lookup import Lookup
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.schemas.event import Event
from bb3x_ray.serve.app import create_app
from bb3x_ray.serve.engines.protocol import Engine
from bb3x_ray.serve.local_search import LocalSearch
from bb3x_ray.serve.memory import MEMORY, Memories
from bb3x_ray.serve.modules.bb3 import BB3
from bb3x_ray.serve.reply import Parts
from bb3x_ray.serve.safety_replies import SafetyReplies
from bb3x_ray.storage import Storage
from tests.serve.room import KEY, lanes


@dataclass
class Served:
    """`url` of a server of the tiny model, called v0001, and what is around it."""

    url: str
    app: Any
    engine: Engine
    storage: Storage

    @property
    def memories(self) -> Memories:
        return Memories(self.storage.path(MEMORY))

    def events_of(self, person: str) -> list[Event]:
        return Lookup(self.storage).of_person(person)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)


class OneWord:
    """A detector to which nothing is unsafe but what holds the word "zounds"."""

    threshold = reply_threshold = 0.5

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        return np.array([float("zounds" in pair.reply) for pair in pairs])


def everything(root: Path) -> dict[str, Any]:
    """What `create_app` is handed where safety, memories, modules and a canary of v0002 are on."""
    memories = Memories(Storage(root).path(MEMORY))
    config = ModulesConfig(enabled=True, memory="always", entity="never")
    parts = Parts(
        safety=SafetyReplies(OneWord()),
        memories=memories,
        modules=BB3(config, memories, LocalSearch()),
        arm=lambda person, conversation: ("v0001", "v0002")[len(conversation) % 2],
    )
    return {"parts": parts, "candidate": lambda: "v0002"}


@contextmanager
def served(
    model: Path,
    root: Path,
    *,
    beside: Path | None = None,
    chat: ChatConfig | None = None,
    around: dict[str, Any] | None = None,
    **serve: Any,
) -> Iterator[Served]:
    """For the length of the block.

    root     storage root; the same one again is the same server after a restart
    beside   a model that is held as v0002
    around   what `create_app` is handed beside
    """
    chat, config, storage = chat or ChatConfig(max_new_tokens=6), ServeConfig(**serve), Storage(root)
    engine = lanes(
        model,
        max_batch=config.max_batch,
        max_queued=config.max_queued,
        context=chat.max_context_tokens,
    )
    if beside is not None:
        engine.load("v0002", beside)
        engine.keep(["v0002"])
    log = SegmentWriter(storage.path("inbox"), "r", 2.0, 4_000_000)
    more = {"events_of": Lookup(storage).of_person, **(around or {})}
    app = create_app(engine, log.append, KEY, chat, config, **more)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", app, engine, storage)
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join()
            engine.close()
            log.close()
