"""The outermost layers of the app: how much may come in and how slowly, who may ask, security headers."""

import asyncio
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bb3x_ray.serve.admission import Access, Admission, Refused, address_of, digest_of, is_local
from bb3x_ray.serve.protocol import ApiError

HEADERS = {
    # 'self' only: no inline script or style, no other host
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32_000
ADMIN = ("/metrics",)
# A browser may rate with the completion's token; it holds no key.
_WITHOUT_KEY = ("/v1/feedback",)
CALLER, HAS_KEY = "bb3x.caller", "bb3x.has_key"  # what Admit leaves in the scope


class StoppedReading(Exception):
    """The client took nothing of its answer for too long."""


class Edge:
    """ASGI middleware.

    max_body_bytes   a larger body ends as 413, however it is sent
    body_seconds     within which a body must be here, else 408
    write_seconds    for which a client may leave a piece of its answer untaken; then it is let go
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, body_seconds: float, write_seconds: float) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.body_seconds = body_seconds
        self.write_seconds = write_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = self._with_headers(self._in_time(send))
        if _too_many_headers(scope):
            error = ApiError(431, "The headers are too large.")
            await answer(error)(scope, receive, send)
            return
        try:
            await self.app(scope, self._counted(receive), send)
        except StoppedReading:
            return  # nobody is there to be told

    def _counted(self, receive: Receive) -> Receive:
        seen = 0
        complete = False
        deadline = time.monotonic() + self.body_seconds

        async def counted() -> Message:
            nonlocal seen, complete
            if complete:  # what comes now is that the client went away
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message: dict[str, Any] = dict(await receive())
            except TimeoutError:
                raise HTTPException(408) from None
            seen += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if seen > self.max_body_bytes:
                # The route that reads the body sees this, and the app answers it in the usual shape.
                raise HTTPException(413)
            return message

        return counted

    def _in_time(self, send: Send) -> Send:
        async def in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self.write_seconds):
                    await send(message)
            except TimeoutError:
                raise StoppedReading from None

        return in_time

    def _with_headers(self, send: Send) -> Send:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        return with_headers


class Admit:
    """ASGI middleware before the API: keys, and each caller's limits."""

    def __init__(self, app: ASGIApp, admission: Admission, access: Access) -> None:
        self.app = app
        self.admission = admission
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path.startswith("/v1/") or path in ADMIN):
            await self.app(scope, receive, send)
            return
        try:
            caller, has_key = self._caller(scope)
            self.admission.enter(caller)
        except ApiError as error:
            await answer(error)(scope, receive, send)
            return
        except Refused as refused:
            await answer(_too_often(refused))(scope, receive, send)
            return
        try:
            scope[CALLER], scope[HAS_KEY] = caller, has_key
            await self.app(scope, receive, send)
        finally:
            self.admission.leave(caller)

    def _caller(self, scope: Scope) -> tuple[str, bool]:
        """(whose limits count, whether they showed a key of ours). Raises ApiError 401.

        A key counts only where it was checked: who could choose one would choose a new one every time.
        """
        client, key = scope.get("client"), _bearer(scope)
        if scope["path"] in ADMIN:
            if key in self.access.admin or (not self.access.admin and is_local(client)):
                return "admin", True
            raise _unknown_key("This call is the admin's: send its key, of which serve.admin_key_env tells.")
        if not self.access.keys:
            return address_of(client), True
        if key in self.access.keys:
            return f"key:{key}", True
        if not key and scope["path"] in _WITHOUT_KEY:
            return address_of(client), False
        raise _unknown_key("Send a key of this server as `Authorization: Bearer KEY`.")


def answer(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, headers=error.headers)


def _bearer(scope: Scope) -> str:
    """SHA-256 of the key that the request came with; "" for none."""
    kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
    return digest_of(key.strip()) if kind.lower() == "bearer" and key.strip() else ""


def _unknown_key(words: str) -> ApiError:
    error = ApiError(401, words, kind="authentication_error", code="invalid_api_key")
    error.headers["WWW-Authenticate"] = "Bearer"
    return error


def _too_often(refused: Refused) -> ApiError:
    words = {
        "requests_per_minute": "Too many requests in a minute",
        "tokens_per_minute": "Too many tokens in a minute",
        "concurrent_requests": "Too many requests at the same time",
    }[refused.limit]
    return ApiError(
        429,
        f"{words}; come again in {refused.retry_after_s} s.",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=refused.retry_after_s,
    )


def _too_many_headers(scope: Scope) -> bool:
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    size += len(scope.get("query_string", b"")) + len(scope.get("path", ""))
    return len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES
