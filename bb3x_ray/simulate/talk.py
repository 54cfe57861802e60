"""Simulated people talk to a live server over HTTP and press thumbs, as anybody would."""

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from bb3x_ray.config import TalkConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.simulate.people import Said, SimulatedPerson, thumb
from bb3x_ray.simulate.preference import Exchange, Opinion

Opine = Callable[[list[Exchange]], list[Opinion]]
Progress = Callable[[int, int], None]  # (replies so far, replies when all is well)

TIMEOUT_S = 300.0
TRIES = 20
MAX_WAIT_S = 10.0
_GONE = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError)
_BUSY = (429, 503)

# The requirement that failed -> the reason that the feedback form has for it.
_REASONS = {
    "fits": "off_topic",
    "answers": "off_topic",
    "shares": "off_topic",
    "complete": "nonsensical",
    "consistent": "nonsensical",
    "polite": "rude",
}


@dataclass(slots=True)
class TalkReport:
    """What happened, and the truth about it, which nobody who learns may see.

    versions     model_version -> replies by it
    failures     conversations that ended early; failed_by: what went wrong -> how often ("HTTP 500", or an
                 exception's name)
    kinds        person -> kind
    said_to      completion_id -> person: the server may log another pseudonym than the name it was given, so
                 the kind of a person in the log is found by one of their replies
    true_likes   completion_id -> whether somebody who makes no mistake likes the reply
    """

    replies: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    failed_by: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    said_to: dict[str, str] = field(default_factory=dict)
    true_likes: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0


def talk(
    url: str,
    people: Sequence[SimulatedPerson],
    opinion: Opine,
    config: TalkConfig,
    on_progress: Progress = lambda done, of: None,
) -> TalkReport:
    """Everybody has their conversations, `config.concurrency` at a time. Blocks until all are done.

    on_progress   called after every reply: how many so far, of how many when all goes well

    A failed request ends its conversation and is counted. Raises UserError when the server is gone, or
    when nothing but failures came back.
    """
    began = time.monotonic()
    report = TalkReport(kinds={person.name: person.kind for person in people})
    asyncio.run(_Party(url, opinion, config, report, on_progress).run(people))
    report.seconds = time.monotonic() - began
    if report.failures and not report.replies:
        why = ", ".join(f"{times} × {kind}" for kind, times in report.failed_by.items())
        raise UserError(f"the server at {url} gave no reply ({why}): see its log.")
    return report


class _Failed(Exception):
    """A request that cannot be answered; its conversation ends."""


class _Gone(Exception):
    """Nobody listens any more."""


class _Party:
    def __init__(
        self,
        url: str,
        opinion: Opine,
        config: TalkConfig,
        report: TalkReport,
        on_progress: Progress,
    ) -> None:
        self._url, self._opinion, self._config = url.rstrip("/"), opinion, config
        self._report, self._on_progress = report, on_progress
        self._expected = 0
        self._slots = asyncio.Semaphore(config.concurrency)
        self._judging = asyncio.Lock()  # one thread for opinions: embedding on all cores already

    async def run(self, people: Sequence[SimulatedPerson]) -> None:
        self._expected = sum(len(lines) for person in people for lines in person.talks)
        limits = httpx.Limits(max_connections=self._config.concurrency)
        # trust_env off: a proxy of the machine has no part in talking to one's own server
        async with httpx.AsyncClient(
            base_url=self._url, timeout=TIMEOUT_S, limits=limits, trust_env=False
        ) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for person in people:
                        group.create_task(self._person(client, person))
            except ExceptionGroup as group:
                first = group.exceptions[0]  # the rest were cancelled, or failed alike
                raise self._gone() if isinstance(first, _Gone) else first from None

    def _gone(self) -> UserError:
        return UserError(
            f"no server answers at {self._url} after {self._report.replies} replies: start it again, and "
            "run the same command."
        )

    async def _person(self, client: httpx.AsyncClient, person: SimulatedPerson) -> None:
        rng = random.Random(person.seed)
        for lines in person.talks:
            async with self._slots:
                try:
                    await self._conversation(client, person, lines, rng)
                except _Failed as failed:
                    self._report.failures += 1
                    _count(self._report.failed_by, str(failed))

    async def _conversation(
        self,
        client: httpx.AsyncClient,
        person: SimulatedPerson,
        lines: Sequence[Said],
        rng: random.Random,
    ) -> None:
        metadata = {"conversation_id": f"sim-{uuid.uuid4().hex}", "simulated": "true"}
        history: list[dict[str, str]] = []
        for said in lines:
            history.append({"role": "user", "content": said.text})
            body = {"messages": history, "user": person.name, "store": True, "metadata": metadata}
            completion = await self._post(client, "/v1/chat/completions", body)
            choice = completion["choices"][0]
            reply = choice["message"]["content"]
            self._report.replies += 1
            _count(self._report.versions, completion["model_version"])
            context = tuple(message["content"] for message in history)
            cut_off = choice["finish_reason"] == "length"
            exchange = Exchange(context, reply, adversarial=said.adversarial, cut_off=cut_off)
            await self._react(client, person, completion["id"], exchange, rng)
            history.append({"role": "assistant", "content": reply})
            self._on_progress(self._report.replies, self._expected)

    async def _react(
        self,
        client: httpx.AsyncClient,
        person: SimulatedPerson,
        completion_id: str,
        exchange: Exchange,
        rng: random.Random,
    ) -> None:
        """Form an opinion, and press a thumb by one's habit."""
        async with self._judging:
            [opinion] = await asyncio.to_thread(self._opinion, [exchange])
        self._report.true_likes[completion_id] = opinion.likes
        self._report.said_to[completion_id] = person.name
        pressed = thumb(person, opinion.likes, self._config, rng)
        if pressed is None:
            return
        body: dict[str, Any] = {"completion_id": completion_id, "rating": pressed.rating, "user": person.name}
        if pressed.rating < 0:
            body["reasons"] = [_REASONS.get(opinion.reason, "other")]
        await self._post(client, "/v1/feedback", body)
        if pressed.rating > 0:
            self._report.thumbs_up += 1
        else:
            self._report.thumbs_down += 1

    async def _post(self, client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer. Waits when the server is busy. Raises _Failed or _Gone."""
        for attempt in range(TRIES):
            try:
                response = await client.post(path, json=body)
            except _GONE as error:
                if not await self._alive(client):
                    raise _Gone from None
                raise _Failed(type(error).__name__) from None
            except httpx.TransportError as error:
                raise _Failed(type(error).__name__) from None
            if response.status_code not in _BUSY:
                break
            await asyncio.sleep(_wait(response, attempt))
        if response.status_code != 200:
            raise _Failed(f"HTTP {response.status_code}")
        answer: dict[str, Any] = response.json()
        return answer

    async def _alive(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get("/health", timeout=10)).status_code < 600
        except httpx.TransportError:
            return False


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _wait(response: httpx.Response, attempt: int) -> float:
    """Seconds to wait: what the server asks for, else ever longer."""
    asked = response.headers.get("retry-after", "")
    return min(MAX_WAIT_S, float(asked) if asked.isdigit() else 0.25 * 2**attempt)
