"""`bb3x module`: one of BlenderBot 3's modules by itself. `bb3x search-server`: our search, for others."""

import re
from pathlib import Path
from typing import Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, Overrides
from bb3x_ray.cli.quiet import quiet

_OVERRIDE = re.compile(r"[a-z_]+(?:\.[a-z_]+)+=\S")


def module(
    name: Annotated[str, typer.Argument(help="For instance search_query; `list` names them all.")],
    text: Annotated[str, typer.Argument(help="What the person says.")] = "",
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    given: Annotated[
        list[str] | None,
        typer.Option(help="A memory, document or piece of knowledge that the module gets; several times."),
    ] = None,
    before: Annotated[
        list[str] | None, typer.Option(help="A message before: the last one the bot's, and so on back.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="For instance v0002; else the champion.")] = None,
    prompt: Annotated[bool, typer.Option("--prompt", help="Show the prompt, too.")] = False,
) -> None:
    """Call one module: its output, and what that is read as.

    Examples: `bb3x module search_query "Who won the cup?"` ·
    `bb3x module memory_knowledge "What do I drink?" --given "I like tea" --given "I have a dog"`
    """
    from bb3x_ray.config_file import load_config

    if _OVERRIDE.match(text):  # `list`, or a module without words, before the overrides
        text, overrides = "", [text, *(overrides or [])]
    parsed = load_config(config, overrides)
    import asyncio

    from bb3x_ray.rounds.terminal import Asks, decoding_of, open_engine
    from bb3x_ray.schemas.errors import UserError
    from bb3x_ray.serve.conversations import Said
    from bb3x_ray.serve.modules.alone import NAMES, Answered, call
    from bb3x_ray.serve.modules.module import ModuleFailed
    from bb3x_ray.storage import Storage

    if name == "list":
        typer.echo("\n".join(NAMES))
        raise typer.Exit
    if name not in NAMES or not text.strip():
        raise UserError(f"give a module and what the person says; modules: {', '.join(NAMES)}.")
    quiet()
    texts = [*(before or []), text]
    history = [
        Said("assistant" if (len(texts) - place) % 2 == 0 else "user", said)
        for place, said in enumerate(texts)
    ]
    with open_engine(Storage(parsed.storage.root), parsed, version) as engine:

        async def answer() -> Answered:
            about = {"given": given or [], "system": parsed.chat.system_prompt}
            return await call(name, history, Asks(engine), decoding=decoding_of(parsed), **about)  # type: ignore[arg-type]

        try:
            answered = asyncio.run(answer())
        except ModuleFailed as error:
            raise UserError(f"the model gave no answer ({error}).") from None
    if prompt:
        for turn in answered.turns:
            typer.echo(f"[{turn.role}]\n{turn.text}\n")
    typer.echo(answered.output.strip())
    if answered.read_as:
        typer.echo(f"read as: {answered.read_as}", err=True)


def search_server(
    folder: Annotated[
        Path | None, typer.Argument(help="Of .txt, .md and .jsonl files; else a few documents that ship.")
    ] = None,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
) -> None:
    """Serve a folder of documents by ParlAI's search protocol, until Ctrl-C.

    Example: `bb3x search-server notes/ --port 8080`, then `modules.search_server=http://127.0.0.1:8080`
    """
    import socket

    import uvicorn

    from bb3x_ray.schemas.errors import UserError
    from bb3x_ray.serve.local_search import OWN, LocalSearch, search_app

    search = LocalSearch(folder or OWN)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            reason = (error.strerror or "it cannot be used").lower()
            raise UserError(f"--port {port} on {host}: {reason}; give another one.") from None
        typer.echo(f"{len(search)} documents at http://{host}:{port}")
        uvicorn.Server(uvicorn.Config(search_app(search), log_level="warning")).run(sockets=[door])


COMMANDS = (module, search_server)
