"""A view through Ray Data: the same examples as without, whichever task read them."""

from pathlib import Path

import pytest

from bb3x_ray.data.on_ray.views import view_dataset
from bb3x_ray.data.views import VIEWS, read_view
from bb3x_ray.storage import Storage
from tests.data.make import commit
from tests.data.release import conversations, events_of

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    storage = Storage(tmp_path_factory.mktemp("released") / "store")
    events = [event for record in conversations(120) for event in events_of(record)]
    for begin in range(0, len(events), 200):  # conversations cross files
        commit(storage, *events[begin : begin + 200])
    return storage


@pytest.mark.parametrize(
    ("name", "split", "with_turns"), [("bot", None, False), ("human-standard", "train", True)]
)
def test_tasks_make_the_examples_of_the_view(
    ray_cluster: None, released: Storage, name: str, split: str | None, with_turns: bool
) -> None:
    view = VIEWS[name]
    expected = [r for t in read_view(released, view, split, with_turns=with_turns) for r in t.to_pylist()]
    dataset = view_dataset(released, view, split, with_turns=with_turns, shard_rows=100)
    found = dataset.take_all()
    assert len(expected) > 20
    assert sorted(found, key=_place) == sorted(expected, key=_place)


def test_an_empty_log_is_an_empty_dataset(ray_cluster: None, tmp_path: Path) -> None:
    assert view_dataset(Storage(tmp_path / "empty"), VIEWS["bot"]).take_all() == []


def _place(row: dict[str, object]) -> tuple[object, object]:
    return row["conversation_id"], row["position"]
