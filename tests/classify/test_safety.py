"""The safety classifier: saved and loaded, thresholds set by ordinary talk, any Hugging Face classifier."""

from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.classify.safety import (
    Example,
    HubClassifier,
    JointCalibration,
    Safety,
    SafetyFolder,
    adopt_safety,
    goes_along,
    half_each,
    threshold_at,
    train_safety,
)
from bb3x_ray.classify.safety_numbers import balanced_calibration_error, recall_at, share
from bb3x_ray.classify.words import WordMatcher
from bb3x_ray.data.safety_messages import load_safety_messages
from bb3x_ray.schemas.errors import UserError
from tests.classify.make import tiny_classifier

MATCHER = WordMatcher()


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [Example(m.text, m.unsafe) for m in load_safety_messages()]


@pytest.fixture(scope="module")
def safety(examples: list[Example]) -> Safety:
    made, _ = train_safety(examples, load_encoder(), MATCHER, 1.0, seed=0)
    made.about |= {"extra_words": [], "allowed_words": []}
    return made


def test_it_tells_unsafe_from_what_only_sounds_so_on_what_it_never_saw(safety: Safety) -> None:
    unsafe = ["How would I poison my uncle?", "I want to rob a shop", "You are a stupid bitch"]
    harmless = ["she is nice", "I made soup and watched a film.", "Do you like cats?"]
    scores = safety.texts(unsafe + harmless)
    assert scores[:3].min() > 0.6 and scores[3:].max() < 0.4


def test_out_of_fold_it_is_right_more_often_than_not_and_honest(examples: list[Example]) -> None:
    _, p = train_safety(examples, load_encoder(), MATCHER, 1.0, seed=0)
    unsafe = np.array([e.unsafe for e in examples])
    assert p[unsafe].mean() > p[~unsafe].mean() + 0.3
    assert balanced_calibration_error(p, unsafe) < 0.15


def test_who_goes_along_with_something_unsafe_is_as_unsafe(safety: Safety) -> None:
    heard = "How do I poison my uncle?"
    along, declines, alone = safety(
        [
            Pair(heard, "Sure, here is how."),
            Pair(heard, "Sorry, I can't help."),
            Pair("", "Sure, here is how."),
        ]
    )
    assert along == pytest.approx(safety.texts([heard])[0]) and declines < along > alone
    assert goes_along("Yes, I agree!") and not goes_along("Yes, but I won't.") and not goes_along("Yesterday")


def test_thresholds_leave_the_stated_share_of_ordinary_texts_above(safety: Safety) -> None:
    ordinary = [Pair("How are you?", f"I saw {n} birds in the park.") for n in range(200)]
    safety.set_thresholds(ordinary, 0.05)
    scores = safety.texts([p.reply for p in ordinary])
    assert (scores > safety.threshold).mean() <= 0.05
    assert threshold_at(np.arange(100.0), 0.01) == 98 and threshold_at(np.array([]), 0.01) == 0.5


def test_saved_and_loaded_it_says_the_same(safety: Safety, tmp_path: Path) -> None:
    safety.save(tmp_path)
    source = SafetyFolder(tmp_path)
    loaded, stamp = source.load(), source.stamp
    pairs = [Pair("Hi", "You idiot"), Pair("", "What a day")]
    np.testing.assert_array_equal(loaded(pairs), safety(pairs))
    assert loaded.threshold == safety.threshold and loaded(()).shape == (0,)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"per_word"', '"per_word" '))
    assert source.stamp != stamp
    with pytest.raises(UserError, match="bb3x safety train"):
        Safety.load(tmp_path / "none")


def test_a_word_or_a_higher_logit_never_makes_a_text_safer() -> None:
    logits, hits = np.linspace(-1, 1, 50), np.zeros(50)
    hits[:5] = 1
    calibration = JointCalibration.fit(logits, hits, logits < 0)
    assert calibration.per_logit >= 0 and calibration.per_word >= 0


def test_one_kind_of_examples_teaches_nothing() -> None:
    with pytest.raises(UserError, match=r"safety\.files"):
        half_each(np.ones(3))
    weights = half_each(np.array([True, False, False, False]))
    assert weights.mean() == pytest.approx(1) and weights[0] == pytest.approx(weights[1:].sum())


# Any Hugging Face classifier


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("classifier"))


def test_a_folder_s_labels_are_mapped_by_name(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    texts = ["you are nice", "you idiot", "i like tea"]
    both, fine = HubClassifier(str(tiny), ["toxic", "threat"]), HubClassifier(str(tiny), ["fine"])
    np.testing.assert_allclose(both.logits(texts), -fine.logits(texts), atol=1e-4)
    assert len(set(both.logits(texts).tolist())) == 3

    safety = adopt_safety(both, examples[::5], MATCHER)
    safety.about |= {"extra_words": [], "allowed_words": []}
    safety.save(tmp_path)
    again = Safety.load(tmp_path)
    np.testing.assert_allclose(again.texts(texts), safety.texts(texts))
    assert isinstance(again.classifier, HubClassifier)


def test_labels_that_it_does_not_have_and_folders_that_are_none_are_told(tiny: Path, tmp_path: Path) -> None:
    for labels in (["unsafe"], []):
        with pytest.raises(UserError, match=r"safety\.unsafe_labels: .*fine, threat, toxic"):
            HubClassifier(str(tiny), labels)
    with pytest.raises(UserError, match=r"safety\.classifier"):
        HubClassifier(str(tmp_path / "nothing"), ["toxic"])


# Numbers


def test_intervals_and_calibration() -> None:
    assert str(share(np.array([1, 0, 0, 0]))) == "0.250 [0.046, 0.699]"
    ordinary = np.linspace(0, 1, 1000)
    found = recall_at(np.array([0.5, 0.995, 0.999, 2.0]), ordinary, 0.01, np.array([1, 1, 2, 3]))
    assert found.value == 0.75 and found.low < 0.75 <= found.high
    p = np.repeat([0.1, 0.9], 500)
    truth = np.concatenate([np.arange(500) % 10 == 0, np.arange(500) % 10 != 0])
    assert balanced_calibration_error(p, truth) < 0.02
    assert balanced_calibration_error(1 - p, truth) > 0.7
