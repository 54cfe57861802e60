"""How the contract tests open each kind of engine that is installed, with real versions of the tiny model."""

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bb3x_ray.config import ChatConfig, ServeConfig, VllmConfig
from bb3x_ray.language.chat_template import Turn
from bb3x_ray.serve.app import create_app
from bb3x_ray.serve.engines.continuous import Continuous
from bb3x_ray.serve.engines.lanes import Lanes
from bb3x_ray.serve.engines.openai_server import OpenAIServer
from bb3x_ray.serve.engines.protocol import Engine, Stream
from bb3x_ray.serve.engines.vllm import Vllm
from tests.serve.room import KEY, ListLog, lanes

HELLO = [Turn("user", "Hello")]
CONTEXT = 256


@dataclass
class Subject:
    """An engine under test, answering with v0001.

    root      folders v0001 to v0003, and `broken` without weights
    publish   makes a version available to `load`, where that is not done by its folder alone
    """

    engine: Engine
    root: Path
    publish: Callable[[str], object] = lambda _: None

    def load(self, version: str) -> None:
        self.publish(version)
        self.engine.load(version, self.root / version)

    def move_to(self, version: str) -> None:
        self.load(version)
        self.engine.swap(version)


@contextlib.contextmanager
def _closing(engine: Engine, root: Path) -> Iterator[Subject]:
    try:
        yield Subject(engine, root)
    finally:
        engine.close()


def open_lanes(root: Path, *, max_batch: int = 8, max_queued: int = 50) -> AbstractContextManager[Subject]:
    engine = lanes(root / "v0001", max_batch=max_batch, max_queued=max_queued, context=CONTEXT)
    return _closing(engine, root)


def open_continuous(
    root: Path, *, max_batch: int = 8, max_queued: int = 50
) -> AbstractContextManager[Subject]:
    engine = Continuous(
        "v0001",
        root / "v0001",
        max_batch=max_batch,
        max_queued=max_queued,
        max_context_tokens=CONTEXT,
        max_reply_tokens=700,
        dtype="float32",
        device="cpu",
    )
    return _closing(engine, root)


@contextlib.contextmanager
def served(engine: Engine, chat: ChatConfig, config: ServeConfig) -> Iterator[str]:
    """Our own server, over HTTP, in a thread. Yields its address."""
    app = create_app(engine, ListLog().append, KEY, chat, config)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def open_openai(root: Path, *, max_batch: int = 8, max_queued: int = 50) -> Iterator[Subject]:
    """Our own server as somebody else's: its engine holds the models that the one under test asks for."""
    there = lanes(root / "v0001", max_batch=max_batch, max_queued=200, context=CONTEXT)
    config = ServeConfig(max_batch=max_batch, max_queued=200, max_reply_tokens=700)
    try:
        with served(there, ChatConfig(max_context_tokens=CONTEXT), config) as address:
            engine = OpenAIServer("v0001", url=f"{address}/v1", max_waiting=max_batch + max_queued)
            with _closing(engine, root) as subject:
                subject.publish = lambda version: there.load(version, root / version)
                yield subject
    finally:
        there.close()


def open_vllm(root: Path, *, max_batch: int = 8, max_queued: int = 50) -> AbstractContextManager[Subject]:
    engine = Vllm(
        "v0001",
        root / "v0001",
        max_batch=max_batch,
        max_queued=max_queued,
        max_context_tokens=CONTEXT,
        max_reply_tokens=700,
        dtype="float32",
        drain_seconds=30,
        config=VllmConfig(memory_share=0.3, adapters=3),
    )
    return _closing(engine, root)


Open = Callable[..., AbstractContextManager[Subject]]
OPENERS: dict[str, Open] = {
    "lanes": open_lanes,
    "continuous": open_continuous,
    "openai": open_openai,
    "vllm": open_vllm,
}
_no_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (bb3x-ray[vllm])")
KINDS: list[Any] = ["lanes", "continuous", "openai", pytest.param("vllm", marks=_no_vllm)]


@asynccontextmanager
async def opened(kind: str, root: Path, **limits: int) -> AsyncIterator[Subject]:
    with OPENERS[kind](root, **limits) as subject:
        yield subject


async def read(stream: Stream) -> tuple[str, str, str]:
    """(text, finish reason, version)"""
    text, finish = "", ""
    async for delta in stream:
        text += delta.text
        finish = delta.finish_reason or ""
    return text, finish, stream.version


@asynccontextmanager
async def draining(kind: str, folder: Path, seconds: float) -> AsyncIterator[Lanes | Continuous]:
    """An engine with memory for one version."""
    engines: dict[str, Any] = {"lanes": Lanes, "continuous": Continuous}
    limits: dict[str, Any] = {"max_batch": 4, "max_queued": 20, "max_context_tokens": 256}
    if kind == "continuous":
        limits["max_reply_tokens"] = 700
    engine = engines[kind]("v0001", folder, **limits, dtype="float32", device="cpu", drain_seconds=seconds)
    try:
        yield engine
    finally:
        engine.close()


async def until_gone(thing: weakref.ref[object]) -> bool:
    """Whether what is referred to leaves memory within a while."""
    deadline = time.monotonic() + 20
    while thing() is not None and time.monotonic() < deadline:
        gc.collect()
        await asyncio.sleep(0.05)
    return thing() is None


def kill(engine: Continuous, version: str) -> None:
    """By what kills it in truth: a request on which the library's thread raises."""
    manager = engine._models[version]._manager
    manager.add_request([5, 6, 7], request_id="poison", max_new_tokens=9, temperature=1e-40, top_p=1.0)
    deadline = time.monotonic() + 20
    while manager.is_running():
        assert time.monotonic() < deadline
        time.sleep(0.01)
