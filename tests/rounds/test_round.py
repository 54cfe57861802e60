from pathlib import Path

import pytest

from bb3x_ray.data.slices import Slice
from bb3x_ray.rounds.ledger import Ledger
from bb3x_ray.rounds.round import RoundPlan, run_round
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import SCORED_SCHEMA, Candidate, Scored, Verdict
from bb3x_ray.storage import Storage

PLAN = RoundPlan(1, 0, "v0001", "v0002", 0)


class Notes:
    """Steps that note the order in which they are asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def collect(self, plan: RoundPlan) -> Slice:
        self.asked.append("collect")
        return Slice(Path("slice.parquet"))

    def score(self, plan: RoundPlan, slice_: Slice) -> Scored:
        self.asked.append("score")
        return Scored(SCORED_SCHEMA.empty_table(), {}, frozenset(), "v0001", {})

    def curate(self, plan: RoundPlan, slice_: Slice, scored: Scored) -> str:
        self.asked.append("curate")
        return "rounds/0001/curate"

    def train(self, plan: RoundPlan, training_set: str) -> Candidate:
        self.asked.append(f"train {training_set}")
        return Candidate(plan.candidate, plan.champion, plan.number)

    def evaluate(self, plan: RoundPlan, candidate: Candidate) -> Verdict:
        self.asked.append(f"evaluate {candidate.version}")
        return Verdict(candidate.version, plan.champion, False, (), {}, "v0001", "")

    def hand_over(self, plan: RoundPlan, verdict: Verdict) -> None:
        self.asked.append(f"hand over {verdict.passed}")


def test_a_round_is_told_in_one_order() -> None:
    notes = Notes()
    verdict = run_round(PLAN, notes)
    assert verdict.candidate == "v0002"
    assert notes.asked == [
        "collect",
        "score",
        "curate",
        "train rounds/0001/curate",
        "evaluate v0002",
        "hand over False",
    ]


def test_a_plan_is_made_once(storage: Storage) -> None:
    ledger = Ledger(storage)
    made = []

    def make() -> RoundPlan:
        made.append(1)
        return PLAN

    assert ledger.plan(1, make) == ledger.plan(1, make) == PLAN
    assert made == [1]


def test_a_step_is_done_when_its_manifest_is_there(storage: Storage) -> None:
    ledger = Ledger(storage)
    with pytest.raises(RuntimeError), ledger.publish(PLAN.name, "collect") as folder:
        (folder / "slice.parquet").write_bytes(b"half")
        raise RuntimeError("killed here")
    assert not ledger.is_done(PLAN.name, "collect")
    with ledger.publish(PLAN.name, "collect") as folder:
        (folder / "slice.parquet").write_bytes(b"whole")
    assert ledger.is_done(PLAN.name, "collect")


def test_an_altered_step_is_refused(storage: Storage) -> None:
    ledger = Ledger(storage)
    with ledger.publish(PLAN.name, "score") as folder:
        (folder / "scored.json").write_text("{}")
    Path(storage.path(PLAN.name, "score", "scored.json")).write_text("[]")
    with pytest.raises(UserError, match=r"scored\.json was altered"):
        ledger.folder(PLAN.name, "score")
