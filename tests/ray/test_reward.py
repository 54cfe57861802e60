"""Bot turns scored by Ray Data actors with the embedded encoder, and rendered by tasks."""

from pathlib import Path

import pyarrow as pa
import pytest

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.config import CurateConfig, RewardConfig
from bb3x_ray.data.curate import Each, curate, one_by_one
from bb3x_ray.data.on_ray.in_order import on_all_cores
from bb3x_ray.data.slices import Slice, write
from bb3x_ray.reward.on_ray import score_groups, score_turns
from bb3x_ray.reward.reward_model import train_reward
from bb3x_ray.reward.turns import TURNS_SCHEMA, turns_table
from bb3x_ray.rounds.turns_of_slice import TurnsOfSlice
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import SCORED_SCHEMA, CurationReport, Scored
from tests.data.make import to_table
from tests.reward.make import conversation, crowd, examples

pytestmark = pytest.mark.ray
CONFIG = RewardConfig(min_actors=1, max_actors=2, num_cpus=0.5)


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    model, _ = train_reward(examples(crowd(20, 0, 4, seed=0)), CONFIG, 0, load_encoder())
    model.save(folder)
    return folder


def talks(count: int) -> list[Conversation]:
    return [
        conversation(f"c{i:03d}", f"p{i % 3}", "What about it?", "I like my tea.", thumbs={1: 1})
        for i in range(count)
    ]


def test_turns_come_back_scored_in_order_and_a_bad_row_is_a_row_with_an_error(
    ray_cluster: None, reward: Path
) -> None:
    rows = list(reversed(turns_table(talks(150), frozenset({"p0"})).to_pylist()))
    rows[70]["reply"] = None
    scored = score_turns(pa.Table.from_pylist(rows, schema=TURNS_SCHEMA), reward, CONFIG)
    turns = scored.to_pylist()

    assert scored.schema == SCORED_SCHEMA
    assert [t["message_id"] for t in turns] == [row["message_id"] for row in rows]
    assert turns[70]["error"] == "no text" and turns[70]["good"] == 0.5
    assert not any(t["error"] for i, t in enumerate(turns) if i != 70)
    of_p0 = [t for t in turns if t["person"] == "p0"]
    assert {t["trusted"] for t in of_p0} == {False} and {t["rating"] for t in of_p0} == {None}
    assert turns[0]["rating"] == 1 and turns[0]["good"] > of_p0[0]["good"] > 0.3


def test_no_turns_need_no_actor(ray_cluster: None, reward: Path) -> None:
    none = score_turns(turns_table([], frozenset()), reward, CONFIG)
    assert none.schema == SCORED_SCHEMA and len(none) == 0


def test_a_slice_is_scored_group_by_group_as_its_turns_are(
    ray_cluster: None, reward: Path, tmp_path: Path
) -> None:
    slice_ = Slice(tmp_path / "slice.parquet")
    write(slice_.path, [to_table(talks(50))], group=16)
    turns_of = TurnsOfSlice(slice_, frozenset({"p0"}), frozenset({"p1"}))
    scored = pa.concat_tables(score_groups(turns_of, slice_.groups, reward, CONFIG))
    kept = [c for c in talks(50) if c.person != "p1"]
    at_once = score_turns(turns_table(kept, frozenset({"p0"})), reward, CONFIG)
    numbers = ["good", "fresh"]
    assert scored.drop_columns(numbers) == at_once.drop_columns(numbers) and len(scored) == len(kept) == 33
    assert scored["good"].to_pylist() == pytest.approx(at_once["good"].to_pylist(), abs=1e-5)
    nobody = TurnsOfSlice(slice_, frozenset(), frozenset({"p0", "p1", "p2"}))
    assert list(score_groups(nobody, slice_.groups, reward, CONFIG)) == []


def test_rows_of_groups_are_the_same_on_all_cores(
    ray_cluster: None, tiny_model: Path, tmp_path: Path
) -> None:
    slice_ = Slice(tmp_path / "slice.parquet")
    write(slice_.path, [to_table(talks(50))], group=16)
    turns = turns_table(talks(50), frozenset())
    good = pa.array([n / 50 for n in range(50)])
    errors = pa.array([""] * 50)
    columns = {**{name: turns[name] for name in ("conversation_id", "message_id", "person")}, "good": good}
    columns |= {"rating": turns["rating"], "trusted": turns["trusted"], "error": errors, "fresh": good}
    columns |= {"unsafe": pa.nulls(50, pa.float64()), "unsafe_heard": pa.nulls(50, pa.float64())}
    columns |= {"reward_version": pa.array(["v0001"] * 50)}
    scored = Scored(pa.table(columns, schema=SCORED_SCHEMA), {}, frozenset(), "v0001", {})

    def made(each: Each) -> tuple[list[pa.Table], CurationReport]:
        tables: list[pa.Table] = []
        report = curate(
            slice_, scored, tiny_model, [], CurateConfig(), "Be kind.", 0.6, 0.1, 0, tables.append, each=each
        )
        return tables, report

    assert made(on_all_cores) == made(one_by_one)
    assert len(made(one_by_one)[0]) == 5


def test_an_error_in_a_task_is_told_as_it_was(ray_cluster: None) -> None:
    with pytest.raises(UserError, match=r"^number 3 is refused$"):
        list(on_all_cores(_refuse_three, 6))


def _refuse_three(number: int) -> int:
    if number == 3:
        raise UserError("number 3 is refused")
    return number
