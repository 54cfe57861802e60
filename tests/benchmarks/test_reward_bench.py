"""The benchmark compares like with like: same folds, nobody on both sides, intervals that mean something."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.pair_features import features
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.schemas.errors import UserError
from benchmarks.reward.__main__ import goals
from benchmarks.reward.arms import OURS, TFIDF, Predictions, folds, predict
from benchmarks.reward.compare import corrected_t, preferred, ranked, ranked_at_length
from benchmarks.reward.findings import findings_of
from benchmarks.reward.material import Material, convai2, hh
from benchmarks.reward.tfidf import TfIdf, Words
from tests.reward.make import LetterEncoder, crowd


def material() -> Material:
    signals = crowd(15, 0, 4, seed=0)
    pairs = [Pair(s.context, s.reply, float(s.label), after="Nice" if s.label else "Why?") for s in signals]
    reasons = [() if s.label else ("rude",) for s in signals]
    return Material("convai2", pairs, [s.person for s in signals], reasons)


def test_tf_idf_is_what_its_formula_says() -> None:
    words = Words(["tea tea milk", "tea rain", "snow"])
    row = words.rows == 0
    value = words.weighed(np.array([True, True, False]))[row]
    tea, milk = (1 + math.log(2)) * 1.0, math.log(3 / 2) + 1
    tea_tea, tea_milk = milk, milk  # pairs of words are terms as well, each in one text of two
    length = math.sqrt(tea**2 + milk**2 + tea_tea**2 + tea_milk**2)
    np.testing.assert_allclose(value, np.array([tea, milk, tea_tea, tea_milk]) / length)


def test_tf_idf_learns_words_and_knows_no_held_out_label() -> None:
    pairs = [Pair("How?", f"lovely {i}" if i % 2 else f"awful {i}", float(i % 2)) for i in range(40)]
    train = np.arange(40) < 30
    labels = np.array([pair.label for pair in pairs])
    model = TfIdf(pairs, hindsight=False)
    logits = model.logits(labels, train)
    assert (logits[30:][1::2] > logits[30:][0::2]).all()
    turned = np.where(train, labels, 1 - labels)
    np.testing.assert_array_equal(logits, model.logits(turned, train))


@pytest.fixture(scope="module")
def found() -> Predictions:
    return predicted(material())


def predicted(own: Material) -> Predictions:
    return predict(own, features(own.pairs, LetterEncoder()), 0.3, 1, 0, lambda line: None)


def test_every_arm_predicts_everybody_and_none_has_seen_them(found: Predictions) -> None:
    own = material()
    held = found.fold[0] == 0
    assert len({group for group, out in zip(own.groups, held, strict=True) if out}) == 3
    turned = [replace(p, label=1 - p.label) if out else p for p, out in zip(own.pairs, held, strict=True)]
    again = predicted(replace(own, pairs=turned))
    for arm in found.late:
        np.testing.assert_array_equal(found.late[arm][0, held], again.late[arm][0, held])
        np.testing.assert_array_equal(found.fresh[arm][0, held], again.fresh[arm][0, held])
    np.testing.assert_array_equal(found.p_late[0, held], again.p_late[0, held])


def test_findings_tell_both_views_and_the_goals(found: Predictions) -> None:
    told = findings_of(material(), found, seed=0)
    late, fresh = told.views["with hindsight"], told.views["without"]
    assert late.arms[OURS].value > 0.9 >= fresh.arms[OURS].value - 0.1
    assert late.by_reason["rude"] == pytest.approx(late.arms[OURS].value)
    assert late.gains[TFIDF].value == pytest.approx(late.arms[OURS].value - late.arms[TFIDF].value)
    assert sum(goal.goal == "≤ 0.05" for goal in goals(told)) == 2


def test_folds_have_about_equally_many_people_and_depend_on_the_seed() -> None:
    names = [f"p{i}" for i in range(50)] * 2
    one, two = folds(names, 5, "0:0"), folds(names, 5, "0:1")
    assert np.bincount(one).tolist() == [20] * 5 and one.tolist() != two.tolist()
    assert one[:50].tolist() == one[50:].tolist()


def test_preferred_compares_within_pairs_only() -> None:
    labels, scores = np.array([1.0, 0, 1, 0, 1, 0]), np.array([0.2, 0.1, 0.9, 0.95, 0.5, 0.5])
    assert preferred(labels)(scores, np.arange(6)) == pytest.approx(0.5)
    assert ranked(labels)(scores, np.arange(6)) == pytest.approx(1 - 4.5 / 9)


def test_at_one_length_length_itself_says_nothing() -> None:
    random = np.random.default_rng(0)
    words = random.integers(1, 8, 200)
    labels = (random.random(200) < words / 8).astype(float)
    pairs = [Pair("Hi", "word " * n) for n in words]
    assert ranked(labels)(words.astype(float), np.arange(200)) > 0.7
    assert ranked_at_length(pairs, labels)(words.astype(float), np.arange(200)) == 0.5


def test_the_corrected_interval_is_wider_than_folds_alone_suggest() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300).astype(float)
    ours, other = labels + random.normal(size=(4, 300)), random.normal(size=(4, 300))
    fold = np.stack([random.permutation(300) % 5 for _ in range(4)])
    found = corrected_t(ours, other, ranked(labels), fold)
    assert found.low > 0 and found.high - found.low > 2 * 1.96 * 0.05 / math.sqrt(20)


def test_files_are_read_by_kind_and_absent_ones_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="BB3X_TEST_DATA"):
        convai2(tmp_path)
    folder = tmp_path / "hh-rlhf"
    folder.mkdir()
    asked = "\n\nHuman: Is it far?\n\nAssistant: No.\n\nHuman: How far?\n\nAssistant: "
    lines = [json.dumps({"chosen": f"{asked}A mile {i}.", "rejected": f"{asked}Why {i}?"}) for i in range(3)]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    found = hh(tmp_path)
    assert found.labels.tolist() == [1, 0] * 3 and len(set(found.groups)) == 3
    assert found.pairs[0].context == "How far?\nNo.\nIs it far?" and found.pairs[0].reply.startswith("A mile")
    assert not found.has_hindsight
