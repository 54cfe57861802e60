"""Thumbs: who may give one, and that a request that is sent again counts once.

With an `Idempotency-Key` the event's id follows from person and key, so that the log itself keeps one row for
it, whichever replica it reaches, before or after a restart. What the first request said is found again in the
replica's memory, else in the log.
"""

import asyncio
import json
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

from bb3x_ray.schemas.event import EVERYTHING, Event
from bb3x_ray.serve.completion_ids import Completion, Signer
from bb3x_ray.serve.durable import AppendEvents, EventsOf, append_durably, read_events
from bb3x_ray.serve.protocol import ApiError, FeedbackRequest
from bb3x_ray.serve.turn import SOURCE, basis, now_us

KEYS_REMEMBERED = 10_000


class FeedbackDesk:
    """Takes feedback of one replica.

    unfinished   whether a completion was begun and is not durable: no feedback on these
    """

    def __init__(
        self,
        signer: Signer,
        append_events: AppendEvents,
        events_of: EventsOf,
        unfinished: Callable[[str], bool],
    ) -> None:
        self._signer = signer
        self._append_events = append_events
        self._events_of = events_of
        self._unfinished = unfinished
        # event id -> digest of the body that it was written for
        self._known: OrderedDict[str, str] = OrderedDict()
        self._under_way: dict[str, asyncio.Lock] = {}

    async def take(self, request: FeedbackRequest, key: str | None) -> str:
        """Log a feedback durably; returns its event id.

        Raises ApiError 404 for a foreign completion, 409 for a key that came with another body.
        """
        completion = self._completion(request)
        if key is None:
            event_id = f"f-{uuid.uuid4().hex}"
            await self._append(completion, request, event_id)
            return event_id
        event_id = f"f-{self._signer.digest('idempotency key', completion.person, key)}"
        # Two that come at once: the second waits, and finds what the first has said.
        alone = self._under_way.setdefault(event_id, asyncio.Lock())
        try:
            async with alone:
                await self._once(completion, request, event_id)
        finally:
            if not alone.locked():
                self._under_way.pop(event_id, None)
        return event_id

    async def _once(self, completion: Completion, request: FeedbackRequest, event_id: str) -> None:
        before = await self._said_before(completion.person, event_id)
        if before is None:
            await self._append(completion, request, event_id)
        elif before != self._digest(request):
            raise ApiError(
                409,
                "Idempotency-Key: it came with another body before; take a new key for a new feedback.",
                code="idempotency_key_reused",
            )
        self._known[event_id] = self._digest(request)
        while len(self._known) > KEYS_REMEMBERED:
            self._known.popitem(last=False)

    async def _said_before(self, person: str, event_id: str) -> str | None:
        if event_id in self._known:
            return self._known[event_id]
        events = await read_events(self._events_of, person)
        found = next((event for event in events if event.event_id == event_id), None)
        return str(json.loads(found.details or "{}").get("body", "")) if found else None

    async def _append(self, completion: Completion, request: FeedbackRequest, event_id: str) -> None:
        if (request.comment or request.correction) and await self._is_withdrawn(completion):
            completion = replace(completion, stored=False)
        event = Event(
            event_id=event_id,
            kind="feedback",
            at=now_us(),
            conversation_id=completion.conversation_id,
            person=completion.person,
            source=SOURCE,
            consent_basis=basis(completion),
            simulated=completion.simulated,
            message_id=completion.completion_id,
            rating=request.rating,
            reasons=request.distinct_reasons(),
            comment=request.comment if completion.stored else "",
            correction=request.correction if completion.stored else "",
            details=json.dumps(self._details(request)),
        )
        await append_durably(self._append_events, [event])

    async def _is_withdrawn(self, completion: Completion) -> bool:
        """Whether the person took consent back since: the id only says what held when the reply was written.
        Raises ApiError 503 where the log cannot be asked: words are not kept on a guess."""
        events = await read_events(self._events_of, completion.person)
        about = (completion.conversation_id, EVERYTHING)
        said = [event for event in events if event.kind == "consent" and event.conversation_id in about]
        return bool(said) and max(said, key=lambda event: event.at).consent_basis in ("", "none")

    def _details(self, request: FeedbackRequest) -> dict[str, Any]:
        sensitive = {} if request.sensitive is None else {"sensitive": request.sensitive}
        return {"client": request.source, "body": self._digest(request), **sensitive}

    def _completion(self, request: FeedbackRequest) -> Completion:
        if request.token is not None:
            completion = self._signer.read_token(request.completion_id, request.token)
        else:
            completion = self._signer.read_completion(request.completion_id, request.user)
        if completion is None or self._unfinished(request.completion_id):
            raise ApiError(
                404,
                "completion_id: no finished completion of this server for this user; send the `user` of the "
                "conversation, or the completion's feedback_token as `token`.",
                param="completion_id",
                code="completion_not_found",
            )
        return completion

    def _digest(self, request: FeedbackRequest) -> str:
        """Of what it says: keyed, for the log keeps it also where it keeps no words."""
        said = request.model_dump_json(exclude={"user", "token"})
        return self._signer.digest("feedback", sha256(said.encode()).hexdigest())
