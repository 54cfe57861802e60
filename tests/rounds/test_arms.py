"""What replicas are told of a canary, at each of its stages and wherever a move was killed."""

import pickle
from pathlib import Path

import pytest

from bb3x_ray.registry import Bootstrap, Promotion, Registry, Rollback, Trial
from bb3x_ray.rounds.arms import FindArms
from bb3x_ray.schemas.canary import Canary
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.storage import Storage

VERDICT = Verdict("v0002", "v0001", True, (), {}, "v0001", "")


@pytest.fixture
def models(storage: Storage) -> Registry:
    models = Registry(storage)
    for _ in range(3):
        with models.publish(models.reserve(), {}, "card"):
            pass
    models.move_champion(Bootstrap("v0001"), expected=None)
    return models


def test_the_challenger_is_found_while_its_canary_lasts(models: Registry) -> None:
    find = pickle.loads(pickle.dumps(FindArms(models.storage.root, 20)))
    assert find() == ("v0001", None, 20)
    models.move_challenger(Trial(VERDICT), expected=None)
    assert find() == ("v0001", "v0002", 20)
    assert FindArms(models.storage.root, 0)() == ("v0001", None, 0)
    models.move_champion(Promotion(VERDICT, Canary("v0002", "v0001", "promote", "")), expected="v0001")
    assert find() == ("v0002", None, 20)


def test_nobody_is_sent_to_quarantine(models: Registry) -> None:
    find = FindArms(models.storage.root, 20)
    models.move_challenger(Trial(VERDICT), expected=None)
    alias = models.storage.path("models", "aliases", "challenger.json")
    left = alias.read_text()
    models.move_challenger(Rollback("rude"), expected="v0002")
    assert find() == ("v0001", None, 20)
    alias.write_text(left)  # as if it had been killed between quarantine and alias
    assert find() == ("v0001", None, 20)


def test_a_canary_against_a_champion_that_is_gone_is_over(models: Registry) -> None:
    models.move_challenger(Trial(VERDICT), expected=None)
    other = Verdict("v0003", "v0001", True, (), {}, "v0001", "")
    models.move_champion(Promotion(other), expected="v0001")
    assert FindArms(models.storage.root, 20)() == ("v0003", None, 20)


def test_who_reads_while_a_canary_ends_finds_none(models: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas read without a lock: what was seen may be gone before it is opened."""
    models.move_challenger(Trial(VERDICT), expected=None)
    models.move_challenger(Rollback("rude"), expected="v0002")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", lambda _: True)
        assert models.challenger is None and FindArms(models.storage.root, 20)() == ("v0001", None, 20)
