"""Fixtures of this room's tests."""

from collections.abc import Iterator

import pytest

from tests.seaweed import Seaweed, running_store


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real object store; tests keep apart by path."""
    with running_store(tmp_path_factory.mktemp("seaweed")) as store:
        yield store
