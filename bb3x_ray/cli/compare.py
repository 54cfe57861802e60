"""`bb3x compare`: what people chose at /compare, where two versions answer them blindly."""

import sys
from typing import Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, JsonOption, Overrides

compare_app = typer.Typer(help="Blind comparisons of two versions by people.", no_args_is_help=True)


@compare_app.command("report")
def compare_report(
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Count the choices of simulated people, not of real ones.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Which version people prefer, pair by pair, with intervals.

    Example: `bb3x compare report --config configs/cluster.yaml`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from rich.console import Console

    from bb3x_ray.cli.log import catch_up
    from bb3x_ray.data.comparisons import comparisons
    from bb3x_ray.evaluate.human_preference import human_preferences
    from bb3x_ray.evaluate.human_preference_report import preference_table
    from bb3x_ray.rounds.console import WIDE
    from bb3x_ray.storage import Storage

    catch_up(parsed)
    said = [one for one in comparisons(Storage(parsed.storage.root)) if one.simulated == simulated]
    found = human_preferences(said)
    if json:
        Console().print_json(data=[one.to_dict() for one in found])
    elif found:
        width = None if sys.stdout.isatty() else WIDE
        Console(highlight=False, width=width).print(preference_table(found))
    else:
        typer.echo(
            "nobody has compared two versions yet: people do so at /compare of a server that holds two, as "
            "it does during a canary.",
            err=True,
        )
