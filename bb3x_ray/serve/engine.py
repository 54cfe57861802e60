"""One thread that writes all replies of a replica, and changes its model without dropping any.

    submit ──► waiting (bounded) ──► lane v0002  BatchGenerator ──► streams, on their event loops
                                     lane v0001  … until its last reply is done, then it is let go

A lane is one version with the replies it is writing. New requests always go to the newest lane.
"""

import asyncio
import logging
import threading
import traceback
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import torch

from bb3x_ray.language.chat_template import Turn, prompt_ids
from bb3x_ray.language.generation import BatchGenerator, Decoding, Emitted, StreamText
from bb3x_ray.language.loading import ChatModel
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.stop_words import StopWords

log = logging.getLogger(__name__)


class Busy(Exception):
    """As many requests wait as may wait."""

    retry_after_s = 2


class EngineFailed(Exception):
    """The model failed while it wrote this reply."""


class PromptRefused(Exception):
    """The prompt leaves no room for a message: the system prompt is too long for this model."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a reply. The last one has a finish_reason; `cut` when a stop string ended it."""

    text: str
    finish_reason: str | None = None
    cut: bool = False


class Stream:
    """One reply as it is written: iterate over its deltas in the event loop that submitted it.

    `version`, `prompt_tokens` and `completion_tokens` are known with the first delta.
    """

    def __init__(
        self, engine: "Engine", turns: Sequence[Turn], decoding: Decoding, stops: Sequence[str]
    ) -> None:
        self.turns = turns
        self.decoding = decoding
        self.stops = StopWords(stops)
        self.version = ""
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cancelled = False
        self._engine = engine
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
        self._engine.wake()

    def put(self, delta: Delta | Exception) -> None:
        """Called by the engine's thread."""
        try:
            self._loop.call_soon_threadsafe(self._deltas.put_nowait, delta)
        except RuntimeError:  # the loop was closed: nobody is there to read any more
            self.cancelled = True


class _Lane:
    """One version and the replies that it is writing. Used by the engine's thread only."""

    def __init__(self, version: str, chat_model: ChatModel, max_batch: int, max_context_tokens: int) -> None:
        self.version = version
        self._chat_model = chat_model
        self._max_batch = max_batch
        self._max_context_tokens = max_context_tokens
        self._generator = BatchGenerator(chat_model, max_batch)
        self._writing: dict[int, tuple[Stream, StreamText]] = {}

    @property
    def idle(self) -> bool:
        return not self._writing

    def has_room_for(self, joining: int) -> bool:
        """Whether one more can join, besides `joining` that are about to."""
        return len(self._writing) + joining < self._max_batch

    def add(self, stream: Stream) -> None:
        room = min(self._max_context_tokens, self._chat_model.max_tokens - stream.decoding.max_new_tokens)
        try:
            ids = prompt_ids(self._chat_model.tokenizer, stream.turns, room)
            self._generator.add(id(stream), ids, stream.decoding)
        except UserError as error:
            stream.put(PromptRefused(str(error)))
            return
        except Exception as error:  # one request must not end the others
            log.error("version %s could not read a prompt: %s", self.version, _reason(error))
            stream.put(EngineFailed(type(error).__name__))
            return
        stream.version = self.version
        stream.prompt_tokens = len(ids)
        self._writing[id(stream)] = (stream, StreamText(self._chat_model.tokenizer))

    def step(self) -> None:
        """One token for each reply. A failure of the model ends the replies of this lane, not the thread."""
        try:
            for stream in [stream for stream, _ in self._writing.values() if stream.cancelled]:
                self._drop(stream)
            for got in self._generator.step():
                self._emit(got)
        except Exception as error:
            log.error("version %s failed while generating: %s", self.version, _reason(error))
            self.fail(type(error).__name__)

    def fail(self, reason: str) -> None:
        """End every reply with EngineFailed, and begin anew with an empty batch."""
        for stream, _ in self._writing.values():
            stream.put(EngineFailed(reason))
        self._writing.clear()
        self._generator = BatchGenerator(self._chat_model, self._max_batch)

    def _emit(self, got: Emitted) -> None:
        stream, decoder = self._writing[int(str(got.request_id))]
        text = ""
        if got.token_id is not None:
            stream.completion_tokens += 1
            text = decoder.push(got.token_id)
        if got.finish_reason is not None:
            text += decoder.finish()
        text = stream.stops.push(text)
        if stream.stops.hit:
            self._drop(stream)
            stream.put(Delta(text, "stop", cut=True))
        elif got.finish_reason is not None:
            self._drop(stream)
            stream.put(Delta(text + stream.stops.flush(), got.finish_reason))
        elif text:
            stream.put(Delta(text))

    def _drop(self, stream: Stream) -> None:
        self._generator.cancel(id(stream))
        del self._writing[id(stream)]


