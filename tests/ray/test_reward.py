"""Bot turns scored by Ray Data actors with the embedded encoder."""

from pathlib import Path

import pytest

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.on_ray import score_turns
from bb3x_ray.reward.reward_model import train_reward
from bb3x_ray.reward.trust import Trust
from bb3x_ray.reward.turns import turns_table
from tests.reward.make import conversation, crowd

pytestmark = pytest.mark.ray
CONFIG = RewardConfig(actors=2, num_cpus=0.5)


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    trust = Trust({}, frozenset(), 0.6, {})
    model, _ = train_reward(crowd(20, 0, 4, seed=0), trust, load_encoder(), CONFIG, seed=0)
    model.save(folder)
    return folder


def test_turns_come_back_scored_in_order_and_a_bad_row_is_a_row_with_an_error(
    ray_cluster: None, reward: Path
) -> None:
    talks = [
        conversation(f"c{i:03d}", f"p{i % 3}", "What about it?", "I like my tea.", thumbs={1: 1})
        for i in range(150)
    ]
    rows = turns_table(talks, frozenset({"p0"})).to_pylist()
    rows[70]["reply"] = None
    turns = score_turns(list(reversed(rows)), reward, "minilm", CONFIG, "v0001")

    assert [t.message_id for t in turns] == [row["message_id"] for row in rows]
    assert turns[70].error == "no text" and turns[70].good == 0.5
    assert not any(t.error for i, t in enumerate(turns) if i != 70)
    assert {t.trusted for t in turns[::3]} == {False} and {t.rating for t in turns[::3]} == {None}
    assert turns[1].rating == 1 and turns[1].good > turns[0].good > 0.3
    assert {t.reward_version for t in turns} == {"v0001"}


def test_no_turns_need_no_actor(ray_cluster: None, reward: Path) -> None:
    assert score_turns(turns_table([], frozenset()), reward, "minilm", CONFIG, "v0001") == []
