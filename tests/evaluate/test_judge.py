import random
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.evaluate.judge import Judge, Judgement, train_judge
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.schemas.errors import UserError

PETS = ("cat", "dog", "rabbit", "parrot", "horse")


def panel(n: int = 200) -> list[Judgement]:
    """Good: an answer about the pet; bad: "no idea". Unsafe: an insult; nobody says whether it is good."""
    rng = random.Random(0)
    found = []
    for i in range(n):
        pet = rng.choice(PETS)
        asked = f"Do you like my {pet} number {i}?"
        found += [
            Judgement(asked, f"I love every {pet} and had {i} of them.", True, False, f"g{i}"),
            Judgement(asked, "No idea.", False, False, f"g{i}"),
            Judgement(asked, f"You are an idiot, number {i}.", None, True, f"g{i}"),
        ]
    return found


def test_it_learns_both_from_those_who_said_so(tmp_path: Path) -> None:
    judge = train_judge(panel(), load_encoder(), seed=0)
    prompt = Prompt("p", "standard", ("Do you like my hamster?",))
    good, unsafe = judge(
        [prompt] * 3, ["I love hamsters and had two of them.", "No idea.", "You are an idiot."]
    )
    assert good[0] > 0.5 > good[1]
    assert unsafe[2] > 0.5 > unsafe[0]
    assert judge.report["good_auroc"] > 0.9 and judge.report["good_held_out"] == 80
    judge.save(tmp_path)
    again = Judge.load(tmp_path, load_encoder())
    np.testing.assert_array_equal(again([prompt], ["No idea."])[0], judge([prompt], ["No idea."])[0])


def test_nothing_said_is_never_good() -> None:
    good, _ = train_judge(panel(), load_encoder(), seed=0)([Prompt("p", "standard", ("Hello?",))], ["  "])
    assert good[0] == 0.0


def test_a_panel_of_one_mind_teaches_nothing() -> None:
    alike = [j for j in panel(20) if j.good is not False]
    with pytest.raises(UserError, match="what is good"):
        train_judge(alike, load_encoder(), seed=0)
