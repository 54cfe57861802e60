"""What a chat turn needs of whatever writes its reply; one suite tests all engines for it.

An engine holds one or several versions of a model. New requests go to its current version, or to one
they name; a reply ends on the version with which it began.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.serve.stop_words import StopWords


class Busy(Exception):
    """As many requests wait as may wait."""

    retry_after_s = 2


class EngineFailed(Exception):
    """The model failed while it wrote this reply."""


class PromptRefused(Exception):
    """The prompt leaves no room for a message: the system prompt is too long for this model."""


class UnknownVersion(Exception):
    """That version is not in memory here."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a reply. The last one has a finish_reason; `cut` when a stop string ended it."""

    text: str
    finish_reason: str | None = None
    cut: bool = False


class Stream:
    """One reply as it is written: iterate over its deltas in the event loop that submitted it.

    `version` is known with the first delta, the numbers of tokens with the last. An engine calls `write`
    and `fail` from whatever thread it likes; `on_cancel` tells it that nobody reads any more.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        stops: Sequence[str],
        on_cancel: Callable[["Stream"], object],
    ) -> None:
        self.turns = turns
        self.decoding = decoding
        self.version = ""
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cancelled = False
        self._stops = StopWords(stops)
        self._on_cancel = on_cancel
        self._loop = asyncio.get_running_loop()
        self._deltas: asyncio.Queue[Delta | Exception] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while True:
            delta = await self._deltas.get()
            if isinstance(delta, Exception):
                raise delta
            yield delta
            if delta.finish_reason is not None:
                return

    def cancel(self) -> None:
        """Stop writing this reply; does nothing when it is done."""
        self.cancelled = True
        self._on_cancel(self)

    def write(self, text: str, finish_reason: str | None) -> bool:
        """Pass on what the model wrote next, up to a stop string. True when that ended the reply."""
        text = self._stops.push(text)
        if self._stops.hit:
            self._put(Delta(text, "stop", cut=True))
        elif finish_reason is not None:
            self._put(Delta(text + self._stops.flush(), finish_reason))
        elif text:
            self._put(Delta(text))
        return self._stops.hit or finish_reason is not None

    def fail(self, error: Exception) -> None:
        """End the reply: whoever reads it gets `error` raised."""
        self._put(error)

    def _put(self, delta: Delta | Exception) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deltas.put_nowait, delta)
        except RuntimeError:  # the loop was closed: nobody is there to read any more
            self.cancelled = True


class Engine(Protocol):
    """Writes replies; call `close` in the end. `submit` is called in an event loop, the rest from any thread.

    seeded   whether the same seed, prompt and version give the same reply again
    """

    seeded: bool

    @property
    def version(self) -> str:
        """The version that new requests go to."""

    @property
    def versions(self) -> list[str]:
        """All versions in memory, the newest first."""

    @property
    def alive(self) -> bool:
        """False when it will write nothing any more: whoever runs it should start another.

        It is about the current version. One beside it that dies leaves memory, and is unknown from then on.
        """

    def submit(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        stops: Sequence[str] = (),
        version: str | None = None,
    ) -> Stream:
        """Ask for a reply to `turns`, of the current version where none is named.

        Raises Busy, UnknownVersion, or EngineFailed when the engine has stopped. PromptRefused and a later
        EngineFailed are raised to whoever reads the stream.
        """

    def load(self, version: str, folder: Path) -> None:
        """Have `version` ready for `swap`, and for requests that name it; blocks. Does nothing when it is.

        Raises UserError when it cannot be served; what is in memory goes on as before.
        """

    def swap(self, version: str) -> None:
        """Send new requests to `version`, which was loaded; replies under way end on theirs.

        The one before leaves memory with its last reply, unless it is kept. Raises UnknownVersion.
        """

    def keep(self, versions: Collection[str]) -> None:
        """These stay in memory, besides the current one; others leave it with their last reply."""

    def close(self) -> None:
        """Stop; replies under way end with EngineFailed."""
