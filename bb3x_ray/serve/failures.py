"""Every way in which a request can fail, in OpenAI's error shape. Nothing that was sent is repeated."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from bb3x_ray.serve.engines.protocol import Busy, EngineFailed, PromptRefused
from bb3x_ray.serve.protocol import ApiError, error_body, explain

_WORDS = {
    400: "The body is not valid JSON.",
    404: "No such path.",
    405: "This path does not take that method.",
    408: "The body came too slowly.",
    413: "The body is too large.",
}


def add_failures(app: FastAPI) -> None:
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
        return JSONResponse(failure_body(error), 500)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        message = _WORDS.get(error.status_code, "The request cannot be answered.")
        return JSONResponse(
            error_body(message, "invalid_request_error"), error.status_code, headers=error.headers
        )

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(failure_body(error), 500)


def failure_body(error: Exception) -> dict[str, Any]:
    """What a stream ends with that was begun already, too."""
    if isinstance(error, ApiError):
        return error.body
    code = "model_failed" if isinstance(error, EngineFailed) else "internal_error"
    return error_body("The server failed to answer; please try again.", "server_error", None, code)
