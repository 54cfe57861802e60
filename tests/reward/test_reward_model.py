"""The reward model learns from trusted people only, and reports on people it did not see."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.pair_logistic import PairLogistic
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.examples import Example
from bb3x_ray.reward.reward_model import train_reward
from bb3x_ray.reward.reward_report import reward_card
from bb3x_ray.schemas.errors import UserError
from tests.reward.make import LetterEncoder, crowd, examples

CONFIG, ENCODER = RewardConfig(), LetterEncoder()
GOOD, BAD = (
    Pair("What about it?", "I like my garden."),
    Pair("What about it?", "One can buy a garden anywhere"),
)


def test_it_learns_and_reports_on_unseen_people() -> None:
    model, report = train_reward(examples(crowd(20, 0, 4, seed=0)), CONFIG, 0, ENCODER)
    good, bad = model.predict([GOOD, BAD])
    assert good > 0.6 and bad < 0.4
    assert report["auroc"] > 0.75 and report["balanced_accuracy"] > 0.7
    assert report["validated"] == report["labels"] == 80 and report["people"] == 20
    assert 0 < report["auroc_se"] < 0.2


def test_reasons_have_intervals_in_the_card() -> None:
    told = [replace(e, reasons=("rude",)) if not e.label else e for e in examples(crowd(20, 0, 4, seed=0))]
    _, report = train_reward(told, CONFIG, 0, ENCODER)
    low, value, high = (report[f"auroc_reason_rude{end}"] for end in ("_low", "", "_high"))
    assert low < value < high and report["auroc_reason_rude_low_fresh"] > 0.5
    card = reward_card(report, "v0003")
    assert f"| AUROC, thumbs down as rude | {value:.3f} ({low:.3f} to {high:.3f})" in card
    assert card.count("thumbs down as rude") == 1


def test_distrusted_peoples_thumbs_are_left_out() -> None:
    signals = crowd(10, 12, 4, seed=0, noise=0.0)
    flippers = frozenset(s.person for s in signals if s.person.startswith("flipper"))
    fooled, _ = train_reward(examples(signals), CONFIG, 0, ENCODER)
    model, report = train_reward(examples(signals, flippers), CONFIG, 0, ENCODER)
    assert report["people"] == 10
    assert model.predict([GOOD])[0] > 0.7 > 0.6 > fooled.predict([GOOD])[0]


def test_random_thumbs_give_no_confidence() -> None:
    model, report = train_reward(examples(crowd(30, 0, 4, seed=0, noise=0.5)), CONFIG, 0, ENCODER)
    assert abs(report["auroc"] - 0.5) < 0.2
    assert np.ptp(model.predict([GOOD, BAD])) < 0.35


def test_too_few_thumbs_and_one_sided_thumbs_are_errors_with_a_cure() -> None:
    signals = crowd(20, 0, 4, seed=0)
    with pytest.raises(UserError, match="only 7 replies"):
        train_reward(examples(signals[:7]), CONFIG, 0, ENCODER)
    with pytest.raises(UserError, match="point down"):
        train_reward(examples([replace(s, label=0) for s in signals]), CONFIG, 0, ENCODER)


def test_one_person_alone_trains_a_model_without_a_validation() -> None:
    signals = [replace(s, person="ada") for s in crowd(20, 0, 4, seed=0)]
    model, report = train_reward(examples(signals), CONFIG, 0, ENCODER)
    assert report["validated"] == 0 and "auroc" not in report
    assert "0 labels of people" in reward_card(report, "v0001")
    assert model.predict([GOOD])[0] > 0.5


def test_weak_examples_teach_when_thumbs_are_silent_about_them() -> None:
    signals = [replace(s, reply=f"zz {i}") for i, s in enumerate(crowd(20, 0, 4, seed=0))]
    pairs = [replace(GOOD, label=1.0, weight=0.2), replace(BAD, label=0.0, weight=0.2)] * 30
    weak = [Example(pair, "somebody") for pair in pairs]
    model, report = train_reward([*examples(signals), *weak], CONFIG, 0, ENCODER)
    good, bad = model.predict([GOOD, BAD])
    assert good > bad + 0.2 and report["examples"] == 140 and report["labels"] == 80


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Path) -> None:
    model, _ = train_reward(examples(crowd(10, 0, 4, seed=0)), CONFIG, 0, ENCODER)
    model.save(tmp_path)
    loaded = PairLogistic.load(tmp_path, ENCODER)
    np.testing.assert_array_equal(loaded.predict([GOOD, BAD]), model.predict([GOOD, BAD]))
    assert loaded.report == model.report and loaded.base_rate == model.base_rate


def test_a_folder_without_a_model_or_with_another_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no classifier"):
        PairLogistic.load(tmp_path, ENCODER)
    train_reward(examples(crowd(10, 0, 4, seed=0)), CONFIG, 0, ENCODER)[0].save(tmp_path)
    with pytest.raises(UserError, match="letters"):
        PairLogistic.load(tmp_path, LetterEncoder("other"))


def test_the_card_tells_what_it_was_measured_on() -> None:
    _, report = train_reward(examples(crowd(20, 0, 4, seed=0)), CONFIG, 0, ENCODER)
    card = reward_card(report, "v0003")
    assert "v0003" in card and "80 labels" in card and f"{report['auroc']:.3f}" in card


def test_thumbs_on_broken_off_replies_are_left_out_where_there_are_others() -> None:
    """Half a sentence is disliked whatever it says; what it says must not be blamed."""
    people = crowd(10, 0, 4, seed=0)
    cut = [
        replace(s, reply=GOOD.reply, label=0, cut_off=True, person=f"cut-{i}") for i, s in enumerate(people)
    ]
    model, report = train_reward(examples([*people, *cut]), CONFIG, 0, ENCODER)
    alone, _ = train_reward(examples(people), CONFIG, 0, ENCODER)
    np.testing.assert_array_equal(model.predict([GOOD, BAD]), alone.predict([GOOD, BAD]))
    assert report["labels"] == len(people)
    only_cut = [replace(s, cut_off=True) for s in people]
    assert train_reward(examples(only_cut), CONFIG, 0, ENCODER)[1]["labels"] == len(people)


def test_evidence_in_balance_is_measured_by_and_not_learned_from() -> None:
    taught = examples(crowd(20, 0, 4, seed=0))
    lies = [replace(e, pair=replace(e.pair, label=1 - e.pair.label), teaches=False) for e in taught]
    model, report = train_reward([*taught, *lies], CONFIG, 0, ENCODER)
    alone, _ = train_reward(taught, CONFIG, 0, ENCODER)
    np.testing.assert_allclose(model.predict([GOOD, BAD]), alone.predict([GOOD, BAD]), atol=0.05)
    assert report["examples"] == 80 and report["labels"] == 160


def test_a_whole_backbone_learns_and_is_measured_on_people_left_out(tiny_model: Path) -> None:
    config = RewardConfig(encoder=str(tiny_model), learn="all", lr=3e-3, epochs=6, batch=8, max_tokens=64)
    model, report = train_reward(examples(crowd(20, 0, 4, seed=0, noise=0.0)), config, 0)
    good, bad = model.predict([GOOD, BAD])
    assert good > bad + 0.2
    assert report["validated"] == 20 and report["labels"] == 80 and report["auroc_fresh"] > 0.8
    assert "all its weights" in reward_card(report, "v0001", config.learn)
