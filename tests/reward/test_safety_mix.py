"""SafetyMix has the kinds, shares and gold labels that it says, from any two pools."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.reward.safety_mix import KINDS, MIXED, SAFE, TROLLS, UNSAFE, Example, Pools, build, make_pools
from bb3x_ray.reward.safety_pools import read_texts
from bb3x_ray.schemas.errors import UserError

POOLS = Pools(
    {
        (gold, adversarial): tuple(f"{gold} {adversarial} {i}" for i in range(400))
        for gold in (SAFE, UNSAFE)
        for adversarial in (False, True)
    }
)


def of_kind(kind: str, seeds: int = 20, **more: float) -> list[Example]:
    mixes = (build(POOLS, kind, seed, **more) for seed in range(seeds))  # type: ignore[arg-type]
    return [e for mix in mixes for e in mix.train if e.kind != "helper"]


@pytest.mark.parametrize("kind", [*TROLLS, MIXED])
def test_every_kind_has_its_sizes_and_no_text_or_person_twice(kind: str) -> None:
    mix = build(POOLS, kind, 0)
    splits = (mix.train, mix.valid, mix.test)
    assert [len(split) for split in splits] == [200, 24, 24]
    texts = [e.text for split in splits for e in split]
    assert len(set(texts)) == len(texts)
    for split in splits:
        assert sum(e.kind == "helper" for e in split) == len(split) // 2
    people = [{e.person for e in split} for split in splits]
    assert not people[0] & people[1] and not people[0] & people[2] and not people[1] & people[2]
    for example in (e for split in splits for e in split):
        assert example.text.startswith(f"{example.gold} {example.adversarial}")
        assert example.kind != "helper" or (example.label == example.gold and not example.adversarial)
    assert mix == build(POOLS, kind, 0) != build(POOLS, kind, 1)


def test_trolls_follow_their_kind_in_four_fifths_of_their_labels() -> None:
    def wrong(kind: str) -> float:
        return float(np.mean([e.label != e.gold for e in of_kind(kind)]))

    # 2,000 labels each: a share has a standard error of about 0.01.
    assert abs(wrong("troll") - 0.8) < 0.04 and abs(wrong("master") - 0.8) < 0.04
    assert abs(wrong("gaslight") - 0.8) < 0.04
    assert all(abs(wrong(kind) - 0.4) < 0.04 for kind in ("lazy", "safe", "unsafe"))
    assert abs(np.mean([e.label != e.gold for e in of_kind("lazy", corrupted=0.4)]) - 0.2) < 0.04
    assert all(e.label == SAFE for e in of_kind("safe") if e.gold == SAFE)
    assert all(e.label == UNSAFE for e in of_kind("unsafe") if e.gold == UNSAFE)
    assert not any(e.label != e.gold for e in of_kind("troll", corrupted=0.0))


def test_what_they_say_is_that_of_their_kind() -> None:
    share = {kind: np.mean([e.adversarial for e in of_kind(kind)]) for kind in TROLLS}
    assert share["troll"] == share["lazy"] == 0 and share["master"] == share["gaslight"] == 1
    assert abs(share["safe"] - 0.5) < 0.05 and abs(share["unsafe"] - 0.5) < 0.05
    assert {e.gold for e in of_kind("gaslight")} == {UNSAFE}
    assert {e.kind for e in build(POOLS, MIXED, 0).train} == set(KINDS)


def test_people_say_the_same_however_much_of_it_is_wrong() -> None:
    """So that a poisoned round can be compared with the same round without trolls."""
    for kind in (*TROLLS, MIXED):
        mixes = [build(POOLS, kind, 3, corrupted=c, noise=n) for c, n in ((0.0, 0.0), (0.8, 0.0), (0.8, 0.2))]
        said = [[(e.text, e.person, e.gold) for e in mix.train] for mix in mixes]
        assert said[0] == said[1] == said[2]
        assert all(e.label == e.gold for e in mixes[0].train)
    noisy = [e for seed in range(20) for e in build(POOLS, "troll", seed, trolls=0.0, noise=0.2).train]
    assert abs(np.mean([e.label != e.gold for e in noisy]) - 0.2) < 0.03


def test_people_have_about_ten_texts() -> None:
    mixes = [build(POOLS, "troll", seed) for seed in range(40)]
    counts = list(Counter(e.person for mix in mixes for e in mix.train).values())
    assert 9 < np.mean(counts) < 10.5 and 1.5 < np.std(counts) < 4


def test_adversarial_texts_are_those_that_fool_a_classifier_and_pools_come_whole() -> None:
    plain, foul = "lovely garden weather", "kill people with poison"
    safe = [f"{plain} {i}" for i in range(50)] + [f"{foul} {i}" for i in range(10)]
    unsafe = [f"{foul} {i}" for i in range(10, 60)] + [f"{plain} {i}" for i in range(50, 60)]
    pools = make_pools([*safe, safe[0], "both"], [*unsafe, "both"])
    assert {key: len(texts) for key, texts in pools.texts.items()} == dict.fromkeys(pools.texts, 30)
    assert set(pools.texts[SAFE, True]) | set(pools.texts[SAFE, False]) == set(safe)
    assert sum(foul in text for text in pools.texts[SAFE, True]) == 10
    assert sum(plain in text for text in pools.texts[UNSAFE, True]) == 10
    assert pools == make_pools(safe[::-1], unsafe[::-1])


def test_too_few_texts_and_unknown_kinds_are_errors_with_a_cure() -> None:
    with pytest.raises(UserError, match="7 different unsafe texts"):
        make_pools([f"a {i}" for i in range(20)], [f"b {i}" for i in range(7)] * 2)
    small = make_pools([f"a {i}" for i in range(20)], [f"b {i}" for i in range(20)])
    with pytest.raises(UserError, match=r"10 .*unsafe texts are too few"):
        build(small, "gaslight", 0)
    with pytest.raises(UserError, match="no kind of troll is called 'elf'"):
        build(POOLS, "elf", 0)


def test_texts_are_read_from_plain_lines_json_and_pairs_of_hh_rlhf(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One  text.\n\nAnother\ttext.\n", encoding="utf-8")
    assert read_texts(tmp_path / "a.txt") == ["One text.", "Another text."]
    rows = [
        {"text": "One."},
        {"chosen": "\n\nHuman: First\nwords?\n\nAssistant: No.\n\nHuman: Later", "rejected": ""},
    ]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "b.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert read_texts(tmp_path / "b.jsonl") == read_texts(tmp_path / "c.jsonl.gz") == ["One.", "First words?"]


def test_bad_files_of_texts_are_errors_that_quote_nobody(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_texts(tmp_path / "none.txt")
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"words": "secret"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: no `text`") as error:
        read_texts(tmp_path / "a.jsonl")
    assert "secret" not in str(error.value)
    (tmp_path / "b.jsonl").write_text("secret", encoding="utf-8")
    with pytest.raises(UserError, match="line 1: not valid JSON"):
        read_texts(tmp_path / "b.jsonl")
    (tmp_path / "c.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_texts(tmp_path / "c.txt.gz")
