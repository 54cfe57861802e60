"""`bb3x models`: versions of the chat model."""

from typing import Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, JsonOption, Overrides
from bb3x_ray.cli.quiet import quiet

models_app = typer.Typer(help="Versions of the chat model.", no_args_is_help=True)

VersionArgument = Annotated[str, typer.Argument(help="A version, for instance v0002.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it stays with the version.")]


@models_app.command("import")
def models_import(
    source: Annotated[str, typer.Argument(help="smollm2, a Hugging Face folder, or a name on the hub.")],
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
) -> None:
    """Make a model a version; the first one becomes champion.

    Example: `bb3x models import smollm2`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.registry import Bootstrap, Registry
    from bb3x_ray.rounds.material import add_version, prompts_note
    from bb3x_ray.storage import Storage

    quiet()
    registry = Registry(Storage(parsed.storage.root), "models")
    version = add_version(registry, source)
    if registry.alias("champion") is None:
        registry.move_champion(Bootstrap(version), expected=None)
    typer.echo(f"{version} from {source}{prompts_note(registry, version)}: {registry.folder(version)}")


@models_app.command("list")
def models_list(config: ConfigOption = LOCAL, overrides: Overrides = None, json: JsonOption = False) -> None:
    """List the versions: aliases, what became of each, where it came from."""
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from rich.console import Console

    from bb3x_ray.registry import Registry
    from bb3x_ray.rounds.console import WIDE
    from bb3x_ray.rounds.versions import about, table_of
    from bb3x_ray.storage import Storage

    storage = Storage(parsed.storage.root)
    versions = Registry(storage, "models").versions()
    if json:
        import json as words
        from dataclasses import asdict

        told = [asdict(about(storage, version)) for version in versions]
        kept = ("version", "aliases", "state", "origin")
        typer.echo(words.dumps([{name: one[name] for name in kept} for one in told]))
    elif not versions:
        typer.echo(
            f"no models under {parsed.storage.root} yet: `bb3x run` or `bb3x models import` makes one."
        )
    else:
        import sys

        Console(width=None if sys.stdout.isatty() else WIDE).print(table_of(storage))


@models_app.command("show")
def models_show(version: VersionArgument, config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """A version's card, lineage, verdict, canary and quarantine.

    Example: `bb3x models show v0002`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from rich.console import Console

    from bb3x_ray.rounds.versions import show
    from bb3x_ray.storage import Storage

    show(Storage(parsed.storage.root), version, Console(highlight=False, soft_wrap=True))


@models_app.command("promote")
def models_promote(
    version: VersionArgument,
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    reason: ReasonOption = "",
) -> None:
    """Make a version that passed its verdict champion; `--reason` ends a canary of it that is under way.

    Example: `bb3x models promote v0002`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.rounds.versions import promote
    from bb3x_ray.storage import Storage

    typer.echo(promote(Storage(parsed.storage.root), version, reason))


@models_app.command("rollback")
def models_rollback(
    reason: ReasonOption,
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    champion: Annotated[
        bool, typer.Option("--champion", help="The champion, though a canary is under way.")
    ] = False,
) -> None:
    """End the canary that is under way, else go back to the previous champion; quarantine what was left.

    Example: `bb3x models rollback --reason "rude to new people"`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.rounds.versions import roll_back
    from bb3x_ray.storage import Storage

    typer.echo(roll_back(Storage(parsed.storage.root), reason, champion))


@models_app.command("verify")
def models_verify(
    versions: Annotated[
        list[str] | None, typer.Argument(help="Versions (all, where none is named) and overrides.")
    ] = None,
    config: ConfigOption = LOCAL,
) -> None:
    """Check versions' files: bytes, shards, tokenizer; exit code 1 and a sentence for each that is wrong.

    Example: `bb3x models verify v0002`
    """
    from bb3x_ray.config_file import load_config

    given = versions or []
    parsed = load_config(config, [one for one in given if "=" in one])
    from bb3x_ray.registry import Registry
    from bb3x_ray.rounds.versions import damages
    from bb3x_ray.storage import Storage

    storage, named = Storage(parsed.storage.root), [one for one in given if "=" not in one]
    found = damages(storage, named)
    for sentence in found:
        typer.echo(sentence)
    count = len(named or Registry(storage, "models").versions())
    typer.echo(f"{count} versions, {len(found)} that cannot be used")
    if found:
        raise typer.Exit(1)


@models_app.command("diff")
def models_diff(
    first: VersionArgument,
    second: VersionArgument,
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    most: Annotated[int, typer.Option("-n", min=1, help="Tensors shown, those that changed most.")] = 20,
) -> None:
    """How two versions differ: lineage, config, verdict, and each tensor's relative change.

    Example: `bb3x models diff v0001 v0002`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    import sys

    from rich.console import Console

    from bb3x_ray.rounds.console import WIDE
    from bb3x_ray.rounds.version_diff import diff
    from bb3x_ray.storage import Storage

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    diff(Storage(parsed.storage.root), first, second, most, console)
