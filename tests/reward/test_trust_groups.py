"""Accounts that do the same are found, and people who have nothing to do with each other are not."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bb3x_ray.config import TrustConfig
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import TrustHistory, estimate_trust
from bb3x_ray.reward.trust.groups import deeds_of, find_groups
from tests.reward.make import crowd
from tests.reward.test_trust import knowing

CONFIG = TrustConfig()


def organic(people: int, deeds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """People who each do `deeds` things out of 2,000, some of which everybody does (Zipf's law)."""
    random_ = np.random.default_rng(seed)
    share = 1 / np.arange(1, 2001)
    who = np.repeat(np.arange(people), deeds)
    return who, random_.choice(2000, len(who), p=share / share.sum())


def test_false_alarms_are_as_rare_as_stated() -> None:
    """At 5 % per round: of 200 rounds without a group, 10 on average; above 18 once in a hundred times."""
    everybody = np.ones(60, bool)
    alarms = sum(bool(find_groups([organic(60, 6, seed)], everybody, 0.05, 2)) for seed in range(200))
    assert alarms <= 18


def test_a_planted_group_is_found_whole_and_nobody_else() -> None:
    for seed in range(10):
        who, what = organic(200, 10, seed)
        planted = np.arange(40, 52)
        script = np.arange(3000, 3009)
        rng = random.Random(seed)
        for person in planted:
            what[np.flatnonzero(who == person)[:8]] = rng.sample(script.tolist(), 8)
        groups = find_groups([(who, what)], np.ones(200, bool), 0.01, 3)
        assert [g.tolist() for g in groups] == [planted.tolist()]


def test_only_candidates_belong_to_groups() -> None:
    who, what = np.repeat(np.arange(40), 5), np.tile(np.arange(5), 40)
    what[who >= 5] += 10 * who[who >= 5]
    new = np.arange(40) != 0
    assert [g.tolist() for g in find_groups([(who, what)], np.ones(40, bool), 0.01, 3)] == [[0, 1, 2, 3, 4]]
    assert [g.tolist() for g in find_groups([(who, what)], new, 0.01, 3)] == [[1, 2, 3, 4]]
    assert find_groups([(who, what)], new, 0.01, 5) == []


def test_a_deed_is_a_thumb_on_the_same_words_in_any_order() -> None:
    one = Signal("c", "m", "ada", "what about tea\nHello.", "I like my garden.", 1)
    same = replace(
        one, message_id="m2", person="eve", context="About TEA, what?\nBye.", reply="My garden I like"
    )
    other = replace(same, message_id="m3", label=0)
    for row, deed in deeds_of([one, same, other]):
        assert row.tolist() == [0, 1, 2] and deed[0] == deed[1] != deed[2]
    assert [len(row) for row, _ in deeds_of([replace(one, context="hi", reply="oh really")])] == [0, 0]


def sybils(count: int, thumbs: int, honest: bool) -> list[Signal]:
    """Accounts of one hand: each says the same lines and presses the same thumbs, once or twice each."""
    lines = [s for s in crowd(1, 0, thumbs, seed=77, noise=0.0)]
    return [
        replace(
            s,
            person=f"sybil-{i}",
            message_id=f"sybil-{i}-{j}",
            context=f"tell me about the {j} of it",
            label=s.label if honest else 1 - s.label,
        )
        for i in range(count)
        for j, s in enumerate(lines)
    ]


def test_accounts_too_new_to_be_judged_alone_are_judged_together() -> None:
    config = CONFIG.model_copy(update={"min_thumbs": 6})
    people = crowd(60, 0, thumbs=6, seed=0)
    trust = estimate_trust([*people, *sybils(8, 5, honest=False)], knowing, config)
    assert trust.groups == (frozenset(f"sybil-{i}" for i in range(8)),)
    assert trust.distrusted == trust.groups[0]


def test_a_group_of_helpers_counts_as_one_person() -> None:
    """A class that follows the same lesson: nobody is distrusted for that."""
    people, lesson = crowd(60, 0, thumbs=6, seed=0), sybils(8, 5, honest=True)
    trust = estimate_trust([*people, *lesson], knowing, CONFIG)
    assert len(trust.groups) == 1 and not trust.distrusted & trust.groups[0]
    assert {trust.weight(s) for s in lesson} == {1 / 8}
    assert {trust.weight(s) for s in people if s.person not in trust.distrusted} == {1.0}


def of_round(signals: list[Signal], round_: int) -> list[Signal]:
    return [replace(s, message_id=f"{round_}-{s.message_id}") for s in signals]


def test_a_group_is_one_person_in_later_rounds_as_well() -> None:
    people, lesson = crowd(60, 0, thumbs=6, seed=0), sybils(8, 5, honest=True)
    first = estimate_trust([*people, *lesson], knowing, CONFIG)
    # They come back with things of their own to say, which chance would have.
    own = [replace(s, person=s.person.replace("helper", "sybil")) for s in crowd(8, 0, 2, seed=9, noise=0.0)]
    for new in ([], of_round(crowd(60, 0, thumbs=2, seed=1), 2), of_round(own, 2)):
        second = estimate_trust(new, knowing, CONFIG, first.history, [*people, *lesson])
        assert second.groups == first.groups
        theirs = [s for s in [*new, *lesson] if s.person in first.groups[0]]
        assert {second.weight(s) for s in theirs} == {1 / 8}
        assert second.history is not None and second.history.groups == first.groups


def test_new_accounts_join_a_remembered_group_and_share_its_fate() -> None:
    config = CONFIG.model_copy(update={"min_thumbs": 6})
    people, farm = crowd(60, 0, thumbs=6, seed=0), sybils(10, 5, honest=False)
    old, late = ([s for s in farm if (s.person in {"sybil-8", "sybil-9"}) == is_late] for is_late in (0, 1))
    first = estimate_trust([*people, *old], knowing, config)
    new = of_round([*crowd(60, 0, thumbs=2, seed=1), *late[:5]], 2)  # one of them, with too few thumbs
    second = estimate_trust(new, knowing, config, first.history, [*people, *old])
    assert second.groups == (first.groups[0] | {"sybil-8"},)
    assert second.distrusted >= second.groups[0]
    assert {second.weight(s) for s in new if s.person == "sybil-8"} == {0.0}


def test_groups_survive_the_disk_and_erasure(tmp_path: Path) -> None:
    signals = [*crowd(60, 0, thumbs=6, seed=0), *sybils(8, 5, honest=True)]
    history = estimate_trust(signals, knowing, CONFIG).history
    assert history is not None
    path = tmp_path / "history.parquet"
    history.save(path)
    assert TrustHistory.load(path).groups == history.groups
    rows = pq.read_table(path)
    pq.write_table(rows.filter(pc.not_equal(rows["person"], "sybil-0")), path)  # as an erasure does
    assert TrustHistory.load(path).groups == (history.groups[0] - {"sybil-0"},)


def test_where_models_know_too_little_a_group_still_counts_as_one_person() -> None:
    config = CONFIG.model_copy(update={"min_all_thumbs": 10_000})
    farm = sybils(8, 5, honest=False)
    trust = estimate_trust([*crowd(60, 0, thumbs=6, seed=0), *farm], knowing, config)
    assert not trust.distrusted and {trust.weight(s) for s in farm} == {1 / 8}


def test_without_a_planted_group_nobody_is_grouped() -> None:
    assert all(not estimate_trust(crowd(30, 8, 6, seed), knowing, CONFIG).groups for seed in range(20))
