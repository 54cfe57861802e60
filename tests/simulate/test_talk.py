"""Simulated people against a live HTTP server that speaks the protocol of `bb3x serve`."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from bb3x_ray.config import ChatConfig, ServeConfig, TalkConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.app import create_app
from bb3x_ray.simulate.people import cast
from bb3x_ray.simulate.preference import Exchange, Opinion
from bb3x_ray.simulate.talk import TalkReport, talk
from tests.serve.room import KEY, ListLog, lanes

RECORDED = [[f"talk {i} turn {j} here" for j in range(8)] for i in range(60)]
CONFIG = TalkConfig(helpers=6, trolls=6, noise=0.0, concurrency=5)


class Server:
    """Answers every message; `refuse` holds statuses that the next requests get instead."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.feedback: list[dict[str, Any]] = []
        self.refuse: list[int] = []
        self.open = self.most_open = 0
        self.url = ""

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        def complete(body: dict[str, Any]) -> JSONResponse:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            time.sleep(0.002)
            self.open -= 1
            if self.refuse:
                return JSONResponse({"error": {}}, self.refuse.pop(), headers={"Retry-After": "0"})
            self.asked.append(body)
            number = len(self.asked)
            reply = f"reply {number} to {body['messages'][-1]['content']}"
            choice = {"message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
            return JSONResponse({"id": f"c{number}", "model_version": "v0001", "choices": [choice]})

        @app.post("/v1/feedback")
        def feedback(body: dict[str, Any]) -> dict[str, Any]:
            self.feedback.append(body)
            return {"id": "f"}

        @app.get("/health")
        def health(_: Request) -> dict[str, str]:
            return {"status": "ok"}

        return app


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The app on a free port of this machine, in a thread."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    with running(served.app()) as served.url:
        yield served


def likes_even_numbers(exchanges: list[Exchange]) -> list[Opinion]:
    liked = [int(e.reply.split()[1]) % 2 == 0 for e in exchanges]
    return [Opinion(yes, "" if yes else "polite") for yes in liked]


def run(server: Server, config: TalkConfig = CONFIG, **more: Any) -> TalkReport:
    return talk(server.url, cast(config, RECORDED, ["you fool"], 0), likes_even_numbers, config, **more)


def test_everybody_says_all_they_have_to_say_with_the_whole_history(server: Server) -> None:
    steps: list[tuple[int, int]] = []
    report = run(server, on_progress=lambda done, of: steps.append((done, of)))
    assert report.replies == len(server.asked) == 12 * 3
    assert report.versions == {"v0001": 36} and report.failures == 0
    assert steps[-1] == (36, 36) and len(steps) == 36
    longest = [body for body in server.asked if len(body["messages"]) == 5]
    assert len(longest) == 12
    assert [m["role"] for m in longest[0]["messages"]] == ["user", "assistant"] * 2 + ["user"]
    for body in server.asked:
        assert body["store"] is True and body["metadata"]["simulated"] == "true"
    assert len({b["metadata"]["conversation_id"] for b in server.asked}) == 12
    assert server.most_open <= CONFIG.concurrency


def test_thumbs_are_given_in_the_persons_name_with_a_reason_for_down(server: Server) -> None:
    report = run(server)
    assert report.thumbs_up + report.thumbs_down == len(server.feedback) == 36
    names = {f"c{i + 1}": body["user"] for i, body in enumerate(server.asked)}
    for body in server.feedback:
        assert body["user"] == names[body["completion_id"]]
        assert ("reasons" in body) == (body["rating"] == -1)
        if report.kinds[body["user"]] == "helper":
            assert (body["rating"] == 1) == report.true_likes[body["completion_id"]]
            assert body.get("reasons", ["rude"]) == ["rude"]


def test_the_truth_is_in_the_report_and_never_sent(server: Server) -> None:
    report = run(server)
    assert set(report.kinds) == {body["user"] for body in server.asked}
    assert len(report.true_likes) == 36
    sent = str([{**body, "messages": None} for body in server.asked + server.feedback])
    assert not any(kind in sent for kind in ("helper", "troll", "gaslight", "lazy", "master"))
    assert asdict(report)["versions"] == {"v0001": 36}


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.refuse = [429, 503] * 5
    report = run(server)
    assert report.replies == 36 and report.failures == 0


def test_a_failed_request_ends_its_conversation_and_is_counted(server: Server) -> None:
    server.refuse = [500, 400]
    report = run(server)
    assert report.failures == 2 and report.failed_by == {"HTTP 400": 1, "HTTP 500": 1}
    assert 30 <= report.replies < 36


def test_nothing_but_failures_is_an_error(server: Server) -> None:
    server.refuse = [500] * 12
    with pytest.raises(UserError, match="HTTP 500"):
        run(server)


def test_a_server_that_is_gone_is_one_clear_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=r"no server answers at .* after 0 replies"):
        talk(url, cast(CONFIG, RECORDED, [], 0), likes_even_numbers, CONFIG)


def test_an_error_of_the_opinion_comes_out_as_it_is(server: Server) -> None:
    def broken(exchanges: list[Exchange]) -> list[Opinion]:
        raise UserError("no encoder")

    with pytest.raises(UserError, match="no encoder"):
        talk(server.url, cast(CONFIG, RECORDED, [], 0), broken, CONFIG)
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_they_talk_to_the_real_app_and_its_log_holds_all_of_it(tiny_model: Path) -> None:
    log, chat, serve = ListLog(), ChatConfig(max_new_tokens=6), ServeConfig()
    engine = lanes(tiny_model, "v0007", max_queued=2)
    people = cast(TalkConfig(helpers=3, trolls=3), RECORDED, ["you fool"], 0)
    try:
        with running(create_app(engine, log.append, KEY, chat, serve)) as url:
            report = talk(url, people, lambda exchanges: [Opinion(True, "") for _ in exchanges], CONFIG)
    finally:
        engine.close()
    assert (report.replies, report.failures, report.versions) == (18, 0, {"v0007": 18})
    kinds = Counter(event.kind for event in log.events)
    assert kinds == {"message": 36, "feedback": 18}
    assert all(event.simulated and event.consent_basis == "store" for event in log.events)
    assert {event.message_id for event in log.events if event.kind == "feedback"} == set(report.true_likes)
    # The log has pseudonyms of its own; the report says who is who.
    pairs = {(e.person, report.said_to[e.message_id]) for e in log.events if e.kind == "feedback"}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(people)
