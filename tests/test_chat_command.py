"""`bb3x chat` and `bb3x module`: a version in the terminal, with a real, tiny model."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bb3x_ray.cli import app
from bb3x_ray.registry import Bootstrap, Registry
from bb3x_ray.rounds.material import add_version
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.modules.alone import NAMES
from bb3x_ray.storage import Storage

LOCAL = ["--config", str(Path(__file__).parents[1] / "configs" / "local.yaml")]


@pytest.fixture(scope="module")
def root(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    storage = Storage(tmp_path_factory.mktemp("chat") / "store")
    registry = Registry(storage, "models")
    registry.move_champion(Bootstrap(add_version(registry, str(tiny_model))), expected=None)
    return f"storage.root={storage.root}"


def test_one_talks_to_the_champion_and_sees_what_modules_do(root: str) -> None:
    files = {p for p in Path(root.partition("=")[2]).rglob("*")}
    said = CliRunner().invoke(
        app, ["chat", "--trace", *LOCAL, root, "chat.max_new_tokens=6"], input="Hello\n\n"
    )
    assert said.exit_code == 0, said.output
    assert "v0001 listens" in said.output
    assert "search_decision" in said.output and "memory_generation" in said.output
    assert set(Path(root.partition("=")[2]).rglob("*")) == files, "nothing is kept"


def test_a_module_answers_alone_and_says_what_it_is_read_as(root: str) -> None:
    said = CliRunner().invoke(app, ["module", "search_decision", "Who won?", "--prompt", *LOCAL, root])
    assert said.exit_code == 0, said.output
    assert "Last message: Who won?" in said.output and "read as: no" in said.output
    listed = CliRunner().invoke(app, ["module", "list", *LOCAL])
    assert listed.output.split() == list(NAMES)


def test_what_is_not_there_is_told(root: str) -> None:
    for arguments, told in (
        (["module", "mind_reading", "Hello", *LOCAL, root], "search_query"),
        (["module", "search_query", *LOCAL, root], "what the person says"),
        (["module", "search_query", "Hello", "--version", "v0099", *LOCAL, root], "no version v0099"),
        (["chat", "--version", "v0099", *LOCAL, root], "v0001"),
    ):
        failed = CliRunner().invoke(app, arguments)
        assert isinstance(failed.exception, UserError) and told in str(failed.exception), arguments
