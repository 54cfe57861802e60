"""Chat completions in OpenAI's shape.

POST /v1/chat/completions   GET and DELETE /v1/chat/completions/{completion_id}
"""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from bb3x_ray.serve.admission import Admission
from bb3x_ray.serve.answers import ERRORS, ChatCompletion, CompletionDeleted
from bb3x_ray.serve.api_people import CompletionId, UserHeader
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.edge import CALLER
from bb3x_ray.serve.engines.protocol import Busy, EngineFailed, PromptRefused
from bb3x_ray.serve.failures import failure_body
from bb3x_ray.serve.meters import Meters
from bb3x_ray.serve.people import People
from bb3x_ray.serve.protocol import ApiError, ChatRequest
from bb3x_ray.serve.safety_replies import FAILURE
from bb3x_ray.serve.turn import Chat, ChatTurn

_EVENT = {
    "type": "object",
    "description": "with `stream`: `data` is a chat.completion.chunk as JSON, the last one [DONE]",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}
_STREAM = {"text/event-stream": {"schema": _EVENT}}


class Writing:
    """One turn on its way to the client, counted: waiting, then writing, then durable and paid for."""

    def __init__(self, chat: Chat, turn: ChatTurn, meters: Meters, admission: Admission, caller: str) -> None:
        self.turn = turn
        self._chat = chat
        self._meters = meters
        self._admission = admission
        self._caller = caller
        self._began = time.monotonic()
        self._state = "waiting"
        meters.under_way("waiting", 1)

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Pieces of the reply; when they end, it is durable. Raises EngineFailed, ApiError."""
        try:
            try:
                async for piece in self.turn.deltas():
                    self._first_came()
                    yield piece
            except (Busy, PromptRefused):
                raise
            except Exception:
                self._meters.failure(self.turn.stream.version)
                await self._chat.failed(self.turn)
                raise
            await self._chat.finish(self.turn)
            self._count()
        finally:
            # Does nothing to a finished one; a client that went away stops its generation.
            self.turn.stream.cancel()
            self._meters.under_way(self._state, -1)
            # All that it took: `usage` is about the reply alone, as clients reckon what they sent and got.
            self._admission.spend(self._caller, self.turn.stream.spent_tokens)

    def _first_came(self) -> None:
        if self._state == "waiting":
            self._meters.under_way("waiting", -1)
            self._meters.under_way("writing", 1)
            self._state = "writing"
            self._meters.first_token(self.turn.stream.version, time.monotonic() - self._began)

    def _count(self) -> None:
        turn = self.turn
        tokens, seconds = turn.usage()["completion_tokens"], time.monotonic() - self._began
        completion_id, version = turn.completion.completion_id, turn.stream.version
        self._meters.reply(completion_id, version, turn.finish_reason, tokens, seconds)
        if turn.stream.canned == FAILURE:
            self._meters.failure(version)


def completion_routes(
    chat: Chat, people: People, signer: Signer, meters: Meters, admission: Admission
) -> APIRouter:
    routes = APIRouter(prefix="/v1/chat/completions", responses=ERRORS)

    @routes.post("", response_model=ChatCompletion, responses={200: {"content": _STREAM}})
    async def complete(request: ChatRequest, http: Request) -> Response:
        begun = await chat.begin(request)
        writing = Writing(chat, begun, meters, admission, http.scope[CALLER])
        turn, pieces = writing.turn, writing.pieces()
        try:
            # The first piece is taken before the answer begins, so that a failure still gets its own status.
            first = await anext(pieces, "")
            token = signer.feedback_token(turn.completion)
            if request.stream:
                usage = bool(request.stream_options and request.stream_options.include_usage)
                body = _sse(turn, token, first, pieces, usage)
                return StreamingResponse(body, media_type="text/event-stream")
            async for _ in pieces:
                pass
        except BaseException:
            await pieces.aclose()  # also when the client went away
            raise
        return JSONResponse(_completion(turn, token))

    @routes.get("/{completion_id}", response_model=ChatCompletion, response_model_exclude_unset=True)
    async def saved(completion_id: CompletionId, user: UserHeader = None) -> dict[str, Any]:
        return await people.completion(people.own(completion_id, user))

    @routes.delete("/{completion_id}", response_model=CompletionDeleted, status_code=202)
    async def delete(completion_id: CompletionId, user: UserHeader = None) -> dict[str, Any]:
        completion = people.own(completion_id, user)
        await people.forget_conversation(completion, completion.conversation_id)
        return {
            "id": completion_id,
            "object": "chat.completion.deleted",
            "deleted": True,
            "conversation_id": completion.conversation_id,
        }

    return routes


def _head(turn: ChatTurn, kind: str) -> dict[str, Any]:
    version = turn.stream.version
    return {
        "id": turn.completion.completion_id,
        "object": kind,
        "created": turn.began_us // 1_000_000,
        "model": version,
        "model_version": version,
    }


def _completion(turn: ChatTurn, token: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": turn.reply}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": turn.finish_reason}
    head = _head(turn, "chat.completion")
    return {**head, "choices": [choice], "usage": turn.usage(), "feedback_token": token, **turn.about()}


async def _sse(
    turn: ChatTurn, token: str, first: str, pieces: AsyncGenerator[str, None], usage: bool
) -> AsyncIterator[bytes]:
    """Server-sent events. The chunk with the finish reason comes when the turn is durable, not before."""
    try:
        yield _chunk(turn, {"role": "assistant", "content": ""})
        if first:
            yield _chunk(turn, {"content": first})
        async for piece in pieces:
            if piece:
                yield _chunk(turn, {"content": piece})
        rated_with = {"feedback_token": token}
        yield _chunk(turn, {}, turn.finish_reason, {**rated_with, **turn.about()})
        if usage:
            head = _head(turn, "chat.completion.chunk")
            yield _data({**head, "choices": [], "usage": turn.usage(), **rated_with})
        yield b"data: [DONE]\n\n"
    except (EngineFailed, ApiError) as error:
        yield _data(failure_body(error))  # the status was sent long ago: no finish reason, no [DONE] say it
    finally:
        await pieces.aclose()  # a client that went away stops its generation


def _chunk(
    turn: ChatTurn,
    delta: dict[str, str],
    finish_reason: str | None = None,
    more: dict[str, Any] | None = None,
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _data({**_head(turn, "chat.completion.chunk"), "choices": [choice], **(more or {})})


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
