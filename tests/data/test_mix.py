"""The mix gives each source the turns that its weight asks for, and nothing twice."""

from typing import Any

import pyarrow as pa
import pytest

from bb3x_ray.config import MixEntry
from bb3x_ray.data.mix import HUMAN, REPLAY, SAFETY, labelled_turns, mix
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import TRAINING_SCHEMA


def rows(source: str, names: range, turns: int = 1) -> list[dict[str, Any]]:
    """Rows with `turns` replies of two tokens to imitate each."""
    mask = [False, True, True] * turns
    return [
        {
            "row_id": f"{source}-{n}",
            "source": source,
            "person": "ada",
            "input_ids": [1] * len(mask),
            "imitate": mask,
            "avoid": [False] * len(mask),
            "weight": None,
            "starts": None,
        }
        for n in names
    ]


def table(*parts: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([row for part in parts for row in part], schema=TRAINING_SCHEMA)


NOTHING = table()
POOLS = {
    HUMAN: lambda count: table(rows(HUMAN, range(count))),
    SAFETY: lambda _: table(rows(SAFETY, range(50))),
}


def given(result: pa.Table, source: str) -> list[str]:
    named = zip(result["row_id"].to_pylist(), result["source"].to_pylist(), strict=True)
    return [row_id for row_id, its in named if its == source]


def test_without_a_mix_the_set_stays_as_it_is() -> None:
    own = table(rows("served", range(4), turns=2), rows(HUMAN, range(3)))
    mixed, shares = mix(own, NOTHING, POOLS, (), seed=0)
    assert sorted(mixed["row_id"].to_pylist()) == sorted(own["row_id"].to_pylist())
    assert shares["round"] == {"rows": 4, "turns": 8, "tokens": 16, "share": 8 / 11}
    assert shares[HUMAN]["turns"] == 3


def test_each_source_has_its_weight_in_turns() -> None:
    own = table(rows("served", range(10), turns=2), rows(HUMAN, range(3)))
    earlier = table(rows("served", range(100, 140), turns=2), rows(HUMAN, range(9)))
    entries = [
        MixEntry(source=HUMAN, weight=2.0),
        MixEntry(source=REPLAY, weight=0.5),
        MixEntry(source=SAFETY, weight=0.25),
    ]
    mixed, shares = mix(own, earlier, POOLS, entries, seed=0)
    assert {name: about["turns"] for name, about in shares.items()} == {
        "round": 20,
        HUMAN: 40,
        REPLAY: 10,
        SAFETY: 5,
    }
    assert sum(about["share"] for about in shares.values()) == pytest.approx(1)
    assert labelled_turns(mixed) == 75
    assert len(set(mixed["row_id"].to_pylist())) == mixed.num_rows


def test_a_source_that_has_too_little_gives_what_it_has() -> None:
    own = table(rows("served", range(10)))
    mixed, shares = mix(
        own, table(rows("served", range(90, 92))), POOLS, [MixEntry(source=REPLAY, weight=1)], 0
    )
    assert shares[REPLAY]["turns"] == 2 and mixed.num_rows == 12


def test_in_the_first_round_there_is_nothing_to_replay() -> None:
    own = table(rows("served", range(3)))
    mixed, shares = mix(own, NOTHING, POOLS, [MixEntry(source=REPLAY, weight=1)], seed=0)
    assert shares[REPLAY] == {"rows": 0, "turns": 0, "tokens": 0, "share": 0} and mixed.num_rows == 3


def test_a_conversation_that_went_on_is_not_replayed_beside_itself() -> None:
    own = table(rows("served", range(5)))
    earlier = table(rows("served", range(3, 8)), rows("served", range(3, 8)))
    mixed, _ = mix(own, earlier, POOLS, [MixEntry(source=REPLAY, weight=9)], seed=0)
    assert sorted(given(mixed, "served")) == [f"served-{n}" for n in range(8)]


def test_an_ingested_source_is_thinned_to_its_weight() -> None:
    own = table(rows("served", range(10)), rows("convai2", range(40)))
    mixed, shares = mix(own, NOTHING, POOLS, [MixEntry(source="convai2", weight=0.5)], seed=0)
    assert shares["round"]["turns"] == 10 and shares["convai2"]["turns"] == 5
    again, _ = mix(own, NOTHING, POOLS, [MixEntry(source="convai2", weight=0.5)], seed=0)
    other, _ = mix(own, NOTHING, POOLS, [MixEntry(source="convai2", weight=0.5)], seed=1)
    assert given(again, "convai2") == given(mixed, "convai2") != given(other, "convai2")


def test_an_unknown_source_is_named_with_those_that_are_known() -> None:
    with pytest.raises(
        UserError, match=r"'dairy' has taught nothing yet; known are human, replay, safety, served"
    ):
        mix(table(rows("served", range(2))), NOTHING, POOLS, [MixEntry(source="dairy", weight=1)], seed=0)


def test_a_mix_that_names_all_that_the_round_has_is_refused() -> None:
    own = table(rows("convai2", range(4)), rows(HUMAN, range(3)))
    with pytest.raises(UserError, match=r"train\.mix: .* beside convai2 .* take convai2 out of train\.mix"):
        mix(own, NOTHING, POOLS, [MixEntry(source="convai2", weight=0.5)], seed=0)
    mixed, _ = mix(own, NOTHING, POOLS, (), seed=0)
    assert mixed.num_rows == 7


def test_a_round_without_labelled_turns_has_nothing_to_weigh_by() -> None:
    with pytest.raises(UserError, match=r"beside human, replay the round has none: collect more talk"):
        entries = [MixEntry(source=HUMAN, weight=1), MixEntry(source=REPLAY, weight=1)]
        mix(table(rows(HUMAN, range(3))), table(rows("served", range(9))), POOLS, entries, seed=0)
