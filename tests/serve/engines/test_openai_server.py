"""Somebody else's server: what it may say, and what of that a person meets."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.openai_server import OpenAIServer
from bb3x_ray.serve.engines.protocol import Busy, EngineFailed, PromptRefused
from tests.serve.engines.kinds import HELLO, read

FEW = Decoding(5, temperature=0)
SAID = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": "Good "}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": "day"}, "finish_reason": None}]},
    {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}},
]


class Scripted:
    """A server that answers the n-th request with the n-th of its answers, and the last one ever after."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def next(self, body: dict[str, Any], key: str | None) -> tuple[int, Any]:
        self.asked.append(body)
        self.keys.append(key)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


@contextlib.contextmanager
def running(script: Scripted, **options: Any) -> Iterator[OpenAIServer]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

        def do_GET(self) -> None:
            self.say(200, json.dumps({"data": [{"id": "theirs"}, {"id": "v0002"}]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = script.next(body, self.headers["authorization"])
            if isinstance(answer, list):
                lines = [event if isinstance(event, str) else json.dumps(event) for event in answer]
                answer = "".join(f"data: {line}\n\n" for line in lines)
            self.say(status, answer if isinstance(answer, str) else json.dumps(answer))

        def say(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        engine = OpenAIServer("v0001", **{"url": url, "names": {"v0001": "theirs"}, **options})
        try:
            yield engine
        finally:
            engine.close()
            http.shutdown()
            thread.join()


def reply(script: Scripted, turns: list[Turn] = HELLO, **options: Any) -> tuple[str, str, str]:
    async def talk(engine: OpenAIServer) -> tuple[str, str, str]:
        stream = engine.submit(turns, FEW)
        told = await read(stream)
        assert (stream.prompt_tokens, stream.completion_tokens) == (11, 3)
        return told

    with running(script, **options) as engine:
        return asyncio.run(talk(engine))


def test_a_version_is_a_model_of_theirs_and_the_key_goes_along() -> None:
    script = Scripted((200, [*SAID, "[DONE]"]))
    assert reply(script, key="secret") == ("Good day", "stop", "v0001")
    assert script.keys == ["Bearer secret"]
    sent = script.asked[0]
    assert sent["model"] == "theirs" and sent["messages"] == [{"role": "user", "content": "Hello"}]
    assert (sent["max_tokens"], sent["temperature"], sent["stream"]) == (5, 0, True)


def test_a_server_that_is_short_of_room_is_asked_again_and_then_busy() -> None:
    script = Scripted((503, ""), (429, ""), (200, [*SAID, "[DONE]"]))
    assert reply(script)[0] == "Good day"
    with pytest.raises(Busy):
        reply(Scripted((429, "")), retries=0)


@pytest.mark.parametrize(
    "answer",
    [
        (500, ""),
        (200, SAID[:2]),  # breaks off
        (200, ["no JSON"]),
        (200, [SAID[1], {"error": {"message": "out of memory"}}]),
        (401, {"error": {"message": "no such key", "code": "invalid_api_key"}}),
    ],
)
def test_what_is_no_reply_is_a_failure_of_the_engine(answer: tuple[int, Any]) -> None:
    with pytest.raises(EngineFailed):
        reply(Scripted(answer), retries=0)


def test_a_talk_that_is_too_long_is_sent_again_without_its_older_half() -> None:
    too_long = (400, {"error": {"message": "maximum context length is 8 tokens", "code": 400}})
    script = Scripted(too_long, too_long, (200, [*SAID, "[DONE]"]))
    turns = [Turn("system", "be kind"), *(Turn(("user", "assistant")[i % 2], f"m{i}") for i in range(9))]
    assert reply(script, turns)[0] == "Good day"
    sent = [[message["content"] for message in body["messages"]] for body in script.asked]
    assert sent[1] == ["be kind", "m6", "m7", "m8"] and sent[2] == ["be kind", "m8"]
    with pytest.raises(PromptRefused):
        reply(Scripted(too_long), turns)


def test_a_server_that_is_not_there_or_lacks_the_model_is_refused_with_its_cure() -> None:
    with pytest.raises(UserError, match=r"serve\.engine_url http://127\.0\.0\.1:9/v1: no list of models"):
        OpenAIServer("v0001", url="http://127.0.0.1:9/v1")
    with running(Scripted()) as engine:
        with pytest.raises(UserError, match=r"no model called v0003 .* serve\.engine_models"):
            engine.load("v0003", None)  # type: ignore[arg-type]
        engine.load("v0002", None)  # type: ignore[arg-type]
        engine.swap("v0002")
        assert engine.versions == ["v0002"]
