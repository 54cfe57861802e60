from pathlib import Path

import numpy as np

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pair_network import PairNetwork
from bb3x_ray.classify.pairs import Pair, novel_words, surface
from bb3x_ray.classify.words import unsafe_words


def test_words_are_matched_whole() -> None:
    assert unsafe_words("You asshole!") == ["asshole"]
    assert unsafe_words("My class passed the assessment in Scunthorpe.") == []


def test_novel_words_are_those_the_context_does_not_hold() -> None:
    assert novel_words("I like tea", "I like coffee") == ["coffee"]


def test_surface_numbers_are_small_whatever_the_text() -> None:
    for reply in ("", "?", "word " * 500, "I am here. You?"):
        numbers = surface("Hello there", reply)
        assert len(numbers) == 14
        assert all(0 <= n <= 4 for n in numbers)


def test_saved_and_loaded_it_judges_the_same(tmp_path: Path) -> None:
    pairs = [Pair("What do you like?", f"I like {n} cats.", float(n % 2)) for n in range(80)]
    model = PairNetwork.fit(pairs, load_encoder(), seed=0)
    again = PairNetwork.fit(pairs, load_encoder(), seed=0)
    model.save(tmp_path)
    loaded = PairNetwork.load(tmp_path, load_encoder())
    np.testing.assert_array_equal(model.predict(pairs), again.predict(pairs))
    np.testing.assert_array_equal(model.predict(pairs), loaded.predict(pairs))


def test_a_rare_class_is_found_at_its_share() -> None:
    rng = np.random.default_rng(0)
    pairs = [
        Pair("What do you like?", f"I like {thing} {n}.", float(thing == "cats" and rng.random() < 0.8))
        for n, thing in enumerate(rng.choice(["cats", "stones", "rain", "numbers", "paper"], 200))
    ]
    model = PairNetwork.fit(pairs[:150], load_encoder(), seed=0)
    model.match_share(pairs[150:])
    found = float(np.mean(model.predict(pairs[150:]) > 0.5))
    labelled = float(np.mean([p.label for p in pairs[150:]]))
    assert abs(found - labelled) <= 0.1
