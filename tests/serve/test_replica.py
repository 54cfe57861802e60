"""What a replica does between requests: a candidate that died beside the champion is taken up again."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bb3x_ray.config import ChatConfig, ModelConfig, ServeConfig
from bb3x_ray.serve import on_ray
from bb3x_ray.serve.engines.continuous import Continuous
from tests.serve.engines.kinds import kill
from tests.serve.room import KEY


class NoLog:
    def append(self, events: list[object]) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def replica(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[on_ray.ChatServer]:
    """v0001 with a canary's v0002, as Serve would start it."""
    monkeypatch.setattr(on_ray.serve, "get_replica_context", lambda: SimpleNamespace(replica_tag="0"))
    wiring = on_ray.Wiring(
        lambda version: (version or "v0001", tiny_model),
        lambda: "v0001",
        lambda _: NoLog(),
        KEY,
        find_arms=lambda: ("v0001", "v0002", 50.0),
    )
    config = ServeConfig(engine="continuous", max_batch=2, max_reply_tokens=16)
    threads = torch.get_num_threads()
    server = on_ray.ChatServer(wiring, config, ChatConfig(), ModelConfig(dtype="float32"))
    yield server
    server._loader.shutdown()
    server._engine.close()
    torch.set_num_threads(threads)


def check_until(replica: on_ray.ChatServer, holds: bool) -> None:
    deadline = time.monotonic() + 30
    while ("v0002" in replica._engine.versions) is not holds:
        assert time.monotonic() < deadline
        replica.check_health()
        time.sleep(0.05)


def test_a_candidate_that_died_is_taken_up_again_after_a_rest(
    replica: on_ray.ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_until(replica, holds=True)
    while replica._held is None:
        time.sleep(0.01)
    assert isinstance(replica._engine, Continuous)
    monkeypatch.setattr(on_ray, "REST_SECONDS", 1.0)
    kill(replica._engine, "v0002")
    check_until(replica, holds=False)
    began = time.monotonic()
    check_until(replica, holds=True)
    assert time.monotonic() - began > 0.8
