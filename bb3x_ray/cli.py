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
    from _typeshed import DataclassInstance

    from bb3x_ray.config import Config
    from bb3x_ray.data.inbox import Inbox
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
log_app = typer.Typer(help="The interaction log.", no_args_is_help=True)
app.add_typer(log_app, name="log")

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
    if is_large(file, format):
        from bb3x_ray.rounds.on_ray import connected

        ray = connected(parsed.ray)
    with ray, showing(f"ingest {file.name}") as on_progress:
        report = take_in(Storage(parsed.storage.root), file, format, strict=strict, on_progress=on_progress)
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
def erase(
    user: Annotated[str, typer.Option(help="Who: as clients name the user, or as the log does.")],
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
) -> None:
    """Remove a person from log, archive, past training sets and reports of rounds; list what learned of them.

    While a run works on the same storage root, that run does it, before its next step.

    Example: `bb3x erase --user ada --config configs/local.yaml`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.inbox import open_inbox
    from bb3x_ray.rounds.erasure import erase_user
    from bb3x_ray.storage import Storage

    storage = Storage(parsed.storage.root)
    inbox = open_inbox(parsed.log.root or str(storage.root))
    said = erase_user(storage, user, parsed.log.seal_seconds + 0.5, inbox)
    typer.echo(said)


@app.command()
def deidentify(
    files: Annotated[list[Path], typer.Argument(help="Text files, a text a line; `-` reads standard input.")],
    key_file: Annotated[
        Path | None, typer.Option("--key", help="File of the secret key; without it a new one for this run.")
    ] = None,
    person: Annotated[str, typer.Option(help="Whose texts these are: pseudonyms differ by person.")] = "",
    names: Annotated[
        bool, typer.Option("--names", help="Also people's names (needs bb3x-ray[pii]).")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="The files are labelled: print precision and recall instead.")
    ] = False,
) -> None:
    """Replace mail addresses, phones, cards, ids, IP addresses, credentials and house numbers in texts.

    Example: `bb3x deidentify said.txt > clean.txt` · `bb3x deidentify --report tests/data/pii/*.jsonl`
    """
    import secrets
    from collections import Counter

    from bb3x_ray.data.deidentify import Deidentifier
    from bb3x_ray.data.pii import report as labelled

    key = key_file.read_bytes().strip() if key_file else secrets.token_bytes(32)
    deidentifier = Deidentifier(key, names=names)
    counts: Counter[str] = Counter()
    for file in files:
        if report:
            typer.echo(
                f"{file}\n{labelled.table(labelled.measure(labelled.read_cases(file), deidentifier.find))}\n"
            )
            continue
        with open(
            0 if str(file) == "-" else file, encoding="utf-8", errors="replace", closefd=str(file) != "-"
        ) as lines:
            for line in lines:
                cleaned = deidentifier.clean(line.rstrip("\n"), person)
                counts.update(cleaned.found)
                typer.echo(cleaned.text)
    if not report:
        typer.echo(
            "replaced: " + (", ".join(f"{n} {kind}" for kind, n in counts.most_common()) or "nothing"),
            err=True,
        )


@app.command()
def show(
    view: Annotated[
        str, typer.Argument(help="bot, human, bot-crowd, human-crowd, bot-standard, human-standard.")
    ],
    config: ConfigOption = Path("configs/recorded.yaml"),
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test; else all.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
) -> None:
    """Print examples of a view of the interaction log: context, label, and what is known of the label.

    Example: `bb3x show bot --split valid -n 5`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from collections import Counter
    from json import dumps

    from rich.console import Console

    from bb3x_ray.data.show import first_examples, nothing_found, print_example
    from bb3x_ray.data.views import check_split, view_named
    from bb3x_ray.storage import Storage

    wanted = view_named(view)
    if split is not None:
        check_split(split)
    console, left_out, number = Console(highlight=False), Counter[str](), 0
    found = first_examples(Storage(parsed.storage.root), wanted, split, count, left_out)
    for number, example in enumerate(found, start=1):
        if json:
            typer.echo(dumps(example, ensure_ascii=False))
        else:
            print_example(example, number, console)
    if not number:
        typer.echo(nothing_found(wanted, split, left_out), err=True)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    format: Annotated[str, typer.Option(help="bb3, trl, openai or parquet.")],
    config: ConfigOption = Path("configs/recorded.yaml"),
    overrides: Overrides = None,
    view: Annotated[str | None, typer.Option(help="Examples of a view, not whole conversations.")] = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test; else all.")] = None,
) -> None:
    """Write consented conversations of the log for others, with a data card.

    Example: `bb3x export talk --format openai`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.export import export as write_out
    from bb3x_ray.data.views import check_split, view_named
    from bb3x_ray.storage import Storage

    if split is not None:
        check_split(split)
    wanted = view_named(view) if view is not None else None
    report = write_out(Storage(parsed.storage.root), out, format, wanted, split)
    typer.echo(f"{report.records} records of {report.conversations} conversations in {out}")
    for reason, number in sorted(report.left_out.items()):
        typer.echo(f"left out: {number} {reason}", err=True)


@app.command()
def analyze(
    config: ConfigOption = Path("configs/recorded.yaml"),
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the plots and a page with all of it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The counts, for programs.")] = False,
) -> None:
    """What people said and thought of it: sizes, thumbs with reasons, safety, quality, lengths and times.

    Example: `bb3x analyze --out analysis`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from rich.console import Console

    from bb3x_ray.data.analysis import analyze as count
    from bb3x_ray.data.analysis_report import print_report, write_report
    from bb3x_ray.rounds.console import WIDE
    from bb3x_ray.storage import Storage

    found = count(Storage(parsed.storage.root))
    if json:
        Console().print_json(data=found.to_dict())
    else:
        print_report(found, Console(highlight=False, width=None if sys.stdout.isatty() else WIDE))
    if out is not None:
        typer.echo(f"plots and page: {write_report(found, out)}", err=json)


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


JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


@log_app.command("status")
def log_status(config: ConfigOption = LOCAL, overrides: Overrides = None, json: JsonOption = False) -> None:
    """What the interaction log holds, and what waits to be committed."""
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.log_status import log_status as look
    from bb3x_ray.data.log_status import status_lines

    status = look(*_log_of(parsed))
    _tell(status, status_lines(status), json)


@log_app.command("compact")
def log_compact(
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    keep_hours: Annotated[
        int, typer.Option(min=0, help="Files that only older versions of the table need are removed.")
    ] = 168,
    json: JsonOption = False,
) -> None:
    """Rewrite the table's many small files as few, conversation by conversation.

    `--keep-hours 0` only while nobody reads the table.
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.compact import compact

    done = compact(_log_of(parsed)[0], keep_hours)
    line = f"{done.files_before} files before, {done.files_after} now, {done.rows} rows written again, "
    _tell(done, [f"{line}{done.removed} files of old versions removed"], json)


@log_app.command("verify")
def log_verify(config: ConfigOption = LOCAL, overrides: Overrides = None, json: JsonOption = False) -> None:
    """Check that every event is in the table once; exit code 1 and a sentence for each damage."""
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.verify import verify

    found = verify(*_log_of(parsed))
    line = f"{found.rows} events in the table, {found.archived} in the archive, {found.waiting} wait"
    _tell(found, [*found.damages, f"{line}; {len(found.damages)} damages"], json)
    if found.damages:
        raise typer.Exit(1)


@log_app.command("restore")
def log_restore(config: ConfigOption = LOCAL, overrides: Overrides = None, json: JsonOption = False) -> None:
    """Commit again what the archive holds and the table does not, after a table was lost."""
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.committer import restore_archive

    done = restore_archive(*_log_of(parsed))
    _tell(done, [f"{done.committed} events committed again, {done.duplicates} were in the table"], json)


def _log_of(config: "Config") -> "tuple[Storage, Inbox]":
    """The storage root, and where replicas write."""
    from bb3x_ray.data.inbox import open_inbox
    from bb3x_ray.storage import Storage

    storage = Storage(config.storage.root)
    return storage, open_inbox(config.log.root or str(storage.root))


def _tell(report: "DataclassInstance", lines: list[str], as_json: bool) -> None:
    import json
    from dataclasses import asdict

    for line in [json.dumps(asdict(report))] if as_json else lines:
        typer.echo(line)


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
