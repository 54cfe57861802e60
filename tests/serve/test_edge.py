"""What hostile clients send, over real sockets: never a 5xx, and the next request is answered."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bb3x_ray.config import ChatConfig
from bb3x_ray.serve.admission import Access, digest_of
from bb3x_ray.serve.edge import Edge
from tests.serve.room import history, room
from tests.serve.served import Served, served

CHAT = "/v1/chat/completions"
HELLO = {"messages": history("Hello")}
GOOD = json.dumps(HELLO)


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("edge")
    with served(tiny_model, root, body_seconds=4, max_body_bytes=50_000) as running:
        yield running


def raw(server: Served, data: bytes, more: bytes = b"") -> bytes:
    """The answer to bytes as they are; `more` is sent when the server has not answered the first."""
    with socket.create_connection(server.address, timeout=300) as connection:
        connection.sendall(data)
        if more:
            connection.sendall(more)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
            if b"\r\n\r\n" in answer and _is_whole(answer):
                break
        return answer


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return body.endswith(b"0\r\n\r\n")


def request(body: bytes, *headers: str, method: str = "POST", path: str = CHAT, length: int = -1) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: here", *headers]
    lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


JSON_HEADER = "Content-Type: application/json"
DEEP = 40_000
BODIES: list[bytes] = [
    b"[" * DEEP,
    b"[" * DEEP + b"]" * (DEEP // 5),
    b'{"messages":' * 3000 + b"1" + b"}" * 3000,
    b'{"metadata": ' + b"[" * 9000 + b"]" * 9000 + b', "messages": [{"role": "user", "content": "x"}]}',
    GOOD[:-1].encode() + b', "seed": ' + b"9" * 40_000 + b"}",
    GOOD[:-1].encode() + b', "temperature": 1e999}',
    GOOD[:-1].encode() + b', "temperature": NaN}',
    GOOD[:-1].encode() + b', "max_tokens": NaN}',
    GOOD[:-1].encode() + b', "max_tokens": Infinity}',
    GOOD[:-1].encode() + b', "seed": -Infinity}',
    GOOD[:-1].encode() + b', "top_p": -0.0}',
    GOOD[:-1].encode() + b', "messages": 5, "messages": null}',
    GOOD[:-1].encode() + b', "stop": [null]}',
    GOOD[:-1].encode() + b', "stream": "perhaps"}',
    GOOD[:-1].encode() + b', "stream_options": []}',
    GOOD[:-1].encode() + b', "metadata": {"conversation_id": "a\\u0000b"}}',
    GOOD[:-1].encode() + b', "metadata": {"conversation_id": "a\\n"}}',
    b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    b'{"messages": [{"role": "user", "content": "caf\xe9"}]}',
    b"\xef\xbb\xbf",
    b"\x00" * 1000,
    b"",
    b"null",
    b"{}" * 100,
    b'{"messages": [' + b'{"role": "user", "content": "x"},' * 900 + b"]}",
]


@pytest.mark.parametrize("number", range(len(BODIES)))
@pytest.mark.parametrize("path", [CHAT, "/v1/feedback"])
def test_no_body_is_more_than_a_bad_request(server: Served, number: int, path: str) -> None:
    answer = raw(server, request(BODIES[number], JSON_HEADER, path=path))
    assert status(answer) == 400, answer
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert b"content-security-policy" in answer.lower()


def test_odd_but_allowed(server: Served) -> None:
    """Of a key that stands twice the last counts; null characters are text; so is half a character."""
    for more in (
        b', "user": "\\ud800", "stop": "\\udfff"}',
        b', "max_tokens": 1e30}',
        b', "max_tokens": 1e18}',
    ):
        assert status(raw(server, request(GOOD[:-1].encode() + more, JSON_HEADER))) in (200, 400)
    assert status(raw(server, request(GOOD.encode("utf-16"), JSON_HEADER))) in (200, 400)
    body = b'{"messages": [{"role": "user", "content": "a"}], "n": 7, "n": 1, "user": "\\u0000"}'
    assert status(raw(server, request(body, JSON_HEADER))) == 200
    body = b'{"messages": [{"role": "user", "content": "a\\u0000\\u202e\\ufffe b"}], "store": true}'
    assert status(raw(server, request(body, JSON_HEADER))) == 200


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "x", "/",
     "", "application/json; charset=utf-16", "application/json; charset=nothing"],
)  # fmt: skip
def test_other_content_types_are_refused_or_read_as_json(server: Served, kind: str) -> None:
    answer = raw(server, request(GOOD.encode(), f"Content-Type: {kind}"))
    assert status(answer) == (200 if kind.startswith("application/json") else 400), answer


def test_header_floods_and_long_paths(server: Served) -> None:
    many = [f"X-{number}: 1" for number in range(150)]
    assert status(raw(server, request(GOOD.encode(), JSON_HEADER, *many))) in (400, 431)
    assert status(raw(server, request(GOOD.encode(), JSON_HEADER, "X-Long: " + "x" * 40_000))) in (400, 431)
    assert status(raw(server, request(b"", method="GET", path="/v1/models/" + "x" * 40_000))) in (400, 431)
    assert status(raw(server, request(b"", method="GET", path="/v1/models/" + "x" * 500))) == 400
    assert status(raw(server, request(b"", method="BREW", path="/v1/models"))) in (400, 405)
    odd = request(b"", "bb3x-user: \xff\xfe%ff%", "bb3x-proof: \xff", method="GET", path="/v1/conversations")
    assert status(raw(server, odd)) == 404
    for path in ("/v1/chat/completions/%00", "/v1/chat/completions/%ff%fe", "/%2e%2e/%2e%2e/etc/passwd",
                 "/page/..%2f..%2fturn.py", "/page/%00", "//", "/v1/models/%F0%9F"):  # fmt: skip
        assert status(raw(server, request(b"", method="GET", path=path))) in (400, 404), path


def test_a_body_that_comes_too_slowly_is_given_up(server: Served) -> None:
    answer = raw(server, request(GOOD.encode()[:10], JSON_HEADER, length=5000))
    assert status(answer) == 408
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"] == "The body came too slowly."


def test_a_body_that_breaks_off_harms_nobody(server: Served) -> None:
    for _ in range(5):
        with socket.create_connection(server.address) as connection:
            connection.sendall(request(GOOD.encode()[:10], JSON_HEADER, length=5000))
    assert httpx.get(f"{server.url}/health", trust_env=False, timeout=300).status_code == 200


def test_a_stream_that_is_cut_off_by_its_client_ends(server: Served) -> None:
    body = json.dumps({**HELLO, "stream": True, "max_tokens": 500, "temperature": 0}).encode()
    for _ in range(4):
        with socket.create_connection(server.address) as connection:
            connection.sendall(request(body, JSON_HEADER))
            connection.recv(10)
    _until_idle(server)


def _until_idle(server: Served) -> None:
    deadline = time.monotonic() + 600
    while not all(lane.idle for lane in server.engine._lanes.values()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_who_stops_reading_is_let_go_and_the_generation_ends(tiny_model: Path) -> None:
    """A socket takes as much as its buffers hold, so the client is played here: it takes no second piece."""

    async def talk() -> None:
        async with room(tiny_model, chat=ChatConfig(max_new_tokens=500), write_seconds=0.05) as r:
            app = r.client._transport.app  # type: ignore[attr-defined]
            sent: list[Any] = []
            asked = json.dumps({**HELLO, "stream": True, "temperature": 0}).encode()
            bodies = [asked]

            async def receive() -> Any:
                if bodies:
                    return {"type": "http.request", "body": bodies.pop(), "more_body": False}
                return await asyncio.Event().wait()

            async def send(message: Any) -> None:
                sent.append(message)
                if len(sent) > 1:
                    await asyncio.Event().wait()

            scope = {
                "type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(),
                "query_string": b"",
                "headers": [(b"content-type", b"application/json"), (b"host", b"room")],
                "client": ("127.0.0.1", 1), "server": ("room", 80), "scheme": "http",
                "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "root_path": "",
            }  # fmt: skip
            await app(scope, receive, send)
            assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
            while not all(lane.idle for lane in r.engine._lanes.values()):
                await asyncio.sleep(0.01)
            assert r.log.events == []
            # The counter falls when the loop closes the stream that was left, a moment later.
            while 'state="writing"} 0.0' not in (await r.client.get("/metrics")).text:
                await asyncio.sleep(0.01)

    asyncio.run(talk())


def test_limits_of_one_caller_are_429_with_retry_after(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model, requests_per_minute=3) as r:
            answers = [await r.client.get("/v1/models") for _ in range(5)]
            assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
            assert int(answers[-1].headers["retry-after"]) > 0
            error = answers[-1].json()["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert (await r.client.get("/health")).status_code == 200
        async with room(tiny_model, tokens_per_minute=10) as r:
            assert [(await r.chat("Hello there")).status_code for _ in range(2)] == [200, 429]
        async with room(tiny_model, concurrent_requests=2) as r:
            answers = await asyncio.gather(*(r.chat("Hello", max_tokens=30) for _ in range(6)))
            assert sorted({answer.status_code for answer in answers}) == [200, 429]
            assert (await r.chat("Hello")).status_code == 200

    asyncio.run(talk())


def test_keys(tiny_model: Path) -> None:
    key, admin = "k" * 20, "a" * 20
    access = Access(frozenset([digest_of(key)]), frozenset([digest_of(admin)]))

    async def talk() -> None:
        async with room(tiny_model, around={"access": access}, requests_per_minute=20) as r:
            for sent in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {key}"},
                         {"Authorization": f"Bearer {admin}"}):  # fmt: skip
                answer = await r.client.post(CHAT, json=HELLO, headers=sent)
                assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
            mine = await r.client.post(CHAT, json=HELLO, headers={"Authorization": f"Bearer {key}"})
            assert mine.status_code == 200
            body = {"completion_id": mine.json()["id"], "rating": 1}
            assert (await r.client.post("/v1/feedback", json=body)).status_code == 401
            body["token"] = mine.json()["feedback_token"]
            assert (await r.client.post("/v1/feedback", json=body)).status_code == 200, "a browser may"
            for sent in ({}, {"Authorization": f"Bearer {key}"}):
                assert (await r.client.get("/metrics", headers=sent)).status_code == 401
            assert (await r.client.get("/metrics", headers={"Authorization": f"Bearer {admin}"})).is_success
            assert (await r.client.get("/health")).is_success and (await r.client.get("/")).is_success

    asyncio.run(talk())


def test_other_sites_pages_are_let_in_only_where_they_are_named(tiny_model: Path) -> None:
    asks = {"Origin": "https://a.org", "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,idempotency-key"}  # fmt: skip

    async def talk() -> None:
        async with room(tiny_model) as r:
            assert (await r.client.options(CHAT, headers=asks)).status_code == 405
        async with room(tiny_model, cors_origins=("https://a.org",), requests_per_minute=1) as r:
            asked = await r.client.options(CHAT, headers=asks)
            assert (
                asked.status_code == 200 and asked.headers["access-control-allow-origin"] == "https://a.org"
            )
            for expected in (200, 429):
                got = await r.client.get("/v1/models", headers={"Origin": "https://a.org"})
                assert got.status_code == expected
                assert got.headers["access-control-allow-origin"] == "https://a.org"
            other = await r.client.get("/health", headers={"Origin": "https://b.org"})
            assert "access-control-allow-origin" not in other.headers

    asyncio.run(talk())


def test_version_and_metrics(tiny_model: Path) -> None:
    async def talk() -> None:
        async with room(tiny_model, around={"candidate": lambda: "v0002"}) as r:
            got = (await r.client.get("/version")).json()
            assert (got["model_version"], got["candidate"]) == ("v0001", "v0002") and got["version"]
            mine = (await r.chat("Hello", user="ada-hidden")).json()
            await r.feedback(mine["id"], -1, user="ada-hidden")
            await r.feedback("hidden-id", 1)
            await r.client.get("/hidden-path")
            await r.client.request("HIDDEN", "/health")
            lines = (await r.client.get("/metrics")).text.splitlines()
            told = {
                line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"
            }
            at = 'bb3x_requests_total{method="%s",replica="0",route="%s",status="%s"}'
            assert told[at % ("POST", CHAT, 200)] == 1
            assert told[at % ("POST", "/v1/feedback", 200)] == told[at % ("POST", "/v1/feedback", 404)] == 1
            assert told[at % ("GET", "other", 404)] == 1 and told[at % ("other", "/health", 405)] == 1
            assert told['bb3x_thumbs_total{rating="down",replica="0",version="v0001"}'] == 1
            assert (
                told['bb3x_reply_tokens_total{replica="0",version="v0001"}']
                == (mine["usage"]["completion_tokens"])
            )
            assert told['bb3x_replies_under_way{replica="0",state="waiting"}'] == 0
            assert told['bb3x_first_token_seconds_count{replica="0",version="v0001"}'] == 1
            assert "hidden" not in "".join(lines)

    asyncio.run(talk())


def test_edge_lets_other_protocols_through() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(Edge(app, 1, 1, 1)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
