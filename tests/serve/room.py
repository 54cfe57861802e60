"""A small real server for the tests of this room: the tiny model, a list as log, an HTTP client."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.language.loading import ChatModel, load_model
from bb3x_ray.schemas.event import Event
from bb3x_ray.serve.app import create_app
from bb3x_ray.serve.engines.lanes import Lanes
from bb3x_ray.serve.engines.protocol import Engine
from bb3x_ray.serve.reply import Parts

KEY = b"a key of this test, 32 bytes long"


def tiny(folder: Path) -> ChatModel:
    return load_model(folder, dtype="float32", device="cpu")


def lanes(
    folder: Path, version: str = "v0001", *, max_batch: int = 8, max_queued: int = 50, context: int = 512
) -> Lanes:
    """The engine of a CPU, with the tiny model."""
    return Lanes(
        version,
        folder,
        max_batch=max_batch,
        max_queued=max_queued,
        max_context_tokens=context,
        dtype="float32",
        device="cpu",
    )


def two_versions(champion: Path, candidate: Path) -> Lanes:
    """As during a canary: v0001, and beside it v0002."""
    engine = lanes(champion)
    engine.load("v0002", candidate)
    engine.keep(["v0002"])
    return engine


class ListLog:
    """Keeps events in memory; `broken` makes it refuse them as a full disk does."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.broken = False

    def append(self, events: list[Event]) -> None:
        if self.broken:
            raise OSError("no space left on device")
        self.events += events

    def of(self, person: str) -> list[Event]:
        """As `data.lookup` answers, without what was erased."""
        theirs = [event for event in self.events if event.person == person]
        gone = [event for event in theirs if event.kind == "erasure"]
        return [event for event in theirs if not any(_covers(erasure, event) for erasure in gone)]


def _covers(erasure: Event, event: Event) -> bool:
    here = not erasure.reasons or erasure.conversation_id == event.conversation_id
    return here and event.at <= erasure.at


class Room:
    """The app in this process, with a client that talks to it over ASGI."""

    def __init__(self, engine: Engine, log: ListLog, client: httpx.AsyncClient) -> None:
        self.engine = engine
        self.log = log
        self.client = client

    async def chat(self, *words: str, **more: Any) -> httpx.Response:
        """Ask with a history of alternating messages, the person's first and last."""
        return await self.client.post("/v1/chat/completions", json={"messages": history(*words), **more})

    async def stream(self, *words: str, **more: Any) -> list[dict[str, Any]]:
        """All chunks of a streamed reply; the last is {} for [DONE]."""
        answer = await self.chat(*words, stream=True, **more)
        assert answer.status_code == 200, answer.text
        return chunks(answer.text)

    async def feedback(self, completion_id: str, rating: int | None, **more: Any) -> httpx.Response:
        return await self.client.post(
            "/v1/feedback", json={"completion_id": completion_id, "rating": rating, **more}
        )


def history(*words: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(words)]


def chunks(body: str) -> list[dict[str, Any]]:
    data = [event.removeprefix("data: ") for event in body.split("\n\n") if event]
    return [{} if line == "[DONE]" else json.loads(line) for line in data]


@asynccontextmanager
async def room(
    folder: Path,
    *,
    chat: ChatConfig | None = None,
    parts: Parts | None = None,
    around: dict[str, Any] | None = None,
    **serve: Any,
) -> AsyncIterator[Room]:
    """A server of the model in `folder`, called v0001, for the time of a test.

    around   what `create_app` is handed beside
    """
    chat = chat or ChatConfig(max_new_tokens=12)
    config = ServeConfig(**serve)
    engine = lanes(
        folder,
        max_batch=config.max_batch,
        max_queued=config.max_queued,
        context=chat.max_context_tokens,
    )
    log = ListLog()
    app = create_app(engine, log.append, KEY, chat, config, parts, **{"events_of": log.of, **(around or {})})
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://room") as client:
            yield Room(engine, log, client)
    finally:
        engine.close()
