"""Thumbs counted by Ray Data's group-by are those counted in one process."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bb3x_ray.cli import app
from bb3x_ray.config import TrustConfig
from bb3x_ray.reward.on_ray import count_thumbs
from bb3x_ray.reward.trust.confusion import observe
from bb3x_ray.reward.trust.folds import thumbs_of_people
from bb3x_ray.reward.trust.table import TRUST_SCHEMA, trust_table
from bb3x_ray.schemas.errors import UserError

pytestmark = pytest.mark.ray


def judged(rows: int, people: int, seed: int) -> pa.Table:
    rng = random.Random(seed)
    made = []
    for _ in range(rows):
        who, good = rng.randrange(people), rng.random() < 0.5
        rating = good != (who % 5 == 0)  # every fifth turns thumbs round
        made.append((f"p{who:04d}", 1 if rating else -1, 0.85 if good else 0.15))
    person, rating, p = zip(*made, strict=True)
    return pa.table({"person": person, "rating": pa.array(rating, pa.int8()), "p": pa.array(p, pa.float32())})


def test_files_of_thumbs_give_the_same_trust_as_one_process(ray_cluster: None, tmp_path: Path) -> None:
    table = judged(4000, 300, seed=0)
    for number in range(4):
        part = table.slice(number * 1000, 1000)
        pq.write_table(part, tmp_path / f"{number}.parquet", row_group_size=300)
    counted = count_thumbs([str(path) for path in sorted(tmp_path.glob("*.parquet"))])
    labels = [int(rating > 0) for rating in table["rating"].to_pylist()]
    thumbs = thumbs_of_people(labels, table["person"].to_pylist(), [0] * 4000)
    assert list(counted.people) == sorted(set(table["person"].to_pylist()))
    np.testing.assert_array_equal(counted.counts, observe(thumbs, table["p"].to_numpy()))
    trust = trust_table(counted, TrustConfig())
    assert trust.schema == TRUST_SCHEMA
    found = set(trust.filter(trust["distrusted"])["person"].to_pylist())
    assert found == {f"p{i:04d}" for i in range(0, 300, 5)}


def test_rows_without_a_thumb_or_a_score_are_left_out(ray_cluster: None) -> None:
    table = pa.table(
        {
            "person": ["ada", "ada", "bob"],
            "rating": pa.array([1, None, -1], pa.int8()),
            "p": pa.array([0.9, 0.9, None], pa.float32()),
        }
    )
    counted = count_thumbs(table)
    assert counted.people == ("ada",) and counted.counts.sum() == 1
    assert len(trust_table(count_thumbs(table.slice(1)), TrustConfig())) == 0


def test_as_in_rounds_nobody_is_distrusted_by_models_that_know_nothing_or_few_thumbs(
    ray_cluster: None,
) -> None:
    table = judged(4000, 300, seed=0)
    helpers = table.filter(pa.array([int(name[1:]) % 5 != 0 for name in table["person"].to_pylist()]))
    upside_down = pa.array(1 - helpers["p"].to_numpy())
    wrong = trust_table(count_thumbs(helpers.set_column(2, "p", upside_down)), TrustConfig())
    few = trust_table(count_thumbs(table), TrustConfig(min_all_thumbs=5000))
    assert not any(wrong["distrusted"].to_pylist()) and not any(few["distrusted"].to_pylist())


def test_the_command_writes_the_table_and_refuses_what_is_none(ray_cluster: None, tmp_path: Path) -> None:
    def command(file: Path) -> BaseException | None:
        return CliRunner().invoke(app, ["trust", "table", str(file), "--out", str(out)]).exception

    table, out = judged(2000, 100, seed=1), tmp_path / "made" / "trust.parquet"
    whole, words = tmp_path / "whole.parquet", tmp_path / "words.parquet"
    pq.write_table(table, whole)
    pq.write_table(table.set_column(1, "rating", table["rating"].cast(pa.string())), words)
    for file, about in ((words, "column rating"), (tmp_path / "nothing.parquet", "no such Parquet file")):
        error = command(file)
        assert isinstance(error, UserError) and about in str(error)
    assert command(whole) is None
    found = pq.read_table(out)
    assert found.schema == TRUST_SCHEMA
    assert found.filter(found["distrusted"])["person"].to_pylist() == [f"p{i:04d}" for i in range(0, 100, 5)]
