"""The reward model learns on Ray Train: real workers that share the texts, or the whole training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pair_model import load_pair_model
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.on_ray import train_on_ray
from bb3x_ray.reward.reward_model import train_reward
from bb3x_ray.schemas.errors import UserError
from tests.reward.make import crowd, examples

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
PAIRS = [Pair("What about it?", "I like my garden."), Pair("What about it?", "One can buy a garden anywhere")]


def test_two_workers_learn_what_one_process_does(ray_cluster: None, tmp_path: Path) -> None:
    taught, config = examples(crowd(20, 0, 4, seed=0)), RewardConfig(workers=2)
    report = train_on_ray(taught, config, tmp_path / "model", 0, tmp_path / "scratch")
    alone, own = train_reward(taught, config, 0, load_encoder())
    model = load_pair_model(tmp_path / "model")
    np.testing.assert_allclose(model.predict(PAIRS), alone.predict(PAIRS), atol=0.02)
    assert report["labels"] == own["labels"] == 80 and report["auroc"] == pytest.approx(
        own["auroc"], abs=0.03
    )
    assert list((tmp_path / "scratch").iterdir()) == []


def test_two_workers_learn_a_whole_backbone_together(
    ray_cluster: None, tiny_model: Path, tmp_path: Path
) -> None:
    config = RewardConfig(
        encoder=str(tiny_model), learn="all", lr=3e-3, epochs=6, batch=8, max_tokens=64, workers=2
    )
    taught = examples(crowd(20, 0, 4, seed=0, noise=0.0))
    report = train_on_ray(taught, config, tmp_path / "model", 0, tmp_path / "scratch")
    good, bad = load_pair_model(tmp_path / "model").predict(PAIRS)
    assert good > bad + 0.2 and report["validated"] == 20
    assert not list((tmp_path / "model").glob("*.bin")) and not list((tmp_path / "model").glob("*.pt"))


def test_nothing_to_learn_from_is_said_before_a_worker_starts(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only 4 replies"):
        train_on_ray(examples(crowd(1, 0, 4, seed=0)), RewardConfig(), tmp_path / "m", 0, tmp_path)


def test_a_worker_s_failure_is_one_sentence(ray_cluster: None, tmp_path: Path) -> None:
    config = RewardConfig(encoder="/nowhere/at/all")
    with pytest.raises(UserError, match="no encoder at '/nowhere/at/all'"):
        train_on_ray(examples(crowd(20, 0, 4, seed=0)), config, tmp_path / "m", 0, tmp_path)


def test_what_a_worker_failed_on_is_not_quoted(ray_cluster: None, tmp_path: Path) -> None:
    """Half a surrogate pair is no text: the tokenizer raises what names neither a file nor a cure."""
    taught = examples(crowd(20, 0, 4, seed=0))
    secret = replace(taught[0].pair, reply="zanzibar marmalade \ud800")
    taught[0] = replace(taught[0], pair=secret)
    with pytest.raises(UserError, match=r"a worker raised [A-Z][A-Za-z]*Error") as told:
        train_on_ray(taught, RewardConfig(), tmp_path / "m", 0, tmp_path / "scratch")
    assert "marmalade" not in str(told.value) and "zanzibar" not in str(told.value)
