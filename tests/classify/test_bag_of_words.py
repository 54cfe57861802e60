"""The baseline learns words, weighs examples, and is the same in every process."""

import subprocess
import sys

import numpy as np
import pytest

from bb3x_ray.classify.bag_of_words import BagOfWords, Logistic, hashed_words
from bb3x_ray.classify.pairs import Pair


def pairs(n: int) -> list[Pair]:
    good = [Pair("how are you?", f"lovely weather number {i}", 1.0) for i in range(n)]
    return good + [Pair("how are you?", f"awful traffic number {i}", 0.0) for i in range(n)]


def test_it_learns_which_words_are_good() -> None:
    model = BagOfWords.fit(pairs(20))
    p = model.predict([Pair("hi", "lovely weather again"), Pair("hi", "awful traffic again")])
    assert p[0] > 0.8 and p[1] < 0.2


def test_a_word_of_the_context_is_another_feature_than_a_new_word() -> None:
    new, copied = hashed_words([Pair("cats", "dogs"), Pair("dogs", "dogs")])
    assert copied.sum() == new.sum() + 1


def test_weights_decide_between_contradicting_examples() -> None:
    x = np.ones((2, 1))
    model = Logistic.fit(x, np.array([1.0, 0.0]), np.array([9.0, 1.0]), l2=1e-3)
    assert model.predict(x)[0] == pytest.approx(0.9, abs=0.01)


def test_one_class_alone_stays_finite() -> None:
    model = Logistic.fit(np.zeros((5, 2)), np.ones(5), np.ones(5), l2=1.0)
    assert 0.8 < model.predict(np.zeros((1, 2)))[0] < 1


def test_no_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        BagOfWords.fit([Pair("a", "b", 1.0, weight=0.0)])
    assert len(BagOfWords.fit(pairs(2)).predict([])) == 0


def test_hashing_is_the_same_in_another_process() -> None:
    code = (
        "import sys; from bb3x_ray.classify.bag_of_words import hashed_words, Pair;"
        "sys.stdout.write(str(hashed_words([Pair('a b', 'b c d')]).nonzero()[1].tolist()))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there == str(hashed_words([Pair("a b", "b c d")]).nonzero()[1].tolist())
