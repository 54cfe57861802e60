"""Rows that cannot be scored are rows with an error, and nobody else's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bb3x_ray.classify.pair_logistic import PairLogistic
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.reward.score_rows import ROWS, RowScorer, buckets
from bb3x_ray.reward.turns import TURNS_SCHEMA
from bb3x_ray.schemas.learning import SCORED_SCHEMA
from tests.reward.make import LetterEncoder, crowd


class Fussy(PairLogistic):
    """Raises on a reply that says so, answers another with no number, and minds what was said next."""

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        if any("explode" in pair.reply for pair in pairs):
            raise ArithmeticError("explode: a secret")
        scores = super().predict(pairs)
        scores[[("nonsense" in pair.reply) for pair in pairs]] = np.nan
        return scores + np.array([0.1 * (pair.after == "Thanks!") for pair in pairs])


@pytest.fixture(scope="module")
def model() -> Fussy:
    pairs = [Pair(s.context, s.reply, float(s.label)) for s in crowd(10, 0, 4, seed=0)]
    return Fussy.fit(pairs, LetterEncoder(), 0.1)  # type: ignore[return-value]


def turns(*replies: str | None, **more: Any) -> pa.Table:
    rows = [
        {"conversation_id": "c", "message_id": f"m{i}", "person": "p", "context": "What about it?"}
        | {"reply": reply, "after": "", "rating": None, "trusted": True}
        | more
        for i, reply in enumerate(replies)
    ]
    return pa.Table.from_pylist(rows, schema=TURNS_SCHEMA)


def scored(model: PairLogistic, table: pa.Table, unsafe: Any = None) -> list[dict[str, Any]]:
    made = RowScorer(model, "v0007", unsafe, max_chars=1000)(table)
    assert made.schema == SCORED_SCHEMA
    return made.to_pylist()


def test_a_bad_row_has_an_error_and_its_neighbours_have_scores(model: Fussy) -> None:
    replies = ["I like my tea."] * 37
    replies[3], replies[11], replies[20] = "explode", "nonsense", "long " * 500
    table = turns(*replies[:30], None, *replies[30:])
    rows = scored(model, table)
    errors = {i: row["error"] for i, row in enumerate(rows) if row["error"]}
    assert errors == {
        3: "the model raised ArithmeticError",
        11: "score is not a number",
        20: "too long",
        30: "no text",
    }
    assert all(rows[i]["good"] == rows[i]["fresh"] == 0.5 for i in errors)
    (same,) = {round(row["good"], 9) for row in rows if not row["error"]}
    assert same == pytest.approx(scored(model, turns("I like my tea."))[0]["good"])
    assert {row["reward_version"] for row in rows} == {"v0007"}


def test_a_bucket_of_bad_rows_ends_no_run(model: Fussy) -> None:
    rows = scored(model, turns("explode", "explode twice", "explode thrice"))
    assert {row["error"] for row in rows} == {"the model raised ArithmeticError"}


class Broken:
    base_rate = 0.5

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        raise ArithmeticError("whatever it is given")


def test_what_raises_on_whatever_it_is_given_is_no_row_s_fault() -> None:
    with pytest.raises(ArithmeticError):
        RowScorer(Broken(), "v0007", None, max_chars=1000)(turns("I like my tea.", "So do I."))


def test_a_cell_that_is_no_utf8_is_a_row_with_an_error(model: Fussy) -> None:
    table = turns("I like my tea.", "a?b", "I like my cat.")
    texts = b"I like my tea.a\xffbI like my cat."
    offsets = np.array([0, 14, 17, 31], np.int32)
    broken = pa.StringArray.from_buffers(3, pa.py_buffer(offsets), pa.py_buffer(texts))
    table = table.set_column(table.schema.get_field_index("reply"), "reply", broken)
    assert [row["error"] for row in scored(model, table)] == ["", "not UTF-8", ""]


def test_hindsight_is_in_good_and_never_in_fresh(model: Fussy) -> None:
    (thanked,) = scored(model, turns("I like my tea.", after="Thanks!"))
    (silent,) = scored(model, turns("I like my tea.", after=""))
    (unknown,) = scored(model, turns("I like my tea.", after=None))
    assert thanked["good"] == pytest.approx(silent["good"] + 0.1)
    assert thanked["fresh"] == silent["fresh"] == unknown["fresh"] == unknown["good"]


def test_a_thumb_moves_good_and_not_fresh(model: Fussy) -> None:
    (plain,), (down,) = (
        scored(model, turns("I like my tea.")),
        scored(model, turns("I like my tea.", rating=-1, evidence=-1.7)),
    )
    assert down["good"] < plain["good"] and down["fresh"] == plain["fresh"]
    assert plain["rating"] is None and down["rating"] == -1


def test_reply_and_the_message_before_it_are_asked_about_apart(model: Fussy) -> None:
    asked: list[Pair] = []

    def unsafe(pairs: Sequence[Pair]) -> np.ndarray:
        asked.extend(pairs)
        return np.array([float("tea" in pair.reply) for pair in pairs])

    (row,) = scored(model, turns("I like my tea.", context="You?\nSo do I."), unsafe)
    assert (row["unsafe"], row["unsafe_heard"]) == (1.0, 0.0)
    assert [(p.context, p.reply) for p in asked] == [("You?\nSo do I.", "I like my tea."), ("", "You?")]
    (nobody,) = scored(model, turns("I like my tea."))
    assert nobody["unsafe"] is None and nobody["unsafe_heard"] is None


def test_buckets_hold_every_row_once_shortest_first() -> None:
    lengths = np.random.default_rng(0).integers(0, 300, 16 * ROWS + 10)
    table = turns(*("x" * int(n) for n in lengths), None)
    cut = buckets(table)
    assert sorted(np.concatenate(cut).tolist()) == list(range(len(table)))
    assert [len(b) for b in cut] == [ROWS] * 16 + [11]
    assert [len(b) for b in buckets(table.slice(0, 960))] == [60] * 16  # for several actors to share
    assert [len(b) for b in buckets(table.slice(0, 70))] == [32, 32, 6]
    lengths = np.append(lengths, 0)
    assert lengths[cut[0]].max() <= lengths[cut[1]].min() <= lengths[cut[1]].max() <= lengths[cut[2]].min()
    assert buckets(table.slice(0, 0)) == []
