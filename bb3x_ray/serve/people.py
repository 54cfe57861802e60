"""What a person can see and do about what the server keeps of them.

Who asks proves it with any completion, or any comparison, that was written for them: its id is signed for its
person.
"""

import json
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from starlette.concurrency import run_in_threadpool

from bb3x_ray.schemas.event import EVERYTHING, ONE_CONVERSATION, Event
from bb3x_ray.serve.compare import about_comparison
from bb3x_ray.serve.comparison_ids import ComparisonIds
from bb3x_ray.serve.completion_ids import Completion, Signer
from bb3x_ray.serve.durable import AppendEvents, EventsOf, Memories, append_durably, read_events
from bb3x_ray.serve.protocol import ApiError, ConsentRequest, ErasureRequest
from bb3x_ray.serve.safety_replies import FAILURE
from bb3x_ray.serve.turn import SOURCE, TOLD, now_us


class People:
    """One replica's desk for consent, erasure, and what was said."""

    def __init__(
        self,
        signer: Signer,
        append_events: AppendEvents,
        events_of: EventsOf,
        memories: Memories | None = None,
    ) -> None:
        self._signer = signer
        self._comparisons = ComparisonIds(signer)
        self._append_events = append_events
        self._events_of = events_of
        self._memories = memories

    def own(self, completion_id: str, user: str | None, where: str = "completion_id") -> Completion:
        """What a completion id says, if it was written for `user`. Raises ApiError 404 for a foreign one."""
        completion = self._signer.read_completion(completion_id, user)
        if completion is None:
            raise _not_theirs(where)
        return completion

    def proven(self, id: str, user: str | None, where: str = "completion_id") -> Completion:
        """The same of a completion's id or a comparison's: who says so, and of which talk."""
        pair = self._comparisons.read(id, user)
        if pair is None:
            return self.own(id, user, where)
        return Completion(id, pair.conversation_id, pair.person, pair.stored, pair.simulated)

    async def consent(self, request: ConsentRequest) -> str:
        """Log durably that consent was taken back or given again; returns the event id.

        Raises ApiError 404 for a foreign id.
        """
        completion = self.proven(request.completion_id, request.user)
        event = _about(completion, "consent", "store" if request.store else "none")
        if request.scope == "everything":
            event = replace(event, conversation_id=EVERYTHING)
        await append_durably(self._append_events, [event])
        if not request.store:
            about = None if request.scope == "everything" else completion.conversation_id
            await self._forget(completion.person, about)
        return event.event_id

    async def ask_for_erasure(self, request: ErasureRequest) -> str:
        """Log durably that a person wants to be erased; returns the event id.

        The committer finds it, and the run, or the process of `bb3x serve`, carries it out.
        Raises ApiError 404 for a foreign id.
        """
        completion = self.proven(request.completion_id, request.user)
        event = _about(completion, "erasure", "none")
        await append_durably(self._append_events, [event])
        await self._forget(completion.person)
        return event.event_id

    async def forget_conversation(self, completion: Completion, conversation_id: str) -> None:
        """The same of one conversation of the person. Raises ApiError 404 when the log has none like it."""
        events = await read_events(self._events_of, completion.person)
        if all(event.conversation_id != conversation_id for event in events):
            raise _no_conversation()
        event = _about(completion, "erasure", "none")
        event = replace(event, conversation_id=conversation_id, reasons=(ONE_CONVERSATION,))
        await append_durably(self._append_events, [event])
        await self._forget(completion.person, conversation_id)

    async def _forget(self, person: str, conversation_id: str | None = None) -> None:
        """What was remembered of a person, or in one conversation with them, at once."""
        if self._memories is not None:
            await run_in_threadpool(self._memories.forget, person, None, conversation_id)

    async def conversations(self, person: str) -> list[dict[str, Any]]:
        """The person's conversations and comparisons, the newest first, each in the order in which it was
        held."""
        said, compared = defaultdict(list), defaultdict(list)
        for event in await read_events(self._events_of, person):
            if event.kind == "message":
                said[event.conversation_id].append(event)
            elif about := about_comparison(event):
                compared[event.conversation_id].append((event, about))
        # The log's events come in the order of time.
        held = [(events[0].at, _conversation(name, events)) for name, events in said.items()]
        held += [(events[0][0].at, _comparison(name, events)) for name, events in compared.items()]
        return [one for _, one in sorted(held, key=lambda one: (-one[0], one[1]["id"]))]

    async def completion(self, completion: Completion) -> dict[str, Any]:
        """A completion of the past as it was answered, but for its usage; `created` is when it was whole.

        Raises ApiError 404 where it is gone, or its words were not to be kept.
        """
        for event in await read_events(self._events_of, completion.person):
            if (
                event.message_id == completion.completion_id
                and event.kind == "message"
                and event.text is not None
            ):
                return {**_completion(event), "feedback_token": self._signer.feedback_token(completion)}
        raise ApiError(
            404,
            "completion_id: its words are not kept; they are only with `store`, and until they are deleted.",
            param="completion_id",
            code="completion_not_found",
        )


