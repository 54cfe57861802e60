"""Versions for people's eyes, and the moves that they make by hand."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from bb3x_ray.cli import app
from bb3x_ray.config import Config
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.canary import Canaries
from bb3x_ray.rounds.versions import about, damages, promote, roll_back
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Gate, Verdict
from bb3x_ray.storage import Storage
from tests.rounds.canary_store import VERDICT, make_store

LOCAL = str(Path(__file__).parents[2] / "configs" / "local.yaml")
REJECTED = Verdict("v0002", "v0001", False, (Gate("unsafe", False, 0.2, 0.15, "more"),), {}, "v0001", "worse")


def command(storage: Storage, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["models", *arguments, "-c", LOCAL, f"storage.root={storage.root}"])
    return done.exit_code, done.stdout


def begin(storage: Storage) -> None:
    Canaries(storage, Config(**{"canary": {"share": 10}}), lambda _: None).begin(VERDICT)


def test_list_tells_aliases_and_what_became_of_each(storage: Storage) -> None:
    models = make_store(storage)
    code, text = command(storage, "list")
    assert code == 0 and "passed, not promoted" in text and "round 1 from v0001" in text
    begin(storage)
    assert about(storage, "v0002").state == "canary" and about(storage, "v0002").aliases == ("challenger",)
    promote(storage, "v0002", "we looked at it")
    told = json.loads(command(storage, "list", "--json")[1])
    assert [(one["version"], one["aliases"], one["state"]) for one in told] == [
        ("v0001", ["previous"], "was champion"),
        ("v0002", ["champion"], "champion"),
    ]
    assert models.history()[-1]["canary"] == "ended by hand: we looked at it"


def test_promoting_by_hand_needs_a_verdict_that_passed(storage: Storage) -> None:
    models = make_store(storage, verdict=REJECTED)
    with pytest.raises(UserError, match=r"v0002 was rejected \(unsafe\)"):
        promote(storage, "v0002", "")
    with pytest.raises(UserError, match="v0001 has no verdict"):
        promote(storage, "v0001", "")
    with pytest.raises(UserError, match="there is no v0009"):
        promote(storage, "v0009", "")
    assert models.champion == "v0001"


def test_a_canary_is_ended_by_hand_with_a_reason_only(storage: Storage) -> None:
    models = make_store(storage)
    begin(storage)
    with pytest.raises(UserError, match="give --reason"):
        promote(storage, "v0002", "")
    assert models.champion == "v0001"
    with pytest.raises(UserError, match="needs --reason"):
        roll_back(storage, " ")
    assert "canary of v0002 is over" in roll_back(storage, "rude")
    assert about(storage, "v0002").state == "quarantine" and models.champion == "v0001"
    with pytest.raises(UserError, match=r"quarantine \(rude\)"):
        promote(storage, "v0002", "")


def test_the_champion_goes_back_and_what_was_left_is_shown_with_its_reason(storage: Storage) -> None:
    models = make_store(storage)
    promote(storage, "v0002", "")
    assert "v0001 is champion again" in roll_back(storage, "people complained")
    assert models.champion == "v0001"
    code, text = command(storage, "show", "v0002")
    assert code == 0 and "people complained" in text and "rounds/0001/collect" in text
    assert "card of v0001's child" in text and "quality: passed" in text


def test_a_version_that_was_altered_is_not_promoted_and_verify_says_why(storage: Storage) -> None:
    models = make_store(storage)
    storage.path("models", "v0002", "weights").write_text("Weights")
    with pytest.raises(UserError, match="v0002/weights was altered"):
        promote(storage, "v0002", "")
    assert models.champion == "v0001"
    (sentence,) = damages(storage, [])
    assert "v0002/weights was altered" in sentence and "\n" not in sentence
    assert damages(storage, ["v0001"]) == []
    code, text = command(storage, "verify")
    assert code == 1 and "2 versions, 1 that cannot be used" in text
    storage.path("models", "v0002", "weights").unlink()
    assert "v0002/weights is missing" in damages(storage, ["v0002"])[0]


def test_previous_versions_of_the_project_left_no_canary(storage: Storage) -> None:
    make_store(storage)
    assert about(storage, "v0001").canary is None and Registry(storage).quarantined() == []


def test_diff_tells_lineage_config_verdict_and_each_tensor(storage: Storage) -> None:
    models = make_store(storage)
    for number, scale in ((3, 1.0), (4, 1.25)):
        lineage = {"parent": "v0001", "metrics": {"seconds": float(number)}}
        with models.publish(models.reserve(), lineage, "") as folder:
            tensors = {"moved.weight": scale * torch.ones(4, 2), "same.weight": torch.ones(3)}
            save_file(tensors, folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps({"dtype": "float32", "seed": number}))
    code, text = command(storage, "diff", "v0003", "v0004")
    assert code == 0 and "metrics.seconds" in text and "seed" in text and "dtype" not in text
    assert "moved.weight" in text and "2.500e-01" in text and "4×2" in text
    assert "2 tensors, 1 of them the same, 0 not shown" in text
    code, text = command(storage, "diff", "v0003", "v0004", "-n", "1")
    assert "same.weight" not in text and "1 not shown" in text
