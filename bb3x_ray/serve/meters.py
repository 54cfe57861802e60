"""Counters of one replica, told at /metrics in Prometheus' text. No label says anything about a person."""

import time
from collections import OrderedDict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
COMPLETIONS_REMEMBERED = 20_000
GONE = 499  # the client went away before it was answered


class Meters:
    """replica   what tells this replica's series from the others'"""

    def __init__(self, replica: str) -> None:
        self.registry = CollectorRegistry()
        self._replica = replica
        self._versions: OrderedDict[str, str] = OrderedDict()  # completion id -> which version wrote it

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(name, words, ("replica", *labels), registry=self.registry)

        def histogram(name: str, words: str, *labels: str) -> Histogram:
            return Histogram(name, words, ("replica", *labels), registry=self.registry, buckets=SECONDS)

        self._requests = counter("bb3x_requests", "Requests by route and status", "method", "route", "status")
        self._seconds = histogram("bb3x_request_seconds", "From a request to the end of its answer", "route")
        self._replies = counter("bb3x_replies", "Replies that are durable", "version", "finish_reason")
        self._failures = counter(
            "bb3x_reply_failures", "Turns that failed, those with an apology too", "version"
        )
        self._tokens = counter("bb3x_reply_tokens", "Tokens of these replies", "version")
        self._first = histogram("bb3x_first_token_seconds", "From a request to its first token", "version")
        self._reply_seconds = histogram(
            "bb3x_reply_seconds", "From a request to its durable reply", "version"
        )
        self._thumbs = counter(
            "bb3x_thumbs",
            "Feedback; `earlier` where this replica did not write the reply",
            "version",
            "rating",
        )
        self._under_way = Gauge(
            "bb3x_replies_under_way",
            "Replies that wait for their first token, and that are being written",
            ("replica", "state"),
            registry=self.registry,
        )
        for state in ("waiting", "writing"):
            self._under_way.labels(replica, state)  # so that the series is there from the start

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(self._replica, method, route, str(status)).inc()
        self._seconds.labels(self._replica, route).observe(seconds)

    def reply(
        self, completion_id: str, version: str, finish_reason: str, tokens: int, seconds: float
    ) -> None:
        self._replies.labels(self._replica, version, finish_reason).inc()
        self._tokens.labels(self._replica, version).inc(tokens)
        self._reply_seconds.labels(self._replica, version).observe(seconds)
        self._versions[completion_id] = version
        while len(self._versions) > COMPLETIONS_REMEMBERED:
            self._versions.popitem(last=False)

    def failure(self, version: str) -> None:
        self._failures.labels(self._replica, version).inc()

    def first_token(self, version: str, seconds: float) -> None:
        self._first.labels(self._replica, version).observe(seconds)

    def thumb(self, completion_id: str, rating: int | None) -> None:
        word = {1: "up", -1: "down", None: "taken_back"}[rating]
        self._thumbs.labels(self._replica, self._versions.get(completion_id, "earlier"), word).inc()

    def under_way(self, state: str, change: int) -> None:
        """`state`: waiting or writing."""
        self._under_way.labels(self._replica, state).inc(change)


class Metered:
    """ASGI middleware: counts every request by its route's template, never by the path that was sent."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self.app = app
        self.meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), GONE

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, seen)
        except Exception:
            status = 500 if status == GONE else status
            raise
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.meters.request(method, _route(scope), status, time.monotonic() - began)


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "other"))
