"""The reward model learns from trusted people only, and reports on people it did not see."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.pair_logistic import PairLogistic
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.reward_model import train_reward
from bb3x_ray.reward.reward_report import reward_card
from bb3x_ray.reward.trust import Trust
from bb3x_ray.schemas.errors import UserError
from tests.reward.make import LetterEncoder, crowd

CONFIG, ENCODER = RewardConfig(), LetterEncoder()
EVERYBODY = Trust({}, frozenset(), 0.6, {})
GOOD, BAD = (
    Pair("What about it?", "I like my garden."),
    Pair("What about it?", "One can buy a garden anywhere"),
)


def test_it_learns_and_reports_on_unseen_people() -> None:
    model, report = train_reward(crowd(20, 0, 4, seed=0), EVERYBODY, ENCODER, CONFIG, seed=0)
    good, bad = model.predict([GOOD, BAD])
    assert good > 0.6 and bad < 0.4
    assert report["auroc"] > 0.75 and report["balanced_accuracy"] > 0.7
    assert report["validated"] == report["thumbs"] == 80 and report["people"] == 20
    assert 0 < report["auroc_se"] < 0.2


def test_distrusted_peoples_thumbs_are_left_out() -> None:
    signals = crowd(10, 12, 4, seed=0, noise=0.0)
    flippers = frozenset(s.person for s in signals if s.person.startswith("flipper"))
    fooled, _ = train_reward(signals, EVERYBODY, ENCODER, CONFIG, seed=0)
    model, report = train_reward(signals, replace(EVERYBODY, distrusted=flippers), ENCODER, CONFIG, seed=0)
    assert report["people"] == 10
    assert model.predict([GOOD])[0] > 0.8 > 0.6 > fooled.predict([GOOD])[0]


def test_random_thumbs_give_no_confidence() -> None:
    model, report = train_reward(crowd(30, 0, 4, seed=0, noise=0.5), EVERYBODY, ENCODER, CONFIG, seed=0)
    assert abs(report["auroc"] - 0.5) < 0.2
    assert np.ptp(model.predict([GOOD, BAD])) < 0.35


def test_too_few_thumbs_and_one_sided_thumbs_are_errors_with_a_cure() -> None:
    signals = crowd(20, 0, 4, seed=0)
    with pytest.raises(UserError, match="only 7 thumbs"):
        train_reward(signals[:7], EVERYBODY, ENCODER, CONFIG, seed=0)
    with pytest.raises(UserError, match="point down"):
        train_reward([replace(s, label=0) for s in signals], EVERYBODY, ENCODER, CONFIG, seed=0)


def test_one_person_alone_trains_a_model_without_a_validation() -> None:
    signals = [replace(s, person="ada") for s in crowd(20, 0, 4, seed=0)]
    model, report = train_reward(signals, EVERYBODY, ENCODER, CONFIG, seed=0)
    assert report["validated"] == 0 and "auroc" not in report
    assert "0 thumbs of people" in reward_card(report)
    assert model.predict([GOOD])[0] > 0.5


def test_weak_pairs_teach_when_thumbs_are_silent_about_them() -> None:
    signals = [replace(s, reply=f"zz {i}") for i, s in enumerate(crowd(20, 0, 4, seed=0))]
    weak = [replace(GOOD, label=1.0, weight=0.2), replace(BAD, label=0.0, weight=0.2)] * 30
    model, report = train_reward(signals, EVERYBODY, ENCODER, CONFIG, seed=0, weak=weak)
    good, bad = model.predict([GOOD, BAD])
    assert good > bad + 0.2 and report["weak_pairs"] == 60


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Path) -> None:
    model, _ = train_reward(crowd(10, 0, 4, seed=0), EVERYBODY, ENCODER, CONFIG, seed=0)
    model.save(tmp_path)
    loaded = PairLogistic.load(tmp_path, ENCODER)
    np.testing.assert_array_equal(loaded.predict([GOOD, BAD]), model.predict([GOOD, BAD]))
    assert loaded.report == model.report and loaded.base_rate == model.base_rate


def test_a_folder_without_a_model_or_with_another_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no classifier"):
        PairLogistic.load(tmp_path, ENCODER)
    train_reward(crowd(10, 0, 4, seed=0), EVERYBODY, ENCODER, CONFIG, seed=0)[0].save(tmp_path)
    with pytest.raises(UserError, match="letters"):
        PairLogistic.load(tmp_path, LetterEncoder("other"))


def test_the_card_tells_what_it_was_measured_on() -> None:
    _, report = train_reward(crowd(20, 0, 4, seed=0), EVERYBODY, ENCODER, CONFIG, seed=0)
    card = reward_card(report, "v0003")
    assert "v0003" in card and "80 thumbs" in card and f"{report['auroc']:.3f}" in card


def test_thumbs_on_broken_off_replies_are_left_out_where_there_are_others() -> None:
    """Half a sentence is disliked whatever it says; what it says must not be blamed."""
    people = crowd(10, 0, 4, seed=0)
    cut = [
        replace(s, reply=GOOD.reply, label=0, cut_off=True, person=f"cut-{i}") for i, s in enumerate(people)
    ]
    model, report = train_reward([*people, *cut], EVERYBODY, ENCODER, CONFIG, seed=0)
    alone, _ = train_reward(people, EVERYBODY, ENCODER, CONFIG, seed=0)
    np.testing.assert_array_equal(model.predict([GOOD, BAD]), alone.predict([GOOD, BAD]))
    assert report["thumbs"] == len(people)
    only_cut = [replace(s, cut_off=True) for s in people]
    assert train_reward(only_cut, EVERYBODY, ENCODER, CONFIG, seed=0)[1]["thumbs"] == len(people)
