"""Commands end in one sentence and exit code 2 where a person can mend what is wrong; `--help` is quick."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from bb3x_ray import cli
from bb3x_ray.data.formats import FORMATS
from bb3x_ray.registry import Registry
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage
from tests.data.readers.release import talk, write
from tests.language.base_models import make_base_model

ROOT = Path(__file__).parents[1]
LOCAL = str(ROOT / "configs" / "local.yaml")
HEAVY = ("torch", "ray", "transformers", "pyarrow", "pydantic", "deepspeed", "numpy", "yaml", "wandb")
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def bb3x(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """arguments -> (exit code, what it said on stderr), in this process."""

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["bb3x", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), capsys.readouterr().err

    return command


@pytest.fixture(scope="module")
def imported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root whose champion is the tiny model, by the command itself, in a process of its own."""
    root = tmp_path_factory.mktemp("imported") / "store"
    done = in_a_process("models", "import", str(tiny_model), "-c", LOCAL, f"storage.root={root}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("v0001 from ")
    return root


def in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As a user would: no Ray of the tests is joined."""
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bb3x_ray.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=env, cwd=ROOT)


def assert_one_sentence(said: str) -> None:
    ours = [line for line in said.splitlines() if line.startswith("bb3x: ")]
    assert len(ours) == 1 and ours[0].endswith("."), said
    assert "Traceback" not in said and 'File "' not in said


# help


def test_help_imports_nothing_heavy() -> None:
    """What makes `bb3x --help` quick, as far as a machine that is busy can tell."""
    code = (
        "import sys\nsys.argv = ['bb3x', '--help']\nfrom bb3x_ray.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        f"found = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "sys.exit(f'imported {found}' if found or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "models" in done.stdout


def test_bad_arguments_are_explained_without_anything_heavy(bb3x: Command) -> None:
    code, said = bb3x("rum")
    assert code == 2 and "No such command" in said and "Traceback" not in said


# mistakes in the config and its overrides


@pytest.mark.parametrize("command", [["run"], ["serve"], ["models", "list"], ["ingest", "x.json"]])
@pytest.mark.parametrize(
    "override, words", [("train.lrr=1", "did you mean 'train.lr'"), ("rounds=many", "rounds")]
)
def test_every_command_checks_its_config_first(
    bb3x: Command, command: list[str], override: str, words: str
) -> None:
    code, said = bb3x(*command, "-c", LOCAL, override)
    assert code == 2 and words in said
    assert_one_sentence(said.replace("?\n", ".\n"))


def test_a_missing_config_is_named(bb3x: Command) -> None:
    code, said = bb3x("run", "--config", "nowhere.yaml")
    assert code == 2 and "nowhere.yaml" in said
    assert_one_sentence(said)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_adds_the_traceback_wherever_it_stands(bb3x: Command, place: int) -> None:
    arguments = ["run", "--config", "nowhere.yaml"]
    arguments.insert(place, "--debug")
    code, said = bb3x(*arguments)
    assert code == 2
    assert "Traceback" in said and "load_config" in said
    assert said.splitlines()[-1].startswith("bb3x: nowhere.yaml")


# files and folders


def test_ingest_of_a_missing_file(bb3x: Command, tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    code, said = bb3x("ingest", str(missing), "-c", LOCAL, f"storage.root={tmp_path / 'store'}")
    assert code == 2 and str(missing) in said
    assert_one_sentence(said)


def test_ingest_of_an_unknown_format(bb3x: Command, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("[]")
    code, said = bb3x("ingest", str(file), "--format", "xml", "-c", LOCAL, f"storage.root={tmp_path / 's'}")
    assert code == 2 and "convai2" in said
    assert_one_sentence(said)


def test_ingest_says_what_it_left_out_and_strict_stops_there(bb3x: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "chunk_1.jsonl", [talk(0), {"text {": 1}, talk(1)])
    arguments = ("ingest", str(path), "--format", "bb3", "-c", LOCAL, f"storage.root={tmp_path / 'store'}")
    code, said = bb3x(*arguments, "--strict")
    assert code == 2 and f"{path}, line 2: not an object" in said and "text {" not in said
    assert_one_sentence(said)
    code, said = bb3x(*arguments)
    assert code == 0 and f"{path}, line 2: left out, not an object" in said and "1 left out in all" in said


def test_formats_says_who_reads_and_writes_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bb3x", "formats"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    assert all(name in said for name in FORMATS) and "ingest" in said and "export" in said


def test_import_of_a_folder_without_weights_leaves_nothing(bb3x: Command, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    store = tmp_path / "store"
    code, said = bb3x("models", "import", str(empty), "-c", LOCAL, f"storage.root={store}")
    assert code == 2 and str(empty) in said
    assert_one_sentence(said)
    registry = Registry(Storage(store), "models")
    assert registry.versions() == [] and registry.alias("champion") is None
    assert not list(store.rglob("*.json")) or {p.name for p in store.rglob("*.json")} == {"next.json"}


def test_a_model_without_chat_template_is_said_to_get_plain_prompts(tmp_path: Path) -> None:
    source, store = make_base_model(tmp_path / "base", "opt"), tmp_path / "store"
    done = in_a_process("models", "import", str(source), "-c", LOCAL, f"storage.root={store}")
    said = f"v0001 from {source} (without a chat template of its own: plain prompts): "
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith(said), done.stderr
    assert Registry(Storage(store), "models").lineage("v0001")["chat_template"] == "plain"


def test_import_of_pickled_weights_is_refused(bb3x: Command, tiny_model: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_model, pickled)
    for weights in pickled.glob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    code, said = bb3x("models", "import", str(pickled), "-c", LOCAL, f"storage.root={tmp_path / 'store'}")
    assert code == 2 and "safetensors" in said
    assert_one_sentence(said)


def test_a_storage_root_that_cannot_be(bb3x: Command, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    code, said = bb3x("models", "import", "smollm2", "-c", LOCAL, f"storage.root={file / 'store'}")
    assert code == 2 and str(file) in said
    assert_one_sentence(said)


def cells(table: str) -> list[list[str]]:
    """Rows of a table that was printed, without its head."""
    rows = [line for line in table.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]


def test_versions_are_listed_with_their_origin(
    imported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_model: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["bb3x", "models", "list", "-c", LOCAL, f"storage.root={imported}"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    (row,) = cells(capsys.readouterr().out)
    assert row[:2] == ["v0001", "champion"] and str(tiny_model) in row


def test_an_adapter_is_listed_with_its_base(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copytree(imported, tmp_path / "store")
    registry = Registry(Storage(store), "models")
    with registry.publish(registry.reserve(), {"parent": "v0001", "round": 1}, "") as folder:
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "v0001"}')
    monkeypatch.setattr(sys, "argv", ["bb3x", "models", "list", "-c", LOCAL, f"storage.root={store}"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    row = cells(capsys.readouterr().out)[1]
    assert row[0] == "v0002" and "not judged yet" in row
    assert any("round 1" in cell and "an adapter on v0001" in cell for cell in row)


@pytest.mark.parametrize("command", ["run", "serve"])
def test_an_altered_byte_in_the_champion_is_found_before_anything_starts(
    bb3x: Command, imported: Path, tmp_path: Path, command: str
) -> None:
    store = tmp_path / "store"
    shutil.copytree(imported, store)
    weights = store / "models" / "v0001" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    code, said = bb3x(command, "-c", LOCAL, f"storage.root={store}")
    assert code == 2 and f"{weights} was altered" in said
    assert_one_sentence(said)
    assert not (store / "rounds").exists() and not (store / "inbox").exists()


# what main() makes of errors


def ending(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    def fail(args: list[str]) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["bb3x", "run"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert_one_sentence(said)
    return said


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/rows")
    assert "no space left on the disk for /data/rows" in ending(error, monkeypatch, capsys)


def test_a_workers_sentence_comes_without_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = RayTaskError("answer", "Traceback (most recent call last): …", UserError("v0002 is missing."))
    assert "bb3x: v0002 is missing." in ending(remote.as_instanceof_cause(), monkeypatch, capsys)


def test_what_nobody_can_mend_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["bb3x", "run"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


# on a real Ray


@pytest.mark.ray
def test_the_version_and_an_empty_registry(tmp_path: Path) -> None:
    assert in_a_process("--version").stdout.startswith("bb3x-ray 0.")
    listed = in_a_process("models", "list", "-c", LOCAL, f"storage.root={tmp_path / 'store'}")
    assert listed.returncode == 0 and "no models under" in listed.stdout


def test_a_port_in_use(imported: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(imported, store)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = in_a_process(
            "run", "-c", LOCAL, f"storage.root={store}", f"serve.port={port}", "ray.num_cpus=4"
        )
    assert done.returncode == 2 and f"serve.port {port}" in done.stderr
    assert_one_sentence(done.stderr)
    assert not (store / "rounds").exists()


@pytest.mark.ray
def test_an_empty_log_where_nobody_talks(imported: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(imported, store)
    done = in_a_process("run", "-c", LOCAL, f"storage.root={store}", "talk.people=none", "rounds=1")
    assert done.returncode == 2 and "bb3x ingest" in done.stderr
    assert_one_sentence(done.stderr)
    assert not (store / "rounds" / "0001" / "collect").exists()
