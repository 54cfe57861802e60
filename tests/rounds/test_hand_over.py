"""Hand over: the alias, then the server; killed in between, asked again, it ends the same."""

from pathlib import Path

import pytest

from bb3x_ray.registry import Bootstrap, Promotion, Registry, Rollback
from bb3x_ray.rounds.hand_over import hand_over, require_sound_parent
from bb3x_ray.rounds.round import RoundPlan
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.storage import Storage

PLAN = RoundPlan(1, 0, "v0001", "v0002", 0)


class Killed(BaseException):
    pass


class Server:
    """Answers with the version that it was last told; `dies` once before it swaps."""

    url = "http://127.0.0.1:1"

    def __init__(self, registry: Registry, dies: bool = False) -> None:
        self.registry, self.dies, self.version = registry, dies, "v0001"

    def swap(self, version: str) -> None:
        assert self.registry.champion == version, "the alias moves first: a replica that starts now reads it"
        if self.dies:
            self.dies = False
            raise Killed
        self.version = version


def verdict(passed: bool, candidate: str = "v0002") -> Verdict:
    return Verdict(candidate, "v0001", passed, (), {}, "v0001", "")


@pytest.fixture
def models(storage: Storage) -> Registry:
    models = Registry(storage)
    for _ in range(3):
        with models.publish(models.reserve(), {}, "card") as folder:
            Path(folder / "model.safetensors").write_bytes(b"weights")
    models.move_champion(Bootstrap("v0001"), expected=None)
    return models


def test_a_passed_candidate_answers_and_is_champion(models: Registry) -> None:
    server = Server(models)
    hand_over(PLAN, verdict(True), models, server)
    assert models.champion == server.version == "v0002"


def test_a_rejected_candidate_changes_nothing(models: Registry) -> None:
    server = Server(models)
    hand_over(PLAN, verdict(False), models, server)
    assert models.champion == server.version == "v0001"


def test_killed_between_alias_and_swap_it_goes_on(models: Registry) -> None:
    server = Server(models, dies=True)
    with pytest.raises(Killed):
        hand_over(PLAN, verdict(True), models, server)
    hand_over(PLAN, verdict(True), models, server)
    assert server.version == models.champion == "v0002"
    assert [move["by"] for move in models.history()] == ["Bootstrap", "Promotion"]


def test_without_a_server_only_the_alias_moves(models: Registry) -> None:
    assert "takes it up" in hand_over(PLAN, verdict(True), models, None)
    assert models.champion == "v0002"


def test_a_verdict_about_another_version_is_refused(models: Registry) -> None:
    with pytest.raises(UserError, match="v0003"):
        hand_over(PLAN, verdict(True, candidate="v0003"), models, None)
    assert models.champion == "v0001"


def test_a_candidate_whose_champion_is_gone_is_superseded(models: Registry) -> None:
    models.move_champion(Promotion(verdict(True, candidate="v0003")), expected="v0001")
    assert "superseded" in hand_over(PLAN, verdict(True), models, None)
    assert models.champion == "v0003"


def test_with_a_canary_the_champion_stays_and_the_canary_begins(models: Registry) -> None:
    server, begun = Server(models), list[str]()

    def begin(verdict: Verdict) -> str:
        begun.append(verdict.candidate)
        return "begun"

    assert hand_over(PLAN, verdict(True), models, server, begin) == "begun"
    assert "stays" in hand_over(PLAN, verdict(False), models, server, begin)
    assert begun == ["v0002"] and models.champion == server.version == "v0001"


def test_a_candidate_that_its_canary_promoted_meanwhile_begins_none(models: Registry) -> None:
    server = Server(models)
    models.move_champion(Promotion(verdict(True)), expected="v0001")
    assert "answers" in hand_over(PLAN, verdict(True), models, server, begin=lambda _: pytest.fail("again"))
    assert server.version == "v0002"


def test_training_never_starts_from_quarantine(models: Registry) -> None:
    require_sound_parent(PLAN, models)
    models.move_champion(Promotion(verdict(True)), expected="v0001")
    models.move_champion(Rollback("rude"), expected="v0002")
    plan = RoundPlan(2, 0, "v0002", "v0003", 0)
    with pytest.raises(UserError, match=r"rounds/0002 was planned to train from v0002.*\(rude\)"):
        require_sound_parent(plan, models)
