"""The real thing: Ray Serve over HTTP with the tiny model, streams, feedback, and a live swap under load."""

import asyncio
import functools
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import httpx
import pytest
from ray.serve.context import _get_global_client

from bb3x_ray.config import ChatConfig, ModelConfig, ServeConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.on_ray import APP, DEPLOYMENT, ServerHandle, Wiring, start

KEY = b"key of this test" * 2
pytestmark = pytest.mark.ray


class LineLog:
    """A replica's log as JSON lines; files beside it tell its process, and that it was closed."""

    def __init__(self, folder: Path, replica: str) -> None:
        self.path = folder / f"{replica}.jsonl"
        self.lock = threading.Lock()
        self.path.with_suffix(".pid").write_text(str(os.getpid()))

    def append(self, events: list[Event]) -> None:
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(event.to_dict()) + "\n" for event in events)

    def close(self) -> None:
        self.path.with_suffix(".closed").touch()


def find_model(folder: Path, version: str | None) -> tuple[str, Path]:
    version = version or (folder / "champion").read_text()
    if not (folder / version).is_dir():
        raise UserError(f"{version} is not published.")
    return version, folder / version


def find_arms(folder: Path) -> tuple[str, str | None, float]:
    candidate = folder / "candidate"
    return (folder / "champion").read_text(), candidate.read_text() if candidate.is_file() else None, 50.0


def logged(folder: Path, names: Collection[str] | None = None) -> list[Event]:
    paths = [path for path in folder.glob("*.jsonl") if names is None or path.stem in names]
    lines = [line for path in paths for line in path.read_text().splitlines()]
    return [Event.from_dict(json.loads(line)) for line in lines]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for version in ("v0001", "v0002"):
        shutil.copytree(tiny_model, folder / version)
    shutil.copytree(tiny_model, folder / "v0003")
    (folder / "v0003" / "model.safetensors").unlink()
    (folder / "champion").write_text("v0001")
    (folder / "log").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(ray_cluster: None, root: Path) -> Iterator[ServerHandle]:
    wiring = Wiring(
        functools.partial(find_model, root),
        (root / "champion").read_text,
        functools.partial(LineLog, root / "log"),
        KEY,
        find_arms=functools.partial(find_arms, root),
    )
    config = ServeConfig(port=free_port(), num_replicas=2, num_cpus=0.1, threads=1, shutdown_seconds=77)
    running = start(wiring, config, ChatConfig(max_new_tokens=24), ModelConfig(dtype="float32"))
    stopped = False
    try:
        yield running
        running.stop()
        stopped = True
        closed, opened = list((root / "log").glob("*.closed")), list((root / "log").glob("*.jsonl"))
        assert len(closed) == 2 and len(opened) >= 1
    finally:
        if not stopped:
            running.stop()


def ask(server: ServerHandle, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "Hello"}], **more}


def test_a_stream_and_its_thumb_are_in_the_log_of_a_replica(server: ServerHandle, root: Path) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        body = ask(server, stream=True, user="ada", store=True)
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert lines[-1] == "[DONE]"
        chunks = [json.loads(line) for line in lines[:-1]]
        thumb = {"completion_id": chunks[0]["id"], "rating": 1, "user": "ada"}
        assert client.post("/v1/feedback", json=thumb).status_code == 200  # by whichever replica
        assert client.get("/v1/models").json()["champion"] == "v0001"
        assert "bb3x-ray" in client.get("/").text
        assert client.get("/page/chat.js").status_code == 200
    question, reply, feedback = sorted(
        (e for e in logged(root / "log") if e.person == Signer(KEY).pseudonym("ada")), key=lambda e: e.at
    )
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert (question.text, reply.text, reply.author_name) == ("Hello", text, "v0001")
    assert feedback.message_id == reply.message_id and feedback.rating == 1


