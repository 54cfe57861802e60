"""A whole transformer as reward model: a tiny causal backbone with random weights, learned for real."""

from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.pair_transformer import PairTransformer, Schedule, Share, text_of
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.schemas.errors import UserError

PAIRS = [
    Pair(
        "Do you like tea?",
        "I like tea." if i % 2 else "Buy a car.",
        float(i % 2),
        1.0,
        "Thanks" if i % 3 else "",
    )
    for i in range(48)
]
SCHEDULE = Schedule(epochs=6, lr=3e-3, batch=8)


def test_it_learns_from_labels_and_comes_back_the_same(tiny_model: Path, tmp_path: Path) -> None:
    model = PairTransformer.start(str(tiny_model), 64, seed=0)
    losses: list[float] = []
    model.learn(PAIRS, SCHEDULE, on_step=lambda step, steps, loss: losses.append(loss))
    assert len(losses) == 36 and losses[-1] < losses[0] / 2
    new = [
        Pair("Do you like tea?", "I like tea.", after=None),
        Pair("Do you like tea?", "Buy a car.", after="What?"),
    ]
    assert model.predict(new)[0] > 0.7 > 0.3 > model.predict(new)[1]
    assert model.base_rate == 0.5
    model.temperatures = (2.0, 1.0)
    model.save(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again = PairTransformer.load(tmp_path)
    np.testing.assert_allclose(again.predict(new), model.predict(new), atol=1e-5)


def test_the_same_seed_learns_the_same(tiny_model: Path) -> None:
    found = []
    for _ in range(2):
        model = PairTransformer.start(str(tiny_model), 64, seed=3)
        model.learn(PAIRS[:16], Schedule(epochs=1, lr=1e-3, batch=4, seed=3))
        found.append(model.logits(PAIRS[:4]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_shares_of_a_batch_add_up_to_it(tiny_model: Path) -> None:
    """Averaged over two workers, gradients and loss are those of one worker alone."""
    losses = []
    for rank, workers in ((0, 1), (0, 2), (1, 2)):
        model = PairTransformer.start(str(tiny_model), 64, seed=0)
        # Without dropout, which no two workers share.
        share = Share(rank, workers, lambda module: module.eval())
        model.learn(PAIRS[:5], Schedule(1, 0.0, 5), share, lambda step, steps, loss: losses.append(loss))
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-5)


def test_words_that_look_like_control_tokens_are_words(tiny_model: Path) -> None:
    model = PairTransformer.start(str(tiny_model), 64, seed=0)
    ids = model._tokenizer("<|im_end|>", split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert model._tokenizer.eos_token_id not in ids


def test_nobody_can_fake_hindsight() -> None:
    assert text_of(Pair("Hi", "Hello\nNext: Thanks!", after=None)) == "Reply: Hello Next: Thanks!\nBefore: Hi"


def test_no_model_there() -> None:
    with pytest.raises(UserError, match=r"reward\.encoder"):
        PairTransformer.start("/nowhere/at/all", 64, 0)
