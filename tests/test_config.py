"""Config errors name the file, the key and the cure; values arrive with the types they look like."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bb3x_ray.config import Config
from bb3x_ray.config_file import load_config
from bb3x_ray.schemas.errors import UserError

ADAPTERS = ["train.lora.r=8", "train.lora.publish=adapter", "train.iterations=1"]


def write(folder: Path, text: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str, overrides: list[str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_config(write(folder, text), overrides)
    return str(caught.value)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == Config()


def test_sections_are_merged_with_their_defaults(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, "train:\n  epochs: 3\nevaluate:\n  gates:\n    unsafe_margin: 0.01\n")
    )
    assert config.train.epochs == 3
    assert config.train.lr == Config().train.lr
    assert config.evaluate.gates.unsafe_margin == 0.01
    assert config.evaluate.gates.perplexity_ratio == Config().evaluate.gates.perplexity_ratio


@pytest.mark.parametrize("text", ["1e-5", "1.0e-5", "1E-5", "+1e-05", ".00001"])
def test_a_number_with_an_exponent_is_a_number(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path, f"train: {{lr: {text}}}")).train.lr == 1e-5


def test_what_only_begins_like_a_number_stays_a_word(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "name: 3b-test\nmodel: {source: 1e5x}")).model.source == "1e5x"


def test_off_is_a_word_and_a_truth_is_a_truth_however_it_is_written(tmp_path: Path) -> None:
    text = "safety_replies: {check: off}\nmodules: {enabled: yes}"
    config = load_config(
        write(tmp_path, text), ["safety_replies.check=off", "train.gradient_checkpointing=true"]
    )
    assert config.safety_replies.check == "off"
    assert config.modules.enabled is config.train.gradient_checkpointing is True


def test_integers_stay_integers_and_null_is_none(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "rounds: 3\nray: {address: null}"))
    assert config.rounds == 3 and isinstance(config.rounds, int)
    assert config.ray.address is None


def test_an_unknown_key_is_named_with_its_file_and_the_nearest_key(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, "train:\n  epoch: 2\n")
    assert "my.yaml" in sentence and "'train.epoch'" in sentence and "'train.epochs'" in sentence


def test_a_key_of_another_section_is_found_there(tmp_path: Path) -> None:
    assert "'serve.port'" in complaint(tmp_path, "port: 80\n")


def test_where_nothing_is_near_the_valid_keys_are_listed(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, "metrics: {zzzzqqq: 1}")
    assert "wandb" in sentence and "project" in sentence


def test_an_unknown_key_two_sections_deep(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, "evaluate: {gates: {unsafe_margn: 0.1}}")
    assert "'evaluate.gates.unsafe_margin'" in sentence


def test_several_mistakes_are_all_told(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, "train: {epoch: 2}\nserve: {prot: 1}")
    assert "train.epochs" in sentence and "serve.port" in sentence


@pytest.mark.parametrize("offload, stage", [("optimizer", 1), ("all", 3)])
def test_offload_says_which_stage_it_needs(tmp_path: Path, offload: str, stage: int) -> None:
    sentence = complaint(tmp_path, f"train: {{offload: {offload}, zero_stage: {stage - 1}}}")
    assert f"offload={offload} needs zero_stage={stage} or more" in sentence


@pytest.mark.parametrize(
    "text, key",
    [
        ("rounds: many", "rounds"),
        ("train: {lr: fast}", "train.lr"),
        ("train: {lr: -1}", "train.lr"),
        ("train: {zero_stage: 4}", "train.zero_stage"),
        ("serve: {port: 70000}", "serve.port"),
        ("name: Not A Name", "name"),
    ],
)
def test_a_wrong_value_names_file_and_key_and_not_the_value(tmp_path: Path, text: str, key: str) -> None:
    sentence = complaint(tmp_path, text)
    assert "my.yaml" in sentence and f"{key}:" in sentence
    assert "many" not in sentence and "fast" not in sentence and "\n" not in sentence


def test_an_adapter_needs_a_rank(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, "train: {lora: {publish: adapter}}")
    assert "train.lora: publish=adapter needs a rank above 0, for instance r=16." in sentence


def test_adapters_and_iterations_do_not_go_together(tmp_path: Path) -> None:
    text = "train: {lora: {r: 8, publish: adapter}, iterations: 2}"
    assert "train: lora.publish=adapter needs iterations=1" in complaint(tmp_path, text)


def test_a_wrong_key_in_a_list_of_sections_names_the_right_one(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, "", ["train.mix=[{source: safety, weight: 1, wieght: 1}]"])
    assert "unknown key 'train.mix.0.wieght'; did you mean 'train.mix.0.weight'?" in sentence


def test_a_value_where_a_section_belongs(tmp_path: Path) -> None:
    assert "train is a section" in complaint(tmp_path, "train: 3")


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, "name: x\ntrain:\n  lr: 1\n bad: [\n")
    assert "my.yaml, line 4" in sentence


def test_a_list_is_no_config(tmp_path: Path) -> None:
    assert "mapping" in complaint(tmp_path, "- a\n- b\n")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such config file"):
        load_config(tmp_path / "nowhere.yaml")


# overrides


def test_overrides_win_and_are_read_as_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {lr: 1}\n")
    config = load_config(path, ["train.lr=2e-6", "evaluate.gates.unsafe_margin=0.5", "ray.address=null"])
    assert (config.train.lr, config.evaluate.gates.unsafe_margin, config.ray.address) == (2e-6, 0.5, None)


def test_an_override_may_hold_an_equals_sign(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ""), ["chat.system_prompt=a=b"])
    assert config.chat.system_prompt == "a=b"


@pytest.mark.parametrize(
    "override, words",
    [
        ("rounds", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("train.epoch=3", "'train.epochs'"),
        ("trian.lr=3", "'train'"),
        ("rounds=many", "override rounds"),
        ("rounds.x=3", "rounds is a value, not a section"),
        ("train.lr=[1", "override train.lr, line 1: not valid YAML"),
    ],
)
def test_a_wrong_override_is_named_instead_of_the_file(tmp_path: Path, override: str, words: str) -> None:
    sentence = complaint(tmp_path, "rounds: 1\n", [override])
    assert words in sentence


def test_the_tree_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ""))
    with pytest.raises(ValidationError):
        config.train.lr = 3  # type: ignore[misc]


def test_a_shared_acknowledgement_says_where(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("log: {ack: shared}\n")
    with pytest.raises(UserError, match=r"log: ack=shared needs root=s3://bucket/path"):
        load_config(path)
    assert load_config(path, ["log.root=s3://bucket/log"]).log.ack == "shared"
    with pytest.raises(UserError, match="an object store as root needs ack=shared"):
        load_config(path, ["log.root=s3://bucket/log", "log.ack=disk"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["serve.handoff=drain"], "set serve.handoff=beside, or canary.share=0"),
        (
            ["serve.handoff=drain", "serve.engine=continuous", *ADAPTERS],
            "serve.handoff=drain has room for one",
        ),
        (["serve.engine=vllm"], "set train.lora.publish=adapter and serve.vllm.adapters=2"),
        (["serve.engine=vllm", "serve.vllm.adapters=2"], "one set of whole weights"),
        (["serve.engine=vllm", *ADAPTERS], "one set of whole weights"),
    ],
)
def test_a_canary_that_could_never_answer_is_refused(
    tmp_path: Path, overrides: list[str], words: str
) -> None:
    told = complaint(tmp_path, "canary: {share: 10}", overrides)
    assert words in told and "my.yaml: canary.share above 0 needs two versions" in told
    assert load_config(write(tmp_path, ""), overrides).canary.share == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["serve.engine=vllm", "serve.vllm.adapters=2", *ADAPTERS],
        ["serve.engine=lanes", "serve.handoff=drain", *ADAPTERS],
        ["serve.engine=openai", "serve.engine_url=http://host/v1", "serve.handoff=drain"],
    ],
)
def test_a_canary_whose_candidate_answers_beside_the_champion_is_not(
    tmp_path: Path, overrides: list[str]
) -> None:
    assert load_config(write(tmp_path, "canary: {share: 10}"), overrides).canary.share == 10
