"""`bb3x canary`: the candidate that some people talk to."""

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, Overrides
from bb3x_ray.cli.quiet import quiet

canary_app = typer.Typer(help="The candidate that some people talk to.", no_args_is_help=True)


@canary_app.command("watch")
def canary_watch(config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """Look at the log every canary.every_seconds and promote or roll back when people have said enough.

    Ends with Ctrl-C; `bb3x serve` and `bb3x run` look by themselves. It may be killed and started again.
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    import signal
    import threading

    from bb3x_ray.rounds.canary import Canaries
    from bb3x_ray.rounds.console import Speaker
    from bb3x_ray.storage import Storage

    quiet()
    say, stopped = Speaker(), threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    canaries = Canaries(Storage(parsed.storage.root), parsed, say)
    if canaries.under_way is None:
        say("no canary is under way; one begins when a round's candidate passes with canary.share above 0")
    canaries.watch(stopped)
    say.stop()


@canary_app.command("show")
def canary_show(config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """What was seen of both versions so far; looks at the log once, and decides nothing."""
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from rich.console import Console

    from bb3x_ray.rounds.canary import Canaries
    from bb3x_ray.rounds.versions import arms_table
    from bb3x_ray.storage import Storage

    quiet()
    canary = Canaries(Storage(parsed.storage.root), parsed, typer.echo).seen()
    if canary is None:
        typer.echo("no canary is under way.")
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{canary.candidate} against {canary.champion}: {canary.words}", markup=False)
    console.print(arms_table(canary))
