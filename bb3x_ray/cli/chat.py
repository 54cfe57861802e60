"""`bb3x chat`: talk to a version in the terminal, and see what its modules do."""

from typing import TYPE_CHECKING, Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, Overrides
from bb3x_ray.cli.quiet import quiet

if TYPE_CHECKING:
    from bb3x_ray.rounds.terminal import Terminal
    from bb3x_ray.serve.modules.trace import Trace


def chat(
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    version: Annotated[str | None, typer.Option(help="For instance v0002; else the champion.")] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Think with all modules, and show what each did.")
    ] = False,
) -> None:
    """Talk to the champion or a named version here, without a server; nothing is logged or kept.

    Example: `bb3x chat --trace` · `bb3x chat --version v0002 chat.temperature=0.2`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    import asyncio
    import tempfile
    from pathlib import Path

    from bb3x_ray.rounds.terminal import Terminal, open_engine
    from bb3x_ray.serve.memory import Memories
    from bb3x_ray.storage import Storage

    quiet()
    storage = Storage(parsed.storage.root)
    with open_engine(storage, parsed, version) as engine, tempfile.TemporaryDirectory() as scratch:
        modules = trace or parsed.modules.enabled
        terminal = Terminal(storage, parsed, engine, Memories(Path(scratch)), modules, _tell)
        typer.echo(f"{engine.version} listens; an empty line ends the talk.", err=True)
        asyncio.run(_talk(terminal, trace))


async def _talk(terminal: "Terminal", trace: bool) -> None:
    import asyncio

    from bb3x_ray.serve.engines.protocol import EngineFailed, PromptRefused

    while text := (await asyncio.to_thread(_ask)).strip():
        reply = terminal.say(text)
        try:
            async for piece in terminal.read(reply):
                typer.echo(piece, nl=False)
        except (EngineFailed, PromptRefused) as error:
            typer.echo(f"no reply: {type(error).__name__}", nl=False, err=True)
        typer.echo(f"  [{reply.canned}]" if reply.canned else "")
        if trace:
            show_trace(reply.trace)


def _ask() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def show_trace(trace: "Trace") -> None:
    """What every module did, as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("module", "in, chars", "output", "decision", "ms")
    for step in trace.steps:
        said = escape(step.error or step.output.strip()[:120])
        table.add_row(step.module, str(step.input_chars), said, escape(step.decision), str(step.ms))
    Console().print(table)
