"""Commands about what people said: in, out, shown, cleaned, erased."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from bb3x_ray.cli.log import catch_up, nobody_waits
from bb3x_ray.cli.options import LOCAL, RECORDED, ConfigOption, Overrides


def ingest(
    file: Annotated[
        Path,
        typer.Argument(help="A file, or a folder of them; `package` for the installed chitchat-dataset."),
    ],
    format: Annotated[str, typer.Option(help="Its format: see `bb3x formats`.")] = "convai2",
    config: ConfigOption = RECORDED,
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad entry.")] = False,
) -> None:
    """Take recorded conversations into the interaction log. The same file twice adds nothing.

    Examples: `bb3x ingest data_volunteers.json --format convai2` · `bb3x ingest release/ --format bb3`
    """
    from bb3x_ray.config_file import load_config

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


def formats() -> None:
    """List the formats of recorded talk, and which of them are read and written."""
    from rich.console import Console
    from rich.table import Table

    from bb3x_ray.data.formats import FORMATS

    table = Table("format", "ingest", "export", "what it is")
    for its in FORMATS.values():
        table.add_row(its.name, "yes" if its.reads else "", "yes" if its.writes else "", its.about)
    Console().print(table)


def show(
    view: Annotated[
        str, typer.Argument(help="bot, human, bot-crowd, human-crowd, bot-standard, human-standard.")
    ],
    config: ConfigOption = RECORDED,
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test; else all.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
) -> None:
    """Print examples of a view of the interaction log: context, label, and what is known of the label.

    Example: `bb3x show bot --split valid -n 5`
    """
    from bb3x_ray.config_file import load_config

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
    catch_up(parsed)
    nobody_waits(parsed)
    found = first_examples(Storage(parsed.storage.root), wanted, split, count, left_out)
    for number, example in enumerate(found, start=1):
        if json:
            typer.echo(dumps(example, ensure_ascii=False))
        else:
            print_example(example, number, console)
    if not number:
        typer.echo(nothing_found(wanted, split, left_out), err=True)


def export(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    format: Annotated[str, typer.Option(help="bb3, trl, openai or parquet.")],
    config: ConfigOption = RECORDED,
    overrides: Overrides = None,
    view: Annotated[str | None, typer.Option(help="Examples of a view, not whole conversations.")] = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test; else all.")] = None,
) -> None:
    """Write consented conversations of the log for others, with a data card.

    Example: `bb3x export talk --format openai`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.export import export as write_out
    from bb3x_ray.data.views import check_split, view_named
    from bb3x_ray.rounds.cleaning import deidentifier
    from bb3x_ray.storage import Storage

    if split is not None:
        check_split(split)
    wanted = view_named(view) if view is not None else None
    catch_up(parsed)
    nobody_waits(parsed)
    storage = Storage(parsed.storage.root)
    cleaner = deidentifier(storage, parsed.log)
    clean = (lambda text, person: cleaner.clean(text, person).text) if cleaner else None
    report = write_out(storage, out, format, wanted, split, clean)
    typer.echo(
        f"{report.records} records of {report.conversations} conversations in {out}, "
        f"{report.cleaned} texts de-identified"
    )
    for reason, number in sorted(report.left_out.items()):
        typer.echo(f"left out: {number} {reason}", err=True)


def analyze(
    config: ConfigOption = RECORDED,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the plots and a page with all of it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The counts, for programs.")] = False,
) -> None:
    """What people said and thought of it: sizes, thumbs with reasons, safety, quality, lengths and times.

    Example: `bb3x analyze --out analysis`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from rich.console import Console

    from bb3x_ray.data.analysis import analyze as count
    from bb3x_ray.data.analysis_report import print_report, write_report
    from bb3x_ray.rounds.console import WIDE
    from bb3x_ray.storage import Storage

    catch_up(parsed)
    nobody_waits(parsed)
    found = count(Storage(parsed.storage.root))
    if json:
        Console().print_json(data=found.to_dict())
    else:
        print_report(found, Console(highlight=False, width=None if sys.stdout.isatty() else WIDE))
    if out is not None:
        typer.echo(f"plots and page: {write_report(found, out)}", err=json)


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


def erase(
    user: Annotated[str, typer.Option(help="Who: as clients name the user, or as the log does.")],
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
) -> None:
    """Remove a person from log, archive, past training sets and reports of rounds; list what learned of them.

    While a run works on the same storage root, that run does it, before its next step.

    Example: `bb3x erase --user ada --config configs/local.yaml`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.inbox import open_inbox
    from bb3x_ray.rounds.erasure import erase_user
    from bb3x_ray.storage import Storage

    storage = Storage(parsed.storage.root)
    inbox = open_inbox(parsed.log.root or str(storage.root))
    said = erase_user(storage, user, parsed.log.seal_seconds + 0.5, inbox)
    typer.echo(said)


COMMANDS = (ingest, formats, show, export, analyze, deidentify, erase)
