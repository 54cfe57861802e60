"""What a replica opens for its turns, and what is told before one starts."""

import pickle
from pathlib import Path

import pytest

from bb3x_ray.config import Config
from bb3x_ray.rounds.turn_parts import prepare_parts, search_of
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.local_search import LocalSearch
from bb3x_ray.serve.memory import MEMORY, Memories
from bb3x_ray.serve.search import SearchServer
from bb3x_ray.storage import Storage


def config(**modules: object) -> Config:
    return Config.model_validate({"modules": modules})


def test_parts_are_opened_where_they_are_sent(storage: Storage) -> None:
    Memories(storage.path(MEMORY)).add("ada", "I like tea.", "person", 1)
    prepared = prepare_parts(storage, config(enabled=True, max_memories=7), print)
    parts = pickle.loads(pickle.dumps(prepared))()
    assert parts.modules is not None and parts.safety is None and parts.arm is None
    assert [m.text for m in parts.memories.of("ada")] == ["I like tea."]


def test_memories_can_be_seen_and_forgotten_where_modules_are_off(storage: Storage) -> None:
    parts = prepare_parts(storage, Config(), print)()
    assert parts.modules is None and parts.memories is not None
    assert not storage.path(MEMORY).exists()


def test_a_search_that_cannot_work_is_told_before_a_replica_starts(storage: Storage, tmp_path: Path) -> None:
    for modules, told in (
        ({"enabled": True, "documents": str(tmp_path / "none")}, "there is no folder"),
        ({"enabled": True, "search_server": "localhost:8080"}, "http://"),
    ):
        with pytest.raises(UserError, match=told):
            prepare_parts(storage, config(**modules), print)


def test_the_search_that_the_config_names() -> None:
    assert isinstance(search_of(config().modules), LocalSearch)
    assert isinstance(search_of(config(search_server="http://x").modules), SearchServer)
    assert search_of(config(search="never", search_server="http://x").modules) is None
