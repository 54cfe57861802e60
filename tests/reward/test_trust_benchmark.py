"""What the benchmarks of trust measure, on pools whose texts are told apart by their words."""

import random
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.words import unsafe_words
from bb3x_ray.data.readers.chitchat import read_chitchat
from bb3x_ray.reward.poison import poison
from bb3x_ray.reward.safety_mix import SAFE, TROLLS, UNSAFE, Pools, make_pools
from bb3x_ray.reward.safety_pools import read_texts
from bb3x_ray.reward.trust_benchmark import TextFeatures, measure
from bb3x_ray.reward.trust_plots import draw_methods, draw_poison
from bb3x_ray.reward.trust_tables import best_method, interval, method_rows, over_seeds, poison_rows

_DIMENSIONS = 220


def features(texts: list[str]) -> np.ndarray:
    """Noise around two centres; adversarial texts are nearer to the other one."""
    rows = []
    for text in texts:
        gold, adversarial, number = text.split()
        noise = np.random.default_rng(int(number)).normal(size=_DIMENSIONS)
        noise /= 4
        noise[0] = (2 * int(gold) - 1) * (1.5 if adversarial == "True" else 2.5) + noise[0] * 2
        rows.append(noise)
    return np.array(rows)


POOLS = Pools(
    {
        (gold, adversarial): tuple(
            f"{gold} {adversarial} {1000 * (2 * gold + adversarial) + i}" for i in range(400)
        )
        for gold in (SAFE, UNSAFE)
        for adversarial in (False, True)
    }
)


def test_trolls_do_harm_and_trust_undoes_most_of_it(tmp_path: Path) -> None:
    methods = ("none", "user_removal", "confusion")
    found = list(measure(POOLS, features, ["troll", "safe"], range(2), methods, test=80))  # type: ignore[arg-type]
    assert len(found) == 2 * 2 * 4
    rows = {row.method: row for row in method_rows(found)}
    assert rows["clean"].left.value == 0 and rows["none"].left.value == 1
    assert rows["confusion"].left.value < 0.4
    assert rows["none"].errors["safe"].value > rows["clean"].errors["safe"].value + 0.03
    assert rows["confusion"].helpers_distrusted <= 0.02
    assert rows["confusion"].trolls_distrusted["troll"] > 0.9
    assert best_method(found) == "confusion"
    draw_methods(method_rows(found), tmp_path / "plot.png", "a title")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_needs_every_method_on_every_mix() -> None:
    found = list(measure(POOLS, features, ["troll"], range(2), ("none",), test=40))
    with pytest.raises(ValueError, match="clean and none"):
        method_rows(found[:-1])


def test_without_trolls_no_helper_is_distrusted() -> None:
    found = measure(POOLS, features, ["troll"], range(6), ("confusion",), trolls=0.0, noise=0.1, test=40)
    assert np.mean([m.helpers_distrusted for m in found if m.method == "confusion"]) <= 0.02


def test_poisoned_rounds_are_compared_with_the_same_turns_without_trolls(tmp_path: Path) -> None:
    found = list(poison(POOLS, features, ["troll"], [0.0, 0.5], range(2)))
    assert len(found) == 2 * 2 * 4
    none, half = poison_rows(found)
    assert none.trolls == 0 and none.lost["imitate"].value == none.lost["avoid"].value == 0
    for label in ("imitate", "avoid"):
        assert half.right[label]["off"].value < half.right[label]["on"].value - 0.1
        assert half.gained[label].low > 0 and half.lost[label].value > -0.1
        assert half.right[label]["honest"].value > 0.9
        assert 0 < half.turns[label]["on"] <= 400
    draw_poison([none, half], tmp_path / "plot.png", "a title")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_intervals_hold_the_mean_and_leave_out_what_is_missing() -> None:
    values = np.array([0.1, 0.2, np.nan, 0.3])
    found = interval(values)
    assert found.value == pytest.approx(0.2) and found.low < 0.2 < found.high
    assert np.isnan(interval(np.array([np.nan])).value)
    assert over_seeds(lambda rows: 1.0, 5).low == 1.0


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[Pools, TextFeatures]:
    file = shared_data / "hh-rlhf" / "harmless-base-even.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"no red-team messages at {file}")
    turns = sorted(
        {t for c in read_chitchat() for t in c.turns if len(t.split()) >= 4 and not unsafe_words(t)}
    )
    rng = random.Random(0)
    pools = make_pools(rng.sample(turns, 800), rng.sample(sorted(set(read_texts(file))), 800))
    texts = [text for of_pool in pools.texts.values() for text in of_pool]
    return pools, TextFeatures(texts, load_encoder())


def test_on_red_team_messages_and_ordinary_talk_most_of_the_harm_is_undone(
    real: tuple[Pools, TextFeatures],
) -> None:
    """A short version of `bb3x trust benchmark`, with a looser bound than the goal of 0.4 on 50 seeds."""
    found = list(measure(*real, TROLLS, range(200, 203), ("none", "confusion"), test=120))
    rows = {row.method: row for row in method_rows(found)}
    assert rows["confusion"].left.value < 0.5
    assert rows["confusion"].helpers_distrusted <= 0.02


@pytest.mark.slow
def test_at_full_length_the_goals_are_reached(real: tuple[Pools, TextFeatures]) -> None:
    found = list(measure(*real, TROLLS, range(200, 250), ("none", "confusion")))
    rows = {row.method: row for row in method_rows(found)}
    assert rows["confusion"].left.value <= 0.4
    alone = measure(*real, ["troll"], range(200, 250), ("confusion",), trolls=0.0, noise=0.1)
    assert np.mean([m.helpers_distrusted for m in alone if m.method == "confusion"]) <= 0.02