def _about(completion: Completion, kind: Literal["consent", "erasure"], basis: str) -> Event:
    return Event(
        event_id=f"{kind[0]}-{uuid.uuid4().hex}",
        kind=kind,
        at=now_us(),
        conversation_id=completion.conversation_id,
        person=completion.person,
        source=SOURCE,
        consent_basis=basis,
        simulated=completion.simulated,
    )


def _not_theirs(where: str) -> ApiError:
    return ApiError(
        404,
        f"{where}: nothing of this server for this user; send the `user` of it.",
        param=where,
        code="completion_not_found",
    )


def _no_conversation() -> ApiError:
    return ApiError(404, "There is no such conversation of this person.", code="conversation_not_found")


def _completion(event: Event) -> dict[str, Any]:
    """What the log says of a reply of ours, as its client was told it."""
    details = json.loads(event.details or "{}")
    version = event.author_name if event.author_kind == "model" else details.get("model_version")
    reason = details.get(TOLD, event.finish_reason)
    message = {"role": "assistant", "content": event.text}
    answer = {
        "id": event.message_id,
        "object": "chat.completion",
        "created": event.at // 1_000_000,
        "model": version,
        "model_version": version,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": None,
    }
    if event.author_kind == "canned":
        failed = event.author_name == FAILURE
        answer |= {"canned": FAILURE if failed else details.get("safety_kind"), "failed": failed}
    return answer


def _message(event: Event) -> dict[str, Any]:
    return {
        "id": event.message_id,
        "role": "user" if event.author_kind == "person" else "assistant",
        "content": event.text,
        "created": event.at // 1_000_000,
        "model_version": event.author_name if event.author_kind == "model" else None,
    }


def _conversation(conversation_id: str, events: Sequence[Event]) -> dict[str, Any]:
    events = sorted(events, key=lambda event: (event.position or 0, event.at))
    return {
        "id": conversation_id,
        "object": "conversation",
        "created": min(event.at for event in events) // 1_000_000,
        "messages": [_message(event) for event in events],
    }


def _comparison(conversation_id: str, events: Sequence[tuple[Event, dict[str, Any]]]) -> dict[str, Any]:
    """What both were asked, then both replies; whose they are only after the choice, which is to be blind."""
    asked = next(((event, about) for event, about in events if "choice" not in about), None)
    choice = next((about["choice"] for _, about in events if "choice" in about), None)
    event, about = asked or events[0]

    def message(role: str, words: str | None, version: str | None = None) -> dict[str, Any]:
        created = event.at // 1_000_000
        return {
            "id": event.message_id,
            "role": role,
            "content": words,
            "created": created,
            "model_version": version,
        }

    messages = [message(said["role"], said["content"]) for said in about.get("messages", ())]
    for side in ("a", "b") if asked else ():
        version = about[side]["version"] if choice else None
        messages.append(message("assistant", about[side].get("text"), version))
    return {
        "id": conversation_id,
        "object": "comparison",
        "created": event.at // 1_000_000,
        "choice": choice,
        "messages": messages,
    }
