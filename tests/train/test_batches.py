"""Plans, the check of a training set, and rows side by side."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import TRAINING_SCHEMA
from bb3x_ray.train.batches import (
    check_rows,
    collate,
    load_plan,
    micro_batches,
    pack,
    plan_batches,
    read_rows,
    save_plan,
    sizes_of,
)

SET = Path("set.parquet")


def row(ids: list[int], imitate: str, avoid: str = "", row_id: str = "r") -> dict[str, Any]:
    """Masks as strings: "..xx" labels the third and the fourth token."""
    flags = {"imitate": imitate, "avoid": avoid or "." * len(imitate)}
    return {"row_id": row_id, "source": "test", "person": "p", "input_ids": ids} | {
        name: [mark == "x" for mark in text] for name, text in flags.items()
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), TRAINING_SCHEMA)


@pytest.mark.parametrize(("n_rows", "rows_per_step"), [(1, 8), (8, 8), (9, 8), (50, 7)])
def test_every_row_once_per_epoch_in_even_steps(n_rows: int, rows_per_step: int) -> None:
    plan = plan_batches(n_rows, rows_per_step, epochs=3, seed=4)
    per_epoch = len(plan.steps) // 3
    for epoch in range(3):
        steps = plan.steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(i for step in steps for i in step) == list(range(n_rows))
        sizes = [len(step) for step in steps]
        assert max(sizes) <= rows_per_step and max(sizes) - min(sizes) <= 1
    assert per_epoch == -(-n_rows // rows_per_step)


def test_a_plan_depends_on_its_seed_and_on_the_epoch() -> None:
    assert plan_batches(20, 4, 2, seed=1) == plan_batches(20, 4, 2, seed=1)
    assert plan_batches(20, 4, 2, seed=1) != plan_batches(20, 4, 2, seed=2)
    steps = plan_batches(20, 4, 2, seed=1).steps
    assert steps[:5] != steps[5:]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_workers_share_a_step_and_call_forward_equally_often(world: int) -> None:
    plan = plan_batches(23, 5, 1, seed=0)
    for step, rows in enumerate(plan.steps):
        shares = [plan.rows_of(step, rank, world) for rank in range(world)]
        assert Counter(i for share in shares for i in share) == Counter(rows)
        # Rows of one length, two of which fit together.
        count = plan.micro_batches(step, world, [(5,)] * 23, 10)
        assert all(len(share) <= 2 * count for share in shares)
        assert len(shares[0]) > 2 * (count - 1)


def test_a_plan_is_the_same_after_storing(tmp_path: Path) -> None:
    plan = plan_batches(11, 3, 2, seed=9)
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan


def test_labels_move_to_the_position_that_predicts() -> None:
    batch = collate([row([5, 6, 7, 8], "..x.", "...x"), row([9, 4], "xx")], pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 4]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert batch.segments == ((0, 4), (4, 6))
    # Row 0: token 7 is predicted from position 1, token 8 from position 2. Row 1 begins at position 4; the
    # label on its first token is dropped, as nothing predicts it.
    assert batch.at.tolist() == [1, 2, 4]
    assert batch.targets.tolist() == [7, 8, 4]
    assert batch.imitate.tolist() == [True, False, True]
    assert batch.avoid.tolist() == [False, True, False]
    assert batch.rows.tolist() == [0, 0, 1] and batch.places.tolist() == [2, 3, 1]
    assert (batch.labelled_tokens, batch.labelled_turns, batch.tokens) == (3, 3, 6)
    run = collate([row([5, 6, 7, 8, 9], ".xx.x"), row([9, 4], ".x")], pad_id=0)
    assert run.labelled_turns == 3


def test_a_row_of_two_conversations_is_two_segments() -> None:
    pair = row([5, 6, 7, 5, 6, 8], ".xx...", ".....x") | {"starts": [0, 3], "weight": [0.5] * 6}
    batch = collate([row([1, 2], ".x"), pair], pad_id=0)
    assert batch.segments == ((0, 2), (2, 5), (5, 8))
    assert batch.position_ids.tolist() == [[0, 1, 0, 1, 2, 0, 1, 2]]
    assert batch.at.tolist() == [0, 2, 3, 6] and batch.rows.tolist() == [0, 1, 1, 1]
    assert batch.weights.tolist() == [1.0, 0.5, 0.5, 0.5]


def test_row_seeds_belong_to_the_row() -> None:
    a, b = row([1, 2], ".x", row_id="a"), row([1, 2], ".x", row_id="b")
    forth, back = collate([a, b], 0), collate([b, a], 0)
    assert forth.row_seeds.tolist() == back.row_seeds.flip(0).tolist()
    assert forth.row_seeds[0] != forth.row_seeds[1]


@pytest.mark.parametrize("capacity", [5, 12, 100])
def test_packing_keeps_every_row_once_and_within_capacity(capacity: int) -> None:
    lengths = [3, 9, 4, 8, 2, 5, 5, 1]
    bins = pack([(length,) for length in lengths], capacity)
    assert sorted(i for members in bins for i in members) == list(range(8))
    for members in bins:
        assert len(members) == 1 or sum(lengths[i] for i in members) <= capacity
    if capacity == 12:
        assert len(bins) == 4  # 37 tokens do not fit into three


@pytest.mark.parametrize("micro_tokens", [20, 64])
def test_where_conversations_are_padded_the_padding_counts(micro_tokens: int) -> None:
    made = random.Random(0)
    rows = [row([1] * n, "x" * n, row_id=str(n)) for n in made.choices(range(2, 25), k=40)]
    rows += [row([1] * 20, "x" * 20, row_id=f"pair {n}") | {"starts": [0, n]} for n in range(3, 16)]
    plan = plan_batches(len(rows), 16, 1, seed=0)
    sizes = sizes_of(table(*rows))
    for step in range(len(plan.steps)):
        count = plan.micro_batches(step, 2, sizes, micro_tokens, padded=True)
        for rank in range(2):
            mine = [rows[i] for i in plan.rows_of(step, rank, 2)]
            batches = micro_batches(mine, count, micro_tokens, pad_id=0, padded=True)
            assert len(batches) == count
            assert sum(b.tokens for b in batches if b.tokens > 1) == sum(len(r["input_ids"]) for r in mine)
            for batch in batches:
                lengths = [end - start for start, end in batch.segments]
                alone = int(batch.rows.max()) == 0
                assert len(lengths) * max(lengths) <= micro_tokens or alone


def test_micro_batches_fill_up_with_an_unlabelled_token() -> None:
    rows = [row([1] * n, "." * n, row_id=str(n)) for n in (3, 9, 4, 8, 2)]
    batches = micro_batches(rows, count=4, micro_tokens=12, pad_id=7)
    assert [batch.tokens for batch in batches] == [12, 12, 2, 1]
    assert batches[3].labelled_tokens == 0 and batches[3].input_ids.tolist() == [[7]]
    assert len(batches[3].at) == 1  # the head is called all the same


def test_labels_that_can_be_learned_are_counted() -> None:
    rows = table(row([1, 2, 3], "xx.", "..x"), row([4, 5], ".."))
    assert check_rows(rows, SET, vocab_size=6, max_tokens=3) == 2


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "no token to learn from"),
        ([row([1, 2], "x.")], "no token to learn from"),
        ([row([1, 2], ".x"), row([1, 2, 3], ".x")], "row 1: masks must be as long"),
        ([row([], "")], "row 0: masks must be as long"),
        ([row([1, 2], ".x", ".x")], "row 0: a token is both"),
        ([row([1, 6], ".x")], "row 0: a token id is outside"),
        ([row([1, 2], ".x") | {"weight": [1.0, 1.5]}], "row 0: weights must be"),
        ([row([1, 2], ".x") | {"weight": [1.0]}], "row 0: weights must be"),
        ([row([1, 2], ".x") | {"starts": [0, 2]}], "row 0: starts must rise"),
        ([row([1, 2, 3, 4], ".x..")], "row 0: 4 tokens, but the model reads 3"),
    ],
)
def test_a_set_that_cannot_be_learned_from_is_refused(rows: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_rows(table(*rows), SET, vocab_size=6, max_tokens=3)


def test_reading_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training set"):
        read_rows(tmp_path / "missing.parquet")
    pq.write_table(pa.table({"row_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="lacks the columns source"):
        read_rows(tmp_path / "other.parquet")
