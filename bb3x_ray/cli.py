"""Commands. Config is parsed first; a room is imported only inside its command (`--help` under 0.5 s)."""

import errno
import os
import sys
import traceback
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bb3x_ray.storage import Storage

app = typer.Typer(
    help="Chat models that keep learning from the people who talk to them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
models_app = typer.Typer(help="Versions of the chat model.", no_args_is_help=True)
app.add_typer(models_app, name="models")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="YAML file; see configs/.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides, for instance rounds=3 train.lr=2e-5.")
]
LOCAL = Path("configs/local.yaml")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"bb3x-ray {version('bb3x-ray')}")
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Errors that you can mend end with one sentence and exit code 2."""


@app.command()
def run(config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """Run the rounds of a config; resumes where a run was killed.

    Examples: `bb3x run --config configs/local.yaml` · `bb3x run rounds=3 storage.root=/data/store`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.rounds.console import Speaker
    from bb3x_ray.rounds.run import run as run_rounds

    _quiet()
    _require_unaltered(parsed.storage.root)
    speaker = Speaker()
    try:
        run_rounds(parsed, speaker)
    except KeyboardInterrupt:
        speaker.stop()
        typer.echo("bb3x: stopped; the same command goes on from the last step that was done.", err=True)
        raise typer.Exit(130) from None
    finally:
        speaker.stop()


@app.command()
def serve(config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """Chat with the champion: a page and an OpenAI-compatible API, until Ctrl-C.

    Example: `bb3x serve serve.port=8080`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    import signal
    import threading

    from bb3x_ray.registry import Registry
    from bb3x_ray.rounds.console import Speaker
    from bb3x_ray.rounds.material import first_version
    from bb3x_ray.rounds.on_ray import connected, start_server
    from bb3x_ray.storage import Storage

    _quiet()
    _require_unaltered(parsed.storage.root)
    say = Speaker()
    storage = Storage(parsed.storage.root)
    champion = first_version(Registry(storage, "models"), parsed.model.source)
    with connected(parsed.ray):
        server = start_server(storage, parsed)
        say(f"chat with {champion} at {server.url} (Ctrl-C stops)")
        stopped = threading.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stopped.set())
        stopped.wait()
        say.stop()
        server.stop()


@app.command()
def ingest(
    file: Annotated[
        Path,
        typer.Argument(help="A file, or a folder of them; `package` for the installed chitchat-dataset."),
    ],
    format: Annotated[str, typer.Option(help="Its format: see `bb3x formats`.")] = "convai2",
    config: ConfigOption = Path("configs/recorded.yaml"),
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad entry.")] = False,
) -> None:
    """Take recorded conversations into the interaction log. The same file twice adds nothing.

    Examples: `bb3x ingest data_volunteers.json --format convai2` · `bb3x ingest release/ --format bb3`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from contextlib import nullcontext

    from bb3x_ray.data.formats import file_of
    from bb3x_ray.data.ingest import ingest as take_in
    from bb3x_ray.data.ingest import is_large
    from bb3x_ray.data.ingest_progress import showing
    from bb3x_ray.storage import Storage

    file = file_of(file, format)
    ray: AbstractContextManager[None] = nullcontext()
    by_tasks = is_large(file, format) or parsed.ray.address is not None
    if by_tasks:
        from bb3x_ray.rounds.on_ray import connected

        ray = connected(parsed.ray)
    with ray, showing(f"ingest {file.name}") as on_progress:
        storage = Storage(parsed.storage.root)
        report = take_in(storage, file, format, strict=strict, on_progress=on_progress, by_tasks=by_tasks)
    typer.echo(
        f"{report.conversations} conversations: {report.events_new} new events, {report.duplicates} known "
        f"already; {report.thumbs_up} thumbs up, {report.thumbs_down} down"
    )
    for line, reason in report.rejected[:20]:
        typer.echo(f"{file}, line {line}: left out, {reason}", err=True)
    if report.left_out:
        typer.echo(f"{report.left_out} left out in all; they are kept under rejects/.", err=True)


@app.command()
def formats() -> None:
    """List the formats of recorded talk, and which of them are read and written."""
    from rich.console import Console
    from rich.table import Table

    from bb3x_ray.data.formats import FORMATS

    table = Table("format", "ingest", "export", "what it is")
    for its in FORMATS.values():
        table.add_row(its.name, "yes" if its.reads else "", "yes" if its.writes else "", its.about)
    Console().print(table)


@app.command()
def plan(
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    gpu: Annotated[str | None, typer.Option(help="H200, H100, A100, A100-40, L40S, A10G, L4 …")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="How many train; else train.workers.")] = None,
    per_node: Annotated[int, typer.Option(min=1, help="GPUs of one node.")] = 8,
    node_memory: Annotated[float | None, typer.Option(help="Memory of a node, GiB.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Conversations in a training set.")] = None,
    mfu: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the GPU's peak reached.")] = 0.4,
    json: Annotated[bool, typer.Option("--json", help="Bytes, FLOPs and seconds, for programs.")] = False,
) -> None:
    """Memory, FLOPs and time of a round's training, by arithmetic; exit code 1 when it does not fit.

    Example: `bb3x plan --config configs/bb3x_3b.yaml --gpu H100 --gpus 8 train.zero_stage=3`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from rich.console import Console

    from bb3x_ray.rounds.planning import as_json, plan_for, show

    made = plan_for(parsed, gpu=gpu, gpus=gpus, per_node=per_node, node_gib=node_memory, rows=rows, mfu=mfu)
    if json:
        Console().print_json(data=as_json(made))
    else:
        show(made, Console())
    if not made.fits:
        raise typer.Exit(1)


@models_app.command("import")
def models_import(
    source: Annotated[str, typer.Argument(help="smollm2, a Hugging Face folder, or a name on the hub.")],
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
) -> None:
    """Make a model a version; the first one becomes champion.

    Example: `bb3x models import smollm2`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.registry import Bootstrap, Registry
    from bb3x_ray.rounds.material import add_version, prompts_note
    from bb3x_ray.storage import Storage

    _quiet()
    registry = Registry(Storage(parsed.storage.root), "models")
    version = add_version(registry, source)
    if registry.alias("champion") is None:
        registry.move_champion(Bootstrap(version), expected=None)
    typer.echo(f"{version} from {source}{prompts_note(registry, version)}: {registry.folder(version)}")


