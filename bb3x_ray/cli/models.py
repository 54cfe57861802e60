"""`bb3x models`: versions of the chat model."""

from typing import TYPE_CHECKING, Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, Overrides
from bb3x_ray.cli.quiet import quiet

if TYPE_CHECKING:
    from bb3x_ray.storage import Storage

models_app = typer.Typer(help="Versions of the chat model.", no_args_is_help=True)


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
def models_list(config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """List the versions, where each came from, and which one is champion."""
    from bb3x_ray.config_file import load_config

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
