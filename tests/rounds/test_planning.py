"""`bb3x plan`: from a config to sentences and numbers, without a GPU, the storage root left untouched."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bb3x_ray import cli
from bb3x_ray.config import Config
from bb3x_ray.config_file import load_config
from bb3x_ray.rounds.planning import as_json, plan_for, round_size, show
from bb3x_ray.train.footprint import GIB
from bb3x_ray.train.plan import Plan

CONFIGS = Path(__file__).parents[2] / "configs"


def config_of(name: str, tmp_path: Path, *overrides: str) -> Config:
    return load_config(CONFIGS / f"{name}.yaml", [f"storage.root={tmp_path / 'store'}", *overrides])


def words(plan: Plan) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    show(plan, console)
    return console.export_text()


def test_the_demo_is_planned_on_this_machine(tmp_path: Path) -> None:
    plan = plan_for(config_of("local", tmp_path))
    assert plan.machines.gpu.is_cpu and plan.setup.precision == "float32" and plan.gpu.beside > 0
    assert plan.gpu.total < 12 * GIB
    assert not (tmp_path / "store").exists()
    assert "this machine's CPU" in words(plan) and "a node" not in words(plan)


def test_every_part_is_printed_and_what_fits_says_so(tmp_path: Path) -> None:
    said = words(plan_for(config_of("bb3x_3b", tmp_path), gpu="H100"))
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "FLOPs in all", "training"):
        assert f" {part}" in said
    assert "4 workers on H100" in said and "It fits, by arithmetic" in said


def test_what_does_not_fit_comes_with_its_cure(tmp_path: Path) -> None:
    plan = plan_for(config_of("bb3x_3b", tmp_path, "train.zero_stage=0"), gpu="H100", gpus=2)
    assert plan.setup.workers == 2 and not plan.fits
    said = words(plan)
    assert "Does not fit: " in said and "It fits with train.zero_stage=" in said
    assert plan_for(config_of("bb3x_3b", tmp_path), gpu="H100", gpus=8).setup.workers == 8


def test_a_gpu_that_is_shared_holds_the_server_too(tmp_path: Path) -> None:
    assert plan_for(config_of("one_gpu", tmp_path), gpu="L40S").gpu.beside > 2 * 1.7e9
    assert plan_for(config_of("cluster", tmp_path), gpu="L40S").gpu.beside == 0


def test_a_round_is_as_large_as_its_people_and_rows(tmp_path: Path) -> None:
    config = config_of("local", tmp_path)
    size = round_size(config)
    assert size.rows == config.talk.helpers + config.talk.trolls + config.curate.human_rows
    assert 25 < size.row_tokens <= config.curate.max_tokens
    assert round_size(config, rows=5000).rows == 5000


def test_the_command_prints_json_and_tells_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(name: str) -> tuple[int, dict[str, object]]:
        arguments = ["bb3x", "plan", "-c", str(CONFIGS / f"{name}.yaml"), "--gpu", "H100", "--json"]
        monkeypatch.setattr(sys, "argv", [*arguments, f"storage.root={tmp_path}"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), json.loads(capsys.readouterr().out)

    code, plan = command("bb3x_3b")
    assert code == 0 and plan["fits"] and plan["parameters"] == 4_022_468_096
    code, plan = command("bb3x_175b")
    assert code == 1 and not plan["fits"] and plan["problems"]


def test_json_holds_numbers_alone_where_numbers_are_meant(tmp_path: Path) -> None:
    plan = as_json(plan_for(config_of("cluster", tmp_path), gpu="A100-40"))
    assert plan["gpu_bytes"]["total"] <= plan["gpu_usable_bytes"]
    assert plan["effort"]["seconds"] > plan["effort"]["training"] > 0
