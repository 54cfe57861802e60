"""Any OpenAI-compatible server as the model, for people who already run one.

A version is a model of that server: by its own name, or by the one that `serve.engine_models` gives it.
Putting a version's weights there is up to who runs the server; here it is only asked for.
"""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.protocol import Busy, EngineFailed, PromptRefused, Stream, UnknownVersion

log = logging.getLogger(__name__)
_TRY_AGAIN = (429, 502, 503, 504)
_TOO_LONG = ("context_length_exceeded", "context length", "string_above_max_length")  # OpenAI's, vLLM's, ours


class OpenAIServer:
    """Replies of another server, streamed through; call `close` in the end.

    url          up to and with `/v1`
    key          sent as a bearer token where it is not empty
    names        version -> name of the model there; its own where none is given
    max_waiting  requests under way; more are refused with Busy
    timeout_s    longest silence, also before the first word
    retries      how often a request that got no answer yet is sent again, after 0.5 s, 1 s, 2 s …
    """

    seeded = False  # the seed is sent along, but what comes of it is up to the server

    def __init__(
        self,
        version: str,
        *,
        url: str,
        key: str = "",
        names: Mapping[str, str] | None = None,
        max_waiting: int = 256,
        timeout_s: float = 60,
        retries: int = 2,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._names = dict(names or {})
        self._max_waiting = max_waiting
        self._timeout = httpx.Timeout(timeout_s, connect=min(10, timeout_s))
        self._certificates = httpx.create_ssl_context()  # takes too long to be done for each request
        self._retries = retries
        self._lock = threading.Lock()
        self._tasks: dict[Stream, tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = {}
        self._closed = False
        self._kept: frozenset[str] = frozenset()
        self._current = version
        self._loaded: dict[str, None] = {}
        self._require(version)

    @property
    def version(self) -> str:
        return self._current

    @property
    def versions(self) -> list[str]:
        with self._lock:
            return list(reversed(self._loaded))

    @property
    def alive(self) -> bool:
        return not self._closed  # a server that is down may come back; each request says what it met

    def submit(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        stops: Sequence[str] = (),
        version: str | None = None,
    ) -> Stream:
        stream = Stream(turns, decoding, stops, self._cancel)
        with self._lock:
            if self._closed:
                raise EngineFailed("the engine has stopped")
            if version is not None and version not in self._loaded:
                raise UnknownVersion(version)
            self._forget_closed_loops()
            if len(self._tasks) >= self._max_waiting:
                raise Busy()
            loop = asyncio.get_running_loop()
            stream.version = version or self._current
            self._tasks[stream] = loop, loop.create_task(self._reply(stream))
        return stream

    def load(self, version: str, folder: Path) -> None:
        """As Engine.load; nothing is read from `folder`, the server must have the model already."""
        if version not in self._loaded:
            self._require(version)

    def swap(self, version: str) -> None:
        with self._lock:
            if version not in self._loaded:
                raise UnknownVersion(version)
            before, self._current = self._current, version
            if before != version and before not in self._kept:
                self._loaded.pop(before, None)

    def keep(self, versions: Collection[str]) -> None:
        with self._lock:
            self._kept = frozenset(versions)
            self._loaded = {v: None for v in self._loaded if v == self._current or v in self._kept}

    def close(self) -> None:
        with self._lock:
            self._closed = True
            tasks, self._tasks = self._tasks, {}
        for stream, (loop, task) in tasks.items():
            stream.fail(EngineFailed("the engine has stopped"))
            _call(loop, task)

    def _require(self, version: str) -> None:
        """Ask the server for its models; UserError when it has none of that version's name."""
        name = self._names.get(version, version)
        try:
            answer = httpx.get(f"{self._url}/models", headers=self._headers, timeout=self._timeout)
            answer.raise_for_status()
            known = {str(model["id"]) for model in answer.json()["data"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"serve.engine_url {self._url}: no list of models there for {version} "
                f"({type(error).__name__}); check the address, which ends with /v1, and the key."
            ) from error
        if name not in known:
            raise UserError(
                f"serve.engine_url {self._url}: the server has no model called {name} for {version}; load it "
                "there, or say in serve.engine_models what it is called."
            )
        with self._lock:
            self._loaded[version] = None

    def _cancel(self, stream: Stream) -> None:
        with self._lock:
            found = self._tasks.pop(stream, None)
        if found is not None:
            _call(*found)

    def _forget_closed_loops(self) -> None:
        """Replies whose event loop is closed take no room: nobody writes them any more."""
        self._tasks = {s: found for s, found in self._tasks.items() if not found[0].is_closed()}

    async def _reply(self, stream: Stream) -> None:
        """Write one reply; whatever goes wrong ends this stream and no other."""
        try:
            await self._ask(stream)
        except (Busy, PromptRefused, EngineFailed) as error:
            stream.fail(error)
        except Exception as error:  # a body that is no answer at all
            log.error("the engine's server sent what cannot be read: %s", type(error).__name__)
            stream.fail(EngineFailed(type(error).__name__))
        finally:
            with self._lock:
                self._tasks.pop(stream, None)

    async def _ask(self, stream: Stream) -> None:
        """Send the talk; where the server finds it too long, again without its older half."""
        turns = list(stream.turns)
        while True:
            try:
                return await self._send(stream, self._body(stream, turns))
            except PromptRefused:
                fewer = _without_older_half(turns)
                if len(fewer) == len(turns):
                    raise
                turns = fewer

    async def _send(self, stream: Stream, body: dict[str, Any]) -> None:
        for attempt in range(self._retries + 1):
            if attempt:
                await asyncio.sleep(0.25 * 2**attempt)
            last = attempt == self._retries
            try:
                async with (
                    httpx.AsyncClient(
                        headers=self._headers, timeout=self._timeout, verify=self._certificates
                    ) as client,
                    client.stream("POST", f"{self._url}/chat/completions", json=body) as answer,
                ):
                    if answer.status_code in _TRY_AGAIN and not last:
                        continue
                    await _require_success(answer)
                    await _pass_on(stream, answer.aiter_lines())
                    return
            except httpx.HTTPError as error:
                if last or not isinstance(error, httpx.ConnectError):  # else it may be writing already
                    raise EngineFailed(f"the server at {self._url} failed: {type(error).__name__}") from error

    def _body(self, stream: Stream, turns: Sequence[Turn]) -> dict[str, Any]:
        return {
            "model": self._names.get(stream.version, stream.version),
            "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
            "max_tokens": stream.decoding.max_new_tokens,
            "temperature": stream.decoding.temperature,
            "top_p": stream.decoding.top_p,
            "seed": stream.decoding.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def _without_older_half(turns: list[Turn]) -> list[Turn]:
    """As the other engines forget: the system turn and the last one stay."""
    system = turns[:1] if turns and turns[0].role == "system" else []
    talk = turns[len(system) :]
    rest = talk[(len(talk) + 1) // 2 :] or talk[-1:]
    if len(rest) > 1 and rest[0].role == "assistant":  # the answer to a question that is gone
        rest = rest[1:]
    return [*system, *rest]


async def _require_success(answer: httpx.Response) -> None:
    if answer.status_code == 200:
        return
    if answer.status_code == 429:
        raise Busy()
    try:
        error = json.loads(await answer.aread())["error"]
        words = f"{error.get('code')} {error.get('message')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        words = ""
    if answer.status_code == 400 and any(sign in words for sign in _TOO_LONG):
        raise PromptRefused("the server says that the prompt is too long")
    raise EngineFailed(f"the server answered {answer.status_code}")


async def _pass_on(stream: Stream, lines: AsyncIterator[str]) -> None:
    """Read server-sent events. The tokens are counted by the server's usage; without one, by the pieces."""
    finish: str | None = None
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            break
        event = json.loads(data)
        if event.get("error"):
            raise EngineFailed("the server failed while it wrote")
        usage = event.get("usage") or {}
        stream.prompt_tokens = usage.get("prompt_tokens", stream.prompt_tokens)
        stream.completion_tokens = usage.get("completion_tokens", stream.completion_tokens)
        for choice in event.get("choices") or []:
            text = (choice.get("delta") or {}).get("content") or ""
            finish = choice.get("finish_reason") or finish
            if text:
                stream.completion_tokens += 1
                if stream.write(text, None):
                    return  # a stop string: leaving closes the connection, which ends the writing there
    if finish is None:
        raise EngineFailed("the server's answer broke off")
    stream.write("", "length" if finish == "length" else "stop")


def _call(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:  # the loop is closed, and the task with it
        return