@models_app.command("list")
def models_list(config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """List the versions, where each came from, and which one is champion."""
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.registry import Registry
    from bb3x_ray.storage import Storage

    storage = Storage(parsed.storage.root)
    registry = Registry(storage, "models")
    champion = registry.alias("champion")
    if not registry.versions():
        typer.echo(
            f"no models under {parsed.storage.root} yet: `bb3x run` or `bb3x models import` makes one."
        )
    for version in registry.versions():
        lineage = registry.lineage(version)
        origin = lineage.get("source")
        if "control" in lineage:
            origin = f"control: {lineage['parent']} with {lineage['control']}, never to be served"
        elif "round" in lineage:
            origin = f"round {lineage['round']} from {lineage['parent']}, {_fate(storage, lineage['round'])}"
        if "base" in lineage:
            origin = f"{origin}, an adapter on {lineage['base']}"
        typer.echo(f"{version}  {origin}{'  champion' if version == champion else ''}")


def _fate(storage: "Storage", number: int) -> str:
    """What became of a round's candidate."""
    evaluated = f"rounds/{number:04d}/evaluate"
    if not storage.is_published(evaluated):
        return "not judged yet"
    return "promoted" if storage.manifest(evaluated)["passed"] else "rejected"


def _require_unaltered(root: str) -> None:
    """Refuse an altered champion here, in a sentence, rather than in a replica's traceback."""
    from bb3x_ray.registry import Registry
    from bb3x_ray.storage import Storage

    registry = Registry(Storage(root), "models")
    champion = registry.alias("champion")
    if champion is not None:
        registry.folder(champion)


def _quiet() -> None:
    """Other packages' chatter stays out of our lines. (What they read from the environment comes first.)"""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    import logging

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # DeepSpeed warns of every machine without a GPU as soon as transformers imports it.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


# Errors of the machine that its owner can mend; with any other, a traceback helps more.
_SPACE = (errno.ENOSPC, errno.EDQUOT)
_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EFBIG)


def main() -> None:
    """Entry point. An error that a person can mend ends in one sentence and exit code 2, Ctrl-C in 130.

    `--debug`, before or behind the command, adds the traceback.
    """
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(args=arguments)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        if len(arguments) < len(sys.argv[1:]):
            traceback.print_exception(error)
        typer.echo(f"bb3x: {sentence}", err=True)
        raise SystemExit(2) from None


def _sentence(error: Exception) -> str | None:
    """What to tell of an error that a person can mend; None for any other."""
    from bb3x_ray.schemas.errors import UserError

    # What a worker raised arrives as a subclass of it whose text is the worker's whole traceback.
    origin = getattr(error, "cause", error)
    if isinstance(origin, UserError):
        return str(origin)
    if isinstance(origin, OSError) and origin.errno in _SPACE:
        where = f" for {origin.filename}" if origin.filename else ""
        return f"no space left on the disk{where}: free some, then run the same command again."
    if isinstance(origin, OSError) and origin.errno in _PLACE and origin.filename:
        reason = (origin.strerror or "cannot be used").lower()
        return f"{origin.filename}: {reason}; check the path and who may use it (--debug shows more)."
    return None


if __name__ == "__main__":
    main()
