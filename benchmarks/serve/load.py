"""People who talk: so many at once, each asking again as soon as the answer is there."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bb3x_ray.data.parts import split_parts
from bb3x_ray.data.readers.chitchat import read_chitchat

Talk = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One request. `why` is empty when the reply came whole; at: seconds on this process's clock."""

    began: float
    seconds: float
    tokens: int
    version: str
    why: str


def talks(count: int) -> list[Talk]:
    """The beginnings of real conversations, the third message being the one to be answered."""
    found = [c.turns[:3] for c in split_parts(read_chitchat(2), 0)["talk"] if len(c.turns) >= 3]
    short = [turns for turns in found if all(0 < len(text) < 200 for text in turns)][:count]
    if len(short) < count:
        raise SystemExit(f"benchmarks.serve: only {len(short)} conversations of that kind")
    roles = ("user", "assistant", "user")
    return [
        [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)] for turns in short
    ]


class Client:
    """One connection to an OpenAI-compatible server, kept open."""

    def __init__(self, port: int, model: str, max_tokens: int) -> None:
        self._model, self._max_tokens = model, max_tokens
        self._wire = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._wire.connect()
        self._wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, talk: Talk, stream: bool = False) -> Answer:
        body: dict[str, Any] = {"model": self._model, "messages": talk, "max_tokens": self._max_tokens}
        body |= {"temperature": 0, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        began = time.monotonic()
        self._wire.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
        )
        answer = self._wire.getresponse()
        text = answer.read().decode()
        seconds = time.monotonic() - began
        if answer.status != 200:
            return Answer(began, seconds, 0, "", f"status {answer.status}")
        tokens, version, finish = _streamed(text) if stream else _whole(text)
        why = "" if finish in ("stop", "length") and tokens else "truncated"
        return Answer(began, seconds, tokens, version, why)

    def close(self) -> None:
        self._wire.close()


def _whole(text: str) -> tuple[int, str, str | None]:
    body = json.loads(text)
    return body["usage"]["completion_tokens"], body["model"], body["choices"][0]["finish_reason"]


def _streamed(text: str) -> tuple[int, str, str | None]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        return 0, "", None
    events = [json.loads(line) for line in lines[:-1]]
    finish = [c["finish_reason"] for e in events for c in e.get("choices", []) if c["finish_reason"]]
    tokens = [e["usage"]["completion_tokens"] for e in events if e.get("usage")]
    return (tokens or [0])[-1], events[0]["model"], (finish or [None])[-1]


def all_together(port: int, model: str, shares: list[list[Talk]], max_tokens: int) -> list[Answer]:
    """One person for each share, who asks about each talk of it in turn."""
    found: list[list[Answer]] = [[] for _ in shares]

    def person(number: int) -> None:
        client = Client(port, model, max_tokens)
        found[number] = [client.ask(talk) for talk in shares[number]]
        client.close()

    _run(person, len(shares))
    return [answer for one in found for answer in one]


class Crowd:
    """People who stream replies without a pause until they are told to stop."""

    def __init__(self, port: int, model: str, people: int, about: list[Talk], max_tokens: int) -> None:
        self.answers: list[Answer] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._person, args=(port, model, number, about, max_tokens))
            for number in range(people)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for(self, answers: int) -> None:
        """Until there are so many more."""
        enough = len(self.answers) + answers
        while len(self.answers) < enough and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.02)

    def stop(self) -> list[Answer]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.answers

    def _person(self, port: int, model: str, number: int, about: list[Talk], max_tokens: int) -> None:
        asked = number
        client = Client(port, model, max_tokens)
        while not self._stop.is_set():
            try:
                self.answers.append(client.ask(about[asked % len(about)], stream=True))
            except (OSError, http.client.HTTPException) as error:  # no answer at all is a failure too
                self.answers.append(Answer(time.monotonic(), 0, 0, "", type(error).__name__))
                client.close()
                client = Client(port, model, max_tokens)
            asked += 1
        client.close()


def _run(person: Callable[[int], None], people: int) -> None:
    threads = [threading.Thread(target=person, args=(number,)) for number in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
