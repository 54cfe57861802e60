"""One model takes both kinds of input, and learns from each what it can tell."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.measures import auroc
from bb3x_ray.classify.pair_features import features
from bb3x_ray.classify.pair_logistic import PairLogistic, calibrate, cross_fit
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.classify.two_views import has_hindsight, without_hindsight
from bb3x_ray.schemas.errors import UserError
from tests.reward.make import LetterEncoder

ENCODER = LetterEncoder()


def talk(n: int, seed: int) -> list[Pair]:
    """Good replies mostly ask the person back, and mostly please; neither always."""
    random = np.random.default_rng(seed)
    pairs = []
    for number in range(n):
        good = bool(random.random() < 0.5)
        shown = good if random.random() < 0.7 else not good
        glad = good if random.random() < 0.75 else not good
        reply = f"And what do you do with {number}?" if shown else f"There are {number} of them"
        after = "Haha, nice, I like that" if glad else "That is wrong, why do you say so"
        pairs.append(Pair("I have a garden\nHello", reply, float(good), after=after))
    return pairs


def test_hindsight_helps_and_its_absence_does_no_harm() -> None:
    model = PairLogistic.fit(talk(300, 0), ENCODER, l2=0.3)
    new = talk(300, 1)
    labels = np.array([pair.label for pair in new])
    late, fresh = model.predict(new), model.predict([replace(pair, after=None) for pair in new])
    assert auroc(late, labels) > auroc(fresh, labels) + 0.05
    assert auroc(fresh, labels) > 0.6
    reply = [float(pair.reply.startswith("And")) for pair in new]
    assert auroc(fresh, labels) == pytest.approx(auroc(np.array(reply), labels), abs=0.03)


def test_silence_is_another_thing_than_not_knowing() -> None:
    pairs = [replace(pair, after="" if pair.label else pair.after) for pair in talk(200, 0)]
    model = PairLogistic.fit(pairs, ENCODER, l2=0.3)
    silent, unknown = model.predict([replace(pairs[0], after=""), replace(pairs[0], after=None)])
    assert silent > unknown + 0.1


def test_a_mixed_batch_scores_as_each_alone() -> None:
    pairs = talk(40, 0)
    mixed = [replace(pair, after=None) if i % 3 else pair for i, pair in enumerate(pairs)]
    model = PairLogistic.fit(mixed, ENCODER, l2=0.3)
    alone = np.concatenate([model.predict([pair]) for pair in mixed])
    np.testing.assert_allclose(model.predict(mixed), alone, atol=1e-6)


def test_rows_without_hindsight_are_rows_of_pairs_without_it() -> None:
    pairs = [*talk(3, 0), Pair("", "Hello"), Pair("Hi", "", after="")]
    x = features(pairs, ENCODER)
    assert has_hindsight(x).tolist() == [True, True, True, False, True]
    blind = features([replace(pair, after=None) for pair in pairs], ENCODER)
    np.testing.assert_array_equal(without_hindsight(x), blind)
    assert x.dtype == np.float32 and np.isfinite(x).all()


def test_cross_fitting_lets_nobody_judge_itself() -> None:
    pairs = talk(40, 0)
    labels = np.random.default_rng(0).integers(0, 2, 40).astype(float)
    x, fold = features(pairs, ENCODER), np.arange(40) % 4
    fold[:4] = -1
    late, fresh = cross_fit(x, labels, np.ones(40), fold, l2=0.3)
    assert np.isnan(late[:4]).all() and np.isfinite(late[4:]).all()
    held = fold == 2
    changed = np.where(held, 1 - labels, labels)
    again, _ = cross_fit(x, changed, np.ones(40), fold, l2=0.3)
    np.testing.assert_array_equal(late[held], again[held])
    assert calibrate(late, fresh, labels, np.ones(40)).fresh.temperature > 0


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Path) -> None:
    pairs = talk(120, 0)
    model = PairLogistic.fit(pairs, ENCODER, l2=0.3)
    model.save(tmp_path)
    np.testing.assert_array_equal(PairLogistic.load(tmp_path, ENCODER).predict(pairs), model.predict(pairs))


def test_a_classifier_of_an_earlier_layout_is_refused_with_a_cure(tmp_path: Path) -> None:
    PairLogistic.fit(talk(20, 0), ENCODER, l2=0.3).save(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**about, "layout": 1}))
    with pytest.raises(UserError, match="train a new one"):
        PairLogistic.load(tmp_path, ENCODER)


def test_no_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        PairLogistic.fit([Pair("a", "b", 1.0, weight=0.0)], ENCODER, l2=0.3)
