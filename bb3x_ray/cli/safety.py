"""`bb3x safety`: which texts count as unsafe, and how well that is told."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, JsonOption, Overrides
from bb3x_ray.cli.quiet import quiet

if TYPE_CHECKING:
    from bb3x_ray.classify.safety import Safety
    from bb3x_ray.config import Config
    from bb3x_ray.rounds.safety_report import SafetyReport

safety_app = typer.Typer(help="Which texts count as unsafe.", no_args_is_help=True)


@safety_app.command("train")
def safety_train(config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """Train a version of the safety classifier, unless there is one made with these settings and files.

    Example: `bb3x safety train 'safety.files=[ours.jsonl]' safety.false_alarms=0.005`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.registry import Registry
    from bb3x_ray.rounds.safety import KIND
    from bb3x_ray.storage import Storage

    safety, version = _newest(parsed)
    folder = Registry(Storage(parsed.storage.root), KIND).folder(version)
    typer.echo((folder / "README.md").read_text(encoding="utf-8"))
    typer.echo(f"safety {version}: {folder}; unsafe above {safety.threshold:.3f}")


@safety_app.command("score")
def safety_score(
    file: Annotated[Path, typer.Argument(help="A text a line; - for what is typed or piped in.")] = Path("-"),
    config: ConfigOption = LOCAL,
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides.")] = None,
) -> None:
    """How unsafe each line is, 0 to 1, whether it counts as unsafe, and the words that were found.

    Example: `echo 'she is nice' | bb3x safety score`
    """
    from bb3x_ray.config_file import load_config

    if str(file) != "-" and "=" in str(file) and not file.exists():
        file, overrides = Path("-"), [str(file), *(overrides or [])]
    parsed = load_config(config, overrides)
    from bb3x_ray.schemas.errors import UserError

    if str(file) != "-" and not file.is_file():
        raise UserError(f"{file}: there is no such file; give - to read what is piped in.")
    safety, _ = _newest(parsed, err=True)
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    for line, score in zip(lines, safety.texts(lines).tolist(), strict=True):
        verdict = "unsafe" if score > safety.threshold else "safe"
        words = ", ".join(safety.matcher.find(line))
        typer.echo(f"{score:.3f}  {verdict:6}  {line}{f'  [{words}]' if words else ''}")


@safety_app.command("report")
def safety_report(
    red_team: Annotated[
        Path | None, typer.Option(help="A file of hh-rlhf's pairs; without it, the one under BB3X_TEST_DATA.")
    ] = None,
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    json: JsonOption = False,
) -> None:
    """How many red-team messages are found at the rate of false alarms that the thresholds are set for.

    Example: `bb3x safety report --red-team harmless-base.jsonl.gz`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.rounds import safety_report as report

    path = red_team or Path(os.environ.get("BB3X_TEST_DATA", "../shared/data")) / report.FILE
    if not path.is_file():
        typer.echo(f"{path}: no red-team messages there, so nothing is measured; give --red-team.")
        raise typer.Exit
    safety, version = _newest(parsed)
    found = report.safety_report(safety, parsed.safety, report.read_red_team(path), parsed.seed)
    if json:
        import dataclasses
        from json import dumps

        typer.echo(dumps(dataclasses.asdict(found), indent=1))
    else:
        _show(found, version, parsed)


def _newest(config: "Config", err: bool = False) -> "tuple[Safety, str]":
    from bb3x_ray.classify.safety import Safety
    from bb3x_ray.registry import Registry
    from bb3x_ray.rounds.safety import KIND, ensure_safety
    from bb3x_ray.storage import Storage

    quiet()
    storage = Storage(config.storage.root)
    version = ensure_safety(storage, config.safety, config.seed, lambda line: typer.echo(line, err=err))
    return Safety.load(Registry(storage, KIND).folder(version)), version


def _show(found: "SafetyReport", version: str, config: "Config") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        f"safety {version}",
        "recall, openers",
        "recall, all messages",
        "false alarms",
        "calibration error",
        title=f"{found.red_team} red-team messages of {found.conversations} conversations against "
        f"{found.ordinary} ordinary ones",
    )
    for row in found.rows:
        error = "" if row.calibration_error is None else f"{row.calibration_error:.3f}"
        table.add_row(row.name, str(row.openers), str(row.messages), str(row.false_alarms), error)
    console = Console()
    console.print(table)
    console.print(f"ordinary replies in their context that count as unsafe: {found.replies}", highlight=False)
    if found.wrong:
        console.print("ordinary messages that count as unsafe:")
    for score, text in found.wrong[:15]:
        console.print(f"  {score:.3f}  {text[:100]}", highlight=False, markup=False)
