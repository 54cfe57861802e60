"""The HTTP app: chat completions in OpenAI's shape, feedback, models, health, and the page.

POST /v1/chat/completions   POST /v1/feedback   GET /v1/models   GET /health   GET /   GET /page/*
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.api_compare import compare_routes
from bb3x_ray.serve.compare import Compare
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.edge import Edge
from bb3x_ray.serve.engine import Busy, Engine, EngineFailed, PromptRefused
from bb3x_ray.serve.protocol import (
    CHAMPION,
    ApiError,
    ChatRequest,
    ConsentRequest,
    ErasureRequest,
    FeedbackRequest,
    error_body,
    explain,
)
from bb3x_ray.serve.turn import AppendEvents, Chat, ChatTurn

PAGE = Path(__file__).parent / "page"


def create_app(
    engine: Engine,
    append_events: AppendEvents,
    key: bytes,
    chat_config: ChatConfig,
    serve_config: ServeConfig,
) -> FastAPI:
    """The app around an engine and a log.

    append_events   writes a list of events durably or raises; called from threads, many at once
    key             at least 16 secret bytes that all replicas share and keep over restarts
    """
    app = FastAPI(title="bb3x-ray", docs_url=None, redoc_url=None)
    app.add_middleware(Edge, max_body_bytes=serve_config.max_body_bytes)
    chat = Chat(engine, append_events, key, chat_config, serve_config)
    _add_api(app, chat)
    compare = Compare(engine, chat._append, Signer(key), chat_config, serve_config)  # type: ignore[arg-type]
    app.include_router(compare_routes(compare))
    _add_page(app)
    _add_errors(app)
    return app


def _add_api(app: FastAPI, chat: Chat) -> None:
    @app.post("/v1/chat/completions")
    async def complete(request: ChatRequest) -> Response:
        turn = chat.begin(request)
        pieces = turn.deltas()
        try:
            # The first piece is taken before the answer begins, so that a failure still gets its own status.
            first = await anext(pieces, "")
            if request.stream:
                usage = bool(request.stream_options and request.stream_options.include_usage)
                return StreamingResponse(
                    _sse(chat, turn, first, pieces, usage), media_type="text/event-stream"
                )
            async for _ in pieces:
                pass
            await chat.finish(turn)
        except BaseException:
            turn.stream.cancel()  # also when the client went away
            raise
        return JSONResponse(_completion(turn))

    @app.post("/v1/feedback")
    async def feedback(request: FeedbackRequest) -> dict[str, Any]:
        event_id = await chat.feedback(request)
        return {
            "id": event_id,
            "object": "feedback",
            "completion_id": request.completion_id,
            "rating": request.rating,
            "reasons": list(request.checked_reasons()),
        }

    @app.post("/v1/consent")
    async def consent(request: ConsentRequest) -> dict[str, Any]:
        event_id = await chat.consent(request)
        return {"id": event_id, "object": "consent", "store": request.store, "scope": request.scope}

    @app.post("/v1/erasure", status_code=202)
    async def erasure(request: ErasureRequest) -> dict[str, Any]:
        return {"id": await chat.ask_for_erasure(request), "object": "erasure", "status": "accepted"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        names = [CHAMPION, *chat.engine.versions]
        return {"object": "list", "champion": chat.engine.version, "data": [_model(name) for name in names]}

    @app.get("/health")
    async def health() -> Response:
        alive = chat.engine.alive
        body = {"status": "ok" if alive else "failed", "model_version": chat.engine.version}
        return JSONResponse(body, 200 if alive else 503)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        ours = explain(list(error.errors()))
        return JSONResponse(ours.body, ours.status)

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> JSONResponse:
        body = error_body(
            "Too many people are talking to the server; try again shortly.", "rate_limit_error", None, "busy"
        )
        return JSONResponse(body, 429, headers={"Retry-After": str(error.retry_after_s)})

    @app.exception_handler(PromptRefused)
    async def refused(_: Request, error: PromptRefused) -> JSONResponse:
        message = "messages: the system prompt is too long for the model's context."
        return JSONResponse(
            error_body(message, "invalid_request_error", "messages", "context_length_exceeded"), 400
        )

    @app.exception_handler(EngineFailed)
    async def failed(_: Request, error: EngineFailed) -> JSONResponse:
        return JSONResponse(_failure(error), 500)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        words = {
            404: "No such path.",
            405: "This path does not take that method.",
            413: "The body is too large.",
        }
        message = words.get(error.status_code, "The request cannot be answered.")
        return JSONResponse(
            error_body(message, "invalid_request_error"), error.status_code, headers=error.headers
        )

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(_failure(error), 500)


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, ApiError):
        return error.body
    code = "model_failed" if isinstance(error, EngineFailed) else "internal_error"
    return error_body("The server failed to answer; please try again.", "server_error", None, code)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "bb3x-ray"}


def _head(turn: ChatTurn, kind: str) -> dict[str, Any]:
    version = turn.stream.version
    return {
        "id": turn.completion.completion_id,
        "object": kind,
        "created": turn.began_us // 1_000_000,
        "model": version,
        "model_version": version,
    }


def _completion(turn: ChatTurn) -> dict[str, Any]:
    message = {"role": "assistant", "content": turn.reply}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": turn.finish_reason}
    return {**_head(turn, "chat.completion"), "choices": [choice], "usage": turn.usage()}


async def _sse(
    chat: Chat, turn: ChatTurn, first: str, pieces: AsyncIterator[str], usage: bool
) -> AsyncIterator[bytes]:
    """Server-sent events. The chunk with the finish reason comes when the turn is durable, not before."""
    try:
        yield _chunk(turn, {"role": "assistant", "content": ""})
        if first:
            yield _chunk(turn, {"content": first})
        async for piece in pieces:
            if piece:
                yield _chunk(turn, {"content": piece})
        await chat.finish(turn)
        yield _chunk(turn, {}, turn.finish_reason)
        if usage:
            yield _data({**_head(turn, "chat.completion.chunk"), "choices": [], "usage": turn.usage()})
        yield b"data: [DONE]\n\n"
    except (EngineFailed, ApiError) as error:
        yield _data(_failure(error))  # the status was sent long ago: no finish reason and no [DONE] say it
    finally:
        turn.stream.cancel()  # does nothing to a finished one; a client that went away stops its generation


def _chunk(turn: ChatTurn, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _data({**_head(turn, "chat.completion.chunk"), "choices": [choice]})


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