def _reason(error: Exception) -> str:
    """Kind and place of an error, without its message, which may hold a person's words (law 10)."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}"
        if frames
        else type(error).__name__
    )


class Engine:
    """Writes replies with the newest model it was given; call `close` in the end.

    max_batch    replies written together by one version
    max_queued   requests that may wait for a place; more are refused with Busy
    """

    def __init__(
        self, version: str, chat_model: ChatModel, *, max_batch: int, max_queued: int, max_context_tokens: int
    ) -> None:
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._max_context_tokens = max_context_tokens
        self._wake = threading.Condition()
        self._waiting: deque[Stream] = deque()
        self._lanes = [self._lane(version, chat_model)]  # the newest last
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def version(self) -> str:
        """The version that new requests go to."""
        return self._lanes[-1].version

    @property
    def versions(self) -> list[str]:
        """All versions in memory, the newest first."""
        return list(dict.fromkeys(lane.version for lane in reversed(self._lanes)))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, turns: Sequence[Turn], decoding: Decoding, stops: Sequence[str] = ()) -> Stream:
        """Ask for a reply to `turns`; call from an event loop. Raises Busy or EngineFailed."""
        stream = Stream(self, turns, decoding, stops)
        with self._wake:
            if self._closed or not self.alive:
                raise EngineFailed("the engine has stopped")
            if len(self._waiting) >= self._max_queued:
                raise Busy()
            self._waiting.append(stream)
            self._wake.notify()
        return stream

    def swap(self, version: str, chat_model: ChatModel) -> None:
        """New requests go to this model from now on; replies under way end on the one they began with."""
        with self._wake:
            if version != self.version:
                self._lanes = [*self._lanes, self._lane(version, chat_model)]
            self._wake.notify()

    def wake(self) -> None:
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """Stop the thread; replies under way end with EngineFailed."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _lane(self, version: str, chat_model: ChatModel) -> _Lane:
        return _Lane(version, chat_model, self._max_batch, self._max_context_tokens)

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while self._admit():
                self._step()
        finally:
            self._end_all()

    def _step(self) -> None:
        for lane in self._lanes:
            lane.step()

    def _admit(self) -> bool:
        """Wait for work, let go of old lanes that are done, give waiting requests a place. False: closed."""
        with self._wake:
            while not self._closed and not self._waiting and all(lane.idle for lane in self._lanes):
                self._lanes = self._lanes[-1:]  # so that an old model's memory is free while nobody talks
                self._wake.wait()
            newest = self._lanes[-1]
            self._lanes = [lane for lane in self._lanes if lane is newest or not lane.idle]
            self._waiting = deque(stream for stream in self._waiting if not stream.cancelled)
            joining: list[Stream] = []
            while self._waiting and newest.has_room_for(len(joining)):
                joining.append(self._waiting.popleft())
        for stream in joining:
            newest.add(stream)
        return not self._closed

    def _end_all(self) -> None:
        with self._wake:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for stream in waiting:
            stream.put(EngineFailed("the engine has stopped"))
        for lane in self._lanes:
            lane.fail("the engine has stopped")
