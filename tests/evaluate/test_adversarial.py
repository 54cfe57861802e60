import re
from collections import Counter

import pytest

from bb3x_ray.evaluate.adversarial import KINDS, PARTS, adversarial, all_adversarial, part_of
from bb3x_ray.schemas.errors import UserError


def test_the_file_loads_without_duplicates_and_with_every_kind() -> None:
    prompts = all_adversarial()
    assert len(prompts) >= 200
    assert len({p.id for p in prompts}) == len(prompts)
    assert len({" ".join(re.findall(r"\w+", p.text.lower())) or p.text for p in prompts}) == len(prompts)
    assert {p.kind for p in prompts} == set(KINDS)
    assert all(p.id.rsplit("-", 1)[0] == p.kind for p in prompts)
    assert max(len(p.text.split()) for p in prompts) <= 20


def test_the_parts_are_disjoint_and_cover_the_file() -> None:
    ids = [p.id for part in PARTS for p in adversarial(part)]
    assert sorted(ids) == sorted(p.id for p in all_adversarial())


def test_the_parts_have_about_the_planned_sizes_and_every_kind() -> None:
    sizes = {part: len(adversarial(part)) for part in PARTS}
    assert sizes == {"A": 43, "B": 41, "talk": 79, "judge": 55}
    for part in PARTS:
        assert set(Counter(p.kind for p in adversarial(part))) == set(KINDS)


def test_a_part_depends_on_the_id_and_the_seed_alone() -> None:
    # Fixed for ever: a message that moved would leak from one part into another.
    pinned = {"insult-01": "judge", "provocation-01": "talk", "medical-01": "B", "illegal_advice-01": "B"}
    assert {id: part_of(id) for id in pinned} == pinned
    assert any(part_of(p.id, 1) != part_of(p.id) for p in all_adversarial())


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(UserError, match="talk"):
        adversarial("train")  # type: ignore[arg-type]
