"""Every config that ships parses, keeps its name and asks for resources that can be had together."""

import re
from pathlib import Path

import pytest

from bb3x_ray.config import Config
from bb3x_ray.config_file import load_config
from bb3x_ray.rounds.planning import plan_for
from bb3x_ray.train.footprint import GIB, answering_bytes
from bb3x_ray.train.gpus import find_gpu
from bb3x_ray.train.shapes import shape_of

FOLDER = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
# The GPU that each config is meant for. Its comment names it too.
MEANT_FOR = {
    "one_gpu": "L40S",
    "cluster": "A100-40",
    "bb3x_3b": "H100",
    "bb3x_30b": "H200",
    "bb3x_175b": "H100",
}


def shipped(name: str) -> Config:
    return load_config(FOLDER / f"{name}.yaml")


def test_the_configs_that_are_promised_ship() -> None:
    promised = {"local", "recorded", "one_gpu", "cluster", "bb3x_3b", "bb3x_30b", "bb3x_175b"}
    assert promised <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_parses_and_is_called_as_its_file(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_no_two_configs_share_a_storage_root() -> None:
    roots = [load_config(path).storage.root for path in SHIPPED]
    assert len(set(roots)) == len(roots)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_thresholds_leave_a_gap_and_contexts_hold_a_reply(path: Path) -> None:
    config = load_config(path)
    assert config.reward.avoid_below < config.reward.imitate_above
    assert config.chat.max_new_tokens * 4 <= config.chat.max_context_tokens
    assert config.chat.max_new_tokens <= config.serve.max_reply_tokens
    assert config.train.rows_per_step % config.train.workers == 0


def test_on_one_gpu_training_and_evaluation_fit_beside_the_server() -> None:
    """The server never leaves: what comes beside it, one after the other, must fit into the rest."""
    config = shipped("one_gpu")
    server = config.serve.num_replicas * config.serve.num_gpus
    training = config.train.workers * config.train.gpus_per_worker
    assert 0 < server < 1
    assert server + training <= 1
    assert server + config.evaluate.num_gpus <= 1
    assert config.train.dtype == config.model.dtype == "bfloat16"


@pytest.mark.parametrize("extra", [[], ["train.lora.publish=adapter", "train.iterations=1", "train.lr=1e-4"]])
def test_what_the_comment_on_adapters_offers_loads(tmp_path: Path, extra: list[str]) -> None:
    text = (FOLDER / "one_gpu.yaml").read_text()
    assert text.count("  # lora:") == 1
    path = tmp_path / "one_gpu.yaml"
    path.write_text(text.replace("  # lora:", "  lora:"))
    assert load_config(path, extra).train.lora.r == 16


REAL = ["one_gpu", "cluster", "bb3x_3b", "bb3x_30b", "bb3x_175b"]


@pytest.mark.parametrize("name", REAL)
def test_a_config_for_real_people_simulates_nobody_and_checks_what_is_shown(name: str) -> None:
    config = shipped(name)
    assert config.talk.people == "none" and config.safety_replies.check == "both"


def server_gib(config: Config, versions: int) -> float:
    """Weights and caches, each as long as a request may make it."""
    tokens = config.chat.max_context_tokens + config.serve.max_reply_tokens
    one = answering_bytes(shape_of(config.model.source), config.serve.max_batch, tokens)
    return versions * one / GIB


@pytest.mark.parametrize("name", REAL)
def test_there_is_a_canary_where_a_replicas_gpu_holds_two_versions(name: str) -> None:
    config = shipped(name)
    room = config.serve.num_gpus * find_gpu(MEANT_FOR[name]).memory_gib
    assert (config.canary.share > 0) == (server_gib(config, 2) < room)


@pytest.mark.parametrize("name", ["cluster", "bb3x_3b"])
def test_a_comment_says_what_versions_take(name: str) -> None:
    found = re.search(r"take[s]? (\d+) GiB of ", (FOLDER / f"{name}.yaml").read_text().split("serve:")[1])
    versions = {"cluster": 1, "bb3x_3b": 2}[name]
    assert found and int(found[1]) == round(server_gib(shipped(name), versions))


@pytest.mark.parametrize(
    "name, trial",
    [("cluster", ["canary.share=0"]), ("one_gpu", [])],
)
def test_a_comment_says_how_to_try_it_with_simulated_people(name: str, trial: list[str]) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    overrides = ["rounds=2", "talk.people=simulated", *trial, "safety_replies.check=off"]
    assert f"`bb3x run --config configs/{name}.yaml {' '.join(overrides)}`" in text
    config = load_config(FOLDER / f"{name}.yaml", overrides)
    # A canary would wait for more thumbs than two rounds have, and the second candidate for its end.
    assert config.talk.people == "simulated" and config.rounds == 2 and config.canary.share == 0


def test_on_one_gpu_adapters_leave_room_for_the_canary_that_a_comment_offers() -> None:
    lora = ["train.lora={r: 16, publish: adapter}", "train.iterations=1", "canary.share=10"]
    config = load_config(FOLDER / "one_gpu.yaml", lora)
    plan = plan_for(config, gpu=MEANT_FOR["one_gpu"])
    shape = shape_of(config.model.source)
    shared = server_gib(config, 2) - 2 * shape.parameters / GIB  # both answer on one copy of the weights
    training = (plan.gpu.training - plan.gpu.beside) / GIB
    assert shared + training < plan.machines.usable(1) / GIB


def test_without_a_gpu_nothing_asks_for_one() -> None:
    for name in ("local", "recorded"):
        config = shipped(name)
        assert config.serve.num_gpus == config.train.gpus_per_worker == config.evaluate.num_gpus == 0


@pytest.mark.parametrize("name", ["bb3x_30b", "bb3x_175b"])
def test_large_models_are_sharded_and_recompute_activations(name: str) -> None:
    config = shipped(name)
    assert config.train.zero_stage == 3
    assert config.train.gradient_checkpointing
    assert config.train.workers * config.train.gpus_per_worker >= 16


def test_on_a_cluster_storage_is_one_absolute_folder() -> None:
    for name in ("cluster", "bb3x_3b", "bb3x_30b", "bb3x_175b"):
        assert Path(shipped(name).storage.root).is_absolute()


def test_every_config_for_gpus_says_which_and_that_it_never_ran() -> None:
    for path in SHIPPED:
        if load_config(path).train.gpus_per_worker:
            comment = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
            assert MEANT_FOR[path.stem] in comment and "Never run" in comment, path


@pytest.mark.parametrize("name", ["one_gpu", "cluster", "bb3x_3b", "bb3x_30b"])
def test_by_arithmetic_a_config_fits_its_gpu(name: str) -> None:
    plan = plan_for(shipped(name), gpu=MEANT_FOR[name])
    assert plan.problems == ()


@pytest.mark.parametrize("name", ["bb3x_175b"])
def test_what_cannot_run_yet_says_so_and_fits_while_it_trains(name: str) -> None:
    """Training itself fits; what stands in the way is told in the comment. When it is gone, change both."""
    plan = plan_for(shipped(name), gpu=MEANT_FOR[name])
    assert plan.gpu.training <= plan.machines.usable(plan.setup.workers)
    assert not plan.fits and "cannot run yet" in (FOLDER / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", ["bb3x_3b", "bb3x_30b", "bb3x_175b"])
def test_a_comment_says_what_the_plan_says(name: str) -> None:
    plan = plan_for(shipped(name), gpu=MEANT_FOR[name])
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert f"a step takes {plan.gpu.training / GIB:.0f} GiB" in comment
    assert re.search(
        rf"memory\D* {plan.node.total / GIB:.0f} GiB|{plan.node.total / GIB:.0f} GiB of memory", comment
    )


def test_a_micro_batch_holds_the_longest_row() -> None:
    for path in SHIPPED:
        config = load_config(path)
        assert config.curate.max_tokens <= config.train.micro_tokens, path
