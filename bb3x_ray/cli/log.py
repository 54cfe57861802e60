"""`bb3x log`: the state of the interaction log, and its upkeep."""

from typing import TYPE_CHECKING, Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, JsonOption, Overrides

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from bb3x_ray.config import Config
    from bb3x_ray.data.inbox import Inbox
    from bb3x_ray.storage import Storage


log_app = typer.Typer(help="The interaction log.", no_args_is_help=True)


@log_app.command("status")
def log_status(config: ConfigOption = LOCAL, overrides: Overrides = None, json: JsonOption = False) -> None:
    """What the interaction log holds, and what waits to be committed."""
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.log_status import log_status as look
    from bb3x_ray.data.log_status import status_lines

    storage, inbox = _log_of(parsed)
    status = look(storage, inbox)
    _tell(status, status_lines(status), json)
    _tell_who_waits(storage)


@log_app.command("commit")
def log_commit(config: ConfigOption = LOCAL, overrides: Overrides = None, json: JsonOption = False) -> None:
    """Take what people said until now into the table, and erase everyone who asked for it.

    Rounds and `serve` do this themselves, and so do `show`, `analyze`, `export` and `compact`.
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.log_status import log_status as look

    erased = catch_up(parsed)
    status = look(*_log_of(parsed))
    line = f"{status.head} events committed in all, {status.sealed + status.open} segments wait"
    _tell(status, [f"{line}; {erased} people erased now"], json)
    _tell_who_waits(_log_of(parsed)[0])


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
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.compact import compact

    catch_up(parsed)
    done = compact(_log_of(parsed)[0], keep_hours)
    line = f"{done.files_before} files before, {done.files_after} now, {done.rows} rows written again, "
    _tell(done, [f"{line}{done.removed} files of old versions removed"], json)


@log_app.command("verify")
def log_verify(config: ConfigOption = LOCAL, overrides: Overrides = None, json: JsonOption = False) -> None:
    """Check that every event is in the table once; exit code 1 and a sentence for each damage."""
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.verify import verify

    found = verify(*_log_of(parsed))
    line = f"{found.rows} events in the table, {found.archived} in the archive, {found.waiting} wait"
    _tell(found, [*found.damages, f"{line}; {len(found.damages)} damages"], json)
    if found.damages:
        raise typer.Exit(1)


@log_app.command("restore")
def log_restore(config: ConfigOption = LOCAL, overrides: Overrides = None, json: JsonOption = False) -> None:
    """Commit again what the archive holds and the table does not, after a table was lost.

    The archive holds what replicas wrote; recorded files are ingested again.
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.committer import restore_archive

    done = restore_archive(*_log_of(parsed))
    _tell(done, [f"{done.committed} events committed again, {done.duplicates} were in the table"], json)


def catch_up(config: "Config") -> int:
    """What was said and asked for until now gets into the table before anybody looks at it. Returns how many
    people were erased. Raises UserError where there is no store."""
    from bb3x_ray.rounds.erasure import catch_up as commit_and_erase

    storage, inbox = _log_of(config)
    return len(commit_and_erase(storage, inbox, config.log.seal_seconds + 0.5))


def _tell_who_waits(storage: "Storage") -> None:
    from bb3x_ray.rounds.erasure import waiting

    count = waiting(storage)
    if count:
        typer.echo(
            f"{count} asked to be erased and are still in the log: the run on this storage root erases them "
            "before its next step.",
            err=True,
        )


def nobody_waits(config: "Config") -> None:
    """Raises UserError while the log holds somebody who asked to be erased: nothing of theirs may leave."""
    from bb3x_ray.rounds.erasure import waiting
    from bb3x_ray.schemas.errors import UserError
    from bb3x_ray.storage import Storage

    count = waiting(Storage(config.storage.root))
    if count:
        raise UserError(
            f"{count} asked to be erased and are still in the log: a run works on this storage root and "
            "erases them before its next step; try again then."
        )


def _log_of(config: "Config") -> "tuple[Storage, Inbox]":
    """The storage root, and where replicas write. Raises UserError where there is no store."""
    from bb3x_ray.data.inbox import open_inbox
    from bb3x_ray.schemas.errors import UserError
    from bb3x_ray.storage import Storage

    storage = Storage(config.storage.root)
    if not storage.root.is_dir():
        raise UserError(
            f"there is no store at {storage.root}: set storage.root, or --config to the config that wrote it."
        )
    return storage, open_inbox(config.log.root or str(storage.root))


def _tell(report: "DataclassInstance", lines: list[str], as_json: bool) -> None:
    import json
    from dataclasses import asdict

    for line in [json.dumps(asdict(report))] if as_json else lines:
        typer.echo(line)