@pytest.mark.parametrize("more", [{}, {"user": "bea"}, {"metadata": {"conversation_id": "tea"}}], ids=str)
def test_a_conversation_is_one_whichever_replica_answers(
    server: ServerHandle, root: Path, more: dict[str, object]
) -> None:
    """Clients resend what was said, and name no conversation; each replica remembers what it served."""
    opening = f"A talk {more}"
    messages = [{"role": "user", "content": opening}]
    answered: set[str] = set()  # replicas
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        while len(answered) < 2 or len(messages) < 12:
            assert len(messages) < 100, "one replica answers everything"
            body = {"messages": messages, "store": True, "max_tokens": 4, **more}
            answer = client.post("/v1/chat/completions", json=body).json()
            reply = answer["choices"][0]["message"]
            messages += [reply, {"role": "user", "content": f"And {len(messages)}?"}]
            answered |= {
                path.stem for path in (root / "log").glob("*.jsonl") if answer["id"] in path.read_text()
            }
    events = logged(root / "log")
    ids = {event.conversation_id for event in events if event.text == opening}
    assert len(ids) == 1
    said = sorted((e for e in events if e.conversation_id in ids), key=lambda e: e.position or 0)
    assert [e.text for e in said] == [message["content"] for message in messages[:-1]]
    assert [e.author_kind for e in said] == ["person", "model"] * (len(said) // 2)
    assert len({event.person for event in said}) == 1


def test_a_replica_that_stops_has_the_time_that_the_config_gives(server: ServerHandle) -> None:
    details = _get_global_client().get_serve_details()
    deployment = details["applications"][APP]["deployments"][DEPLOYMENT]
    assert deployment["deployment_config"]["graceful_shutdown_timeout_s"] == 77


def test_a_live_swap_fails_no_request_and_changes_the_version(server: ServerHandle, root: Path) -> None:
    done, swapped = threading.Event(), threading.Event()
    seen: list[tuple[str, bool]] = []  # version, and whether it was asked after the swap
    failures: list[str] = []

    def talk(stream: bool, name: str) -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            while not done.is_set():
                asked_after = swapped.is_set()
                answer = client.post("/v1/chat/completions", json=ask(server, stream=stream, user=name))
                ended = "[DONE]" in answer.text if stream else "finish_reason" in answer.text
                if answer.status_code != 200 or not ended:
                    failures.append(f"{answer.status_code}")
                    continue
                first = answer.text.split("\n")[0].removeprefix("data: ")
                seen.append((json.loads(first)["model_version"], asked_after))

    people = [threading.Thread(target=talk, args=(i % 2 == 0, f"p{i}")) for i in range(4)]
    for someone in people:
        someone.start()
    try:
        while len(seen) < 10 and not failures:
            done.wait(0.05)
        (root / "champion").write_text("v0002")
        server.swap("v0002", timeout_s=60)
        swapped.set()
        while sum(asked_after for _, asked_after in seen) < 20 and not failures:
            done.wait(0.05)
    finally:
        done.set()
        for someone in people:
            someone.join()
    assert failures == []
    assert seen[0] == ("v0001", False)
    assert {version for version, asked_after in seen if asked_after} == {"v0002"}


def test_a_version_that_cannot_be_loaded_is_refused_and_the_live_one_stays(server: ServerHandle) -> None:
    live = httpx.get(f"{server.url}/health", trust_env=False).json()["model_version"]
    with pytest.raises(UserError, match="holds no weights"):
        server.swap("v0003", timeout_s=60)
    with pytest.raises(UserError, match="v0009 is not published"):
        server.swap("v0009", timeout_s=60)
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=ask(server), trust_env=False, timeout=60)
    assert answer.json()["model_version"] == live


def test_a_client_that_goes_away_stops_its_generation(server: ServerHandle, root: Path) -> None:
    long = ask(server, user="stayer", max_tokens=400, temperature=0)
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        began = time.monotonic()
        usage = client.post("/v1/chat/completions", json=long).json()["usage"]
        took = time.monotonic() - began
        assert usage["completion_tokens"] == 400  # nothing ends it early
        for _ in range(3):
            with client.stream(
                "POST", "/v1/chat/completions", json={**long, "stream": True, "user": "leaver"}
            ) as answer:
                next(answer.iter_lines())
        time.sleep(2 * took)
    assert [e for e in logged(root / "log") if e.person == Signer(KEY).pseudonym("stayer")]
    assert not [e for e in logged(root / "log") if e.person == Signer(KEY).pseudonym("leaver")]


def processes(root: Path) -> dict[str, int]:
    """The process of each replica that ever opened a log, by its log's name."""
    return {path.stem: int(path.read_text()) for path in (root / "log").glob("*.pid")}


def test_a_replica_that_returns_from_death_answers_with_the_champion(
    server: ServerHandle, root: Path
) -> None:
    shutil.copytree(root / "v0001", root / "v0004")
    (root / "champion").write_text("v0004")
    server.swap("v0004", timeout_s=60)
    before = processes(root)
    os.kill(next(iter(before.values())), signal.SIGKILL)
    # Nobody tells the replica that takes its place: it reads the alias itself.
    deadline = time.monotonic() + 180
    answers: list[str] = []
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        while len(answers) < 3:
            assert time.monotonic() < deadline, "no replica answered in the dead one's place"
            client.post("/v1/chat/completions", json=ask(server, max_tokens=2))  # some meet the dead one
            new = set(processes(root)) - set(before)
            answers = [e.author_name for e in logged(root / "log", new) if e.author_kind == "model"]
    assert set(answers) == {"v0004"}
    (root / "champion").write_text("v0001")
    server.swap("v0001", timeout_s=60)  # asks whoever lives by now


def test_a_swap_may_be_asked_for_where_an_event_loop_runs(server: ServerHandle, root: Path) -> None:
    async def notebook() -> None:
        (root / "champion").write_text("v0002")
        server.swap("v0002", timeout_s=60)

    asyncio.run(notebook())
    assert httpx.get(f"{server.url}/v1/models", trust_env=False).json()["champion"] == "v0002"
    with pytest.raises(UserError, match="v0009 is not published"):
        server.swap("v0009", timeout_s=60)


def test_a_canary_s_people_get_the_candidate_until_it_ends(server: ServerHandle, root: Path) -> None:
    """Replicas see the alias by themselves, at their next health check; whom it is for never changes."""
    champion = (root / "champion").read_text()
    candidate = "v0001" if champion == "v0002" else "v0002"
    people = [f"person {number}" for number in range(12)]
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:

        def versions() -> list[str]:
            asked = [client.post("/v1/chat/completions", json=ask(server, user=name)) for name in people]
            return [str(answer.json()["model_version"]) for answer in asked]

        assert set(versions()) == {champion}
        (root / "candidate").write_text(candidate)
        while set(first := versions()) != {champion, candidate} or versions() != first:
            time.sleep(1)  # one of the replicas does not have it yet
        (root / "candidate").unlink()
        while set(versions()) != {champion}:
            time.sleep(1)
