"""Versions are numbered once; the champion moves by three moves and no other (law 8)."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bb3x_ray.registry import Bootstrap, Promotion, Registry, Rollback, Trial
from bb3x_ray.schemas.canary import Canary
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.storage import Storage


@pytest.fixture
def registry(storage: Storage) -> Registry:
    return Registry(storage, "models")


def published(registry: Registry) -> str:
    version = registry.reserve()
    with registry.publish(version, {"source": "test"}, "# card\n") as folder:
        (folder / "weights").write_text(version)
    return version


def verdict(candidate: str, champion: str = "v0001", passed: bool = True) -> Verdict:
    return Verdict(candidate, champion, passed, (), {}, "v0001", "words")


@pytest.fixture
def two(registry: Registry) -> Registry:
    """v0001 is champion, v0002 is published."""
    published(registry), published(registry)
    registry.move_champion(Bootstrap("v0001"), expected=None)
    return registry


# numbers


def test_numbers_are_used_once_even_when_nothing_comes_of_them(registry: Registry) -> None:
    assert [registry.reserve() for _ in range(3)] == ["v0001", "v0002", "v0003"]
    assert registry.versions() == []
    assert published(registry) == "v0004"


def test_four_processes_never_get_the_same_number(tmp_path: Path) -> None:
    code = (
        "import sys; from bb3x_ray.registry import Registry; from bb3x_ray.storage import Storage\n"
        "registry = Registry(Storage(sys.argv[1]))\n"
        "sys.stdout.write(' '.join(registry.reserve() for _ in range(25)))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    numbers = [number for process in processes for number in process.communicate()[0].split()]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(numbers) == [f"v{n:04d}" for n in range(1, 101)]


def test_a_published_version_has_lineage_card_and_hashes(registry: Registry) -> None:
    folder = registry.folder(published(registry))
    assert (folder / "README.md").read_text() == "# card\n"
    assert registry.lineage("v0001") == {"version": "v0001", "source": "test"}
    files = json.loads((folder / "MANIFEST.json").read_text())["files"]
    assert set(files) == {"README.md", "lineage.json", "weights"}


def test_an_altered_version_is_refused_by_name(registry: Registry) -> None:
    weights = registry.storage.path("models", published(registry), "weights")
    weights.write_text("v9001")  # as long as before
    with pytest.raises(UserError, match="models/v0001/weights was altered"):
        registry.folder("v0001")


def test_lineage_can_be_completed_while_the_version_is_made(registry: Registry) -> None:
    lineage: dict[str, object] = {}
    with registry.publish(registry.reserve(), lineage, ""):
        lineage["parameters"] = 3
    assert registry.lineage("v0001")["parameters"] == 3


def test_kinds_are_counted_apart(storage: Storage, registry: Registry) -> None:
    registry.reserve()
    assert Registry(storage, "rewards").reserve() == "v0001"


# moves


def test_without_a_champion_the_error_says_how_to_get_one(registry: Registry) -> None:
    with pytest.raises(UserError, match="bb3x models import"):
        registry.champion  # noqa: B018


def test_bootstrap_only_once(two: Registry) -> None:
    assert two.champion == "v0001"
    with pytest.raises(UserError, match="champion already"):
        two.move_champion(Bootstrap("v0002"), expected="v0001")
    assert two.champion == "v0001"


def test_only_what_is_published_can_become_champion(registry: Registry) -> None:
    with pytest.raises(UserError, match="not published"):
        registry.move_champion(Bootstrap(registry.reserve()), expected=None)
    assert registry.alias("champion") is None


def test_a_promotion_needs_a_verdict_that_passed(two: Registry) -> None:
    with pytest.raises(ValueError, match="rejected"):
        two.move_champion(Promotion(verdict("v0002", passed=False)), expected="v0001")
    assert two.champion == "v0001" and two.alias("previous") is None


def test_a_promotion_moves_to_the_candidate_of_its_verdict_and_to_no_other(two: Registry) -> None:
    published(two)
    assert two.move_champion(Promotion(verdict("v0003")), expected="v0001") == "v0003"
    assert two.champion == "v0003" and two.alias("previous") == "v0001"


def test_a_verdict_about_what_was_never_published_promotes_nothing(two: Registry) -> None:
    with pytest.raises(UserError, match="v0009 is not published"):
        two.move_champion(Promotion(verdict("v0009")), expected="v0001")
    assert two.champion == "v0001"


def test_a_champion_that_moved_meanwhile_is_not_overwritten(two: Registry) -> None:
    published(two)
    two.move_champion(Promotion(verdict("v0002")), expected="v0001")
    with pytest.raises(UserError, match="moved meanwhile"):
        two.move_champion(Promotion(verdict("v0003")), expected="v0001")
    assert two.champion == "v0002"


def test_the_same_promotion_twice_moves_once(two: Registry) -> None:
    for _ in range(2):
        assert two.move_champion(Promotion(verdict("v0002")), expected="v0001") == "v0002"
    assert two.alias("previous") == "v0001"
    assert [record["by"] for record in two.history()] == ["Bootstrap", "Promotion"]


def test_a_rollback_returns_to_the_version_before_and_keeps_its_reason(two: Registry) -> None:
    two.move_champion(Promotion(verdict("v0002")), expected="v0001")
    assert two.move_champion(Rollback("thumbs fell"), expected="v0002") == "v0001"
    assert two.champion == "v0001"
    last = two.history()[-1]
    assert (last["by"], last["from"], last["version"]) == ("Rollback", "v0002", "v0001")
    assert last["reason"] == "thumbs fell"


def test_there_is_nothing_to_roll_back_to_at_first(two: Registry) -> None:
    with pytest.raises(UserError, match="no previous version"):
        two.move_champion(Rollback("why not"), expected="v0001")


def test_aliases_are_no_versions(two: Registry) -> None:
    assert two.versions() == ["v0001", "v0002"]


# adapters


def adapter(registry: Registry, base: str) -> str:
    version = registry.reserve()
    with registry.publish(version, {"parent": base}, "# card\n") as folder:
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return version


def test_an_adapter_names_its_base_and_needs_it(registry: Registry) -> None:
    assert adapter(registry, published(registry)) == "v0002" and adapter(registry, "v0002") == "v0003"
    assert registry.lineage("v0003")["base"] == "v0002" and "base" not in registry.lineage("v0001")
    assert registry.folder("v0003").name == "v0003"


def test_a_base_that_is_not_published_is_refused(registry: Registry) -> None:
    with pytest.raises(ValueError, match="v0001 is an adapter on v0007, which is not published"):
        adapter(registry, "v0007")
    assert registry.versions() == []


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "weights").write_text("v9001"), "v0001/weights was altered"),
        (shutil.rmtree, "v0001 is not there"),
    ],
)
def test_an_adapter_on_a_version_that_was_harmed_is_refused(
    registry: Registry, harm: Callable[[Path], Any], words: str
) -> None:
    adapter(registry, adapter(registry, published(registry)))
    harm(registry.storage.path("models", "v0001"))
    with pytest.raises(UserError, match=f"models/v0002 is an adapter on v0001, .*{words}") as caught:
        registry.folder("v0003")
    assert "models/v0003 is an adapter on v0002" in str(caught.value) and "\n" not in str(caught.value)


# the challenger and quarantine


def canary(candidate: str = "v0002", decision: str = "promote") -> Canary:
    return Canary(candidate, "v0001", decision, "words", {})  # type: ignore[arg-type]


def test_a_trial_needs_a_verdict_that_passed_against_this_champion(two: Registry) -> None:
    with pytest.raises(ValueError, match="rejected"):
        two.move_challenger(Trial(verdict("v0002", passed=False)), expected=None)
    with pytest.raises(UserError, match="judged against v0009"):
        two.move_challenger(Trial(verdict("v0002", champion="v0009")), expected=None)
    with pytest.raises(UserError, match="v0007 is not published"):
        two.move_challenger(Trial(verdict("v0007")), expected=None)
    assert two.challenger is None
    for _ in range(2):
        assert two.move_challenger(Trial(verdict("v0002")), expected=None) == "v0002"
    assert two.challenger == "v0002" and two.champion == "v0001"


def test_one_canary_at_a_time(two: Registry) -> None:
    published(two)
    two.move_challenger(Trial(verdict("v0002")), expected=None)
    with pytest.raises(UserError, match=r"v0002.*under way"):
        two.move_challenger(Trial(verdict("v0003")), expected=None)
    assert two.challenger == "v0002"


def test_a_challenger_is_promoted_by_its_canary_alone(two: Registry) -> None:
    two.move_challenger(Trial(verdict("v0002")), expected=None)
    with pytest.raises(UserError, match="under way"):
        two.move_champion(Promotion(verdict("v0002")), expected="v0001")
    for other in (canary("v0003"), canary(decision="rollback"), canary(decision="go on")):
        with pytest.raises(ValueError, match="does not promote"):
            two.move_champion(Promotion(verdict("v0002"), other), expected="v0001")
    assert two.champion == "v0001"
    for _ in range(2):
        assert two.move_champion(Promotion(verdict("v0002"), canary()), expected="v0001") == "v0002"
    assert two.challenger is None and two.alias("challenger") is None
    assert [move["by"] for move in two.history()] == ["Bootstrap", "Promotion"]


def test_a_canary_rolled_back_is_in_quarantine_with_its_data_slice(registry: Registry) -> None:
    published(registry)
    with registry.publish(registry.reserve(), {"parent": "v0001", "round": 7}, ""):
        pass
    registry.move_champion(Bootstrap("v0001"), expected=None)
    registry.move_challenger(Trial(verdict("v0002")), expected=None)
    for _ in range(2):
        end = registry.move_challenger(Rollback("thumbs fell", {"difference": -0.1}), expected="v0002")
        assert end is None
    about = registry.quarantine("v0002")
    assert (about["reason"], about["evidence"]) == ("thumbs fell", {"difference": -0.1})
    assert (about["slice"], about["parent"]) == ("rounds/0007/collect", "v0001")
    assert registry.quarantined() == ["v0002"] and registry.quarantined_rounds() == {7}
    assert registry.champion == "v0001"
    assert registry.versions() == ["v0001", "v0002"]


def test_what_is_in_quarantine_comes_back_by_no_move(two: Registry) -> None:
    two.move_challenger(Trial(verdict("v0002")), expected=None)
    two.move_challenger(Rollback("rude"), expected="v0002")
    for attempt in (
        lambda: two.move_challenger(Trial(verdict("v0002")), expected=None),
        lambda: two.move_champion(Promotion(verdict("v0002")), expected="v0001"),
        lambda: two.move_champion(Promotion(verdict("v0002"), canary()), expected="v0001"),
    ):
        with pytest.raises(UserError, match=r"quarantine \(rude\)"):
            attempt()
    assert two.champion == "v0001" and two.challenger is None


def test_a_challenger_that_moved_meanwhile_is_left_alone(two: Registry) -> None:
    published(two)
    two.move_challenger(Trial(verdict("v0002")), expected=None)
    with pytest.raises(UserError, match="moved meanwhile"):
        two.move_challenger(Rollback("late"), expected="v0003")
    assert two.challenger == "v0002" and two.quarantined() == []


def test_a_move_killed_half_way_is_no_canary_any_more_and_ends_when_made_again(two: Registry) -> None:
    two.move_challenger(Trial(verdict("v0002")), expected=None)
    left = two.storage.path("models", "aliases", "challenger.json").read_text()
    two.move_champion(Promotion(verdict("v0002"), canary()), expected="v0001")
    two.storage.path("models", "aliases", "challenger.json").write_text(left)
    assert two.challenger is None and two.alias("challenger") == "v0002"
    two.move_champion(Promotion(verdict("v0002"), canary()), expected="v0001")
    assert two.alias("challenger") is None


def test_rollbacks_go_down_the_line_and_never_to_quarantine(two: Registry) -> None:
    published(two)
    two.move_champion(Promotion(verdict("v0002")), expected="v0001")
    two.move_champion(Promotion(verdict("v0003", champion="v0002")), expected="v0002")
    two.move_champion(Rollback("first"), expected="v0003")
    assert two.champion == "v0002" and two.alias("previous") == "v0001"
    two.move_champion(Rollback("second"), expected="v0002")
    assert two.champion == "v0001" and two.alias("previous") is None
    assert two.quarantined() == ["v0002", "v0003"]
    with pytest.raises(UserError, match="no previous version"):
        two.move_champion(Rollback("third"), expected="v0001")


# files that do not fit


def model_version(registry: Registry, tokens: int, rows: int, parent: str | None = None) -> str:
    version = registry.reserve()
    with registry.publish(version, {"parent": parent}, "") as folder:
        vocabulary = {f"t{i}": i for i in range(tokens)}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
        (folder / "config.json").write_text(json.dumps({"vocab_size": rows}))
    return version


def test_a_tokenizer_with_tokens_beyond_the_embedding_is_refused_in_one_sentence(registry: Registry) -> None:
    registry.folder(model_version(registry, 10, 16))
    with pytest.raises(UserError, match=r"v0002/tokenizer.json has 17 tokens and .* 16 rows") as caught:
        registry.folder(model_version(registry, 17, 16))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_is_not_the_parents_is_refused(registry: Registry) -> None:
    model_version(registry, 10, 16)
    registry.folder(model_version(registry, 10, 16, "v0001"))
    with pytest.raises(UserError, match=r"models/v0003/tokenizer.json is not that of models/v0001"):
        registry.folder(model_version(registry, 11, 16, "v0001"))


def test_a_shard_that_only_the_index_knows_is_missing(registry: Registry) -> None:
    version = registry.reserve()
    with registry.publish(version, {}, "") as folder:
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model-00001-of-00002.safetensors is missing"):
        registry.folder(version)
