"""What the server knows of the log: write events and wait until they are durable, read a person's events."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from starlette.concurrency import run_in_threadpool

from bb3x_ray.schemas.event import Event
from bb3x_ray.serve.protocol import ApiError

AppendEvents = Callable[[list[Event]], object]  # returns when the events are durable, else raises
# person -> all events of theirs in the log, also the newest, without what was erased or waits to be
EventsOf = Callable[[str], list[Event]]
log = logging.getLogger(__name__)
T = TypeVar("T")


class Memory(Protocol):
    """Something remembered of a talk: `about` the "person" or the "bot", `created` in microseconds."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def created(self) -> int: ...


class Memories(Protocol):
    """The store of memories, by person (a pseudonym)."""

    def of(self, person: str) -> Sequence[Memory]: ...

    def forget(self, person: str, id: str | None = None, conversation: str | None = None) -> object: ...


def nothing(person: str) -> list[Event]:
    """EventsOf of a server whose log cannot be looked into."""
    return []


async def append_durably(append_events: AppendEvents, events: list[Event]) -> None:
    """Raises ApiError 503 when the log cannot be written: the client must learn that nothing was kept."""
    await _in_thread("refused what was written", append_events, events)


async def read_events(events_of: EventsOf, person: str) -> list[Event]:
    """Raises ApiError 503 when the log cannot be read."""
    return await _in_thread("could not be read", events_of, person)


async def _in_thread(trouble: str, function: Callable[..., T], *arguments: object) -> T:
    try:
        return await run_in_threadpool(function, *arguments)
    except Exception as error:  # whatever the log's reason; its words may hold a person's (law 10)
        log.error("the event log %s: %s", trouble, type(error).__name__)
        raise ApiError(
            503,
            "The server cannot reach its log now; please try again.",
            kind="server_error",
            code="log_unavailable",
        ) from error
