"""Commands. Config is parsed first; a room is imported only inside its command (`--help` under 0.5 s)."""

import errno
import sys
import traceback
from typing import Annotated

import typer

from bb3x_ray.cli import module, rounds, talk
from bb3x_ray.cli.annotate import annotate_app
from bb3x_ray.cli.canary import canary_app
from bb3x_ray.cli.chat import chat
from bb3x_ray.cli.compare import compare_app
from bb3x_ray.cli.log import log_app
from bb3x_ray.cli.models import models_app
from bb3x_ray.cli.reward import reward_app
from bb3x_ray.cli.safety import safety_app
from bb3x_ray.cli.trust import trust_app

app = typer.Typer(
    help="Chat models that keep learning from the people who talk to them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (*rounds.COMMANDS, chat, *module.COMMANDS, *talk.COMMANDS):
    app.command()(command)
app.add_typer(models_app, name="models")
app.add_typer(canary_app, name="canary")
app.add_typer(log_app, name="log")
app.add_typer(reward_app, name="reward")
app.add_typer(annotate_app, name="annotate")
app.add_typer(trust_app, name="trust")
app.add_typer(safety_app, name="safety")
app.add_typer(compare_app, name="compare")


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
