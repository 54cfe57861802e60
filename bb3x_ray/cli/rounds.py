"""Commands that learn and answer."""

from typing import Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, Overrides
from bb3x_ray.cli.quiet import quiet


def run(config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """Run the rounds of a config; resumes where a run was killed.

    Examples: `bb3x run --config configs/local.yaml` · `bb3x run rounds=3 storage.root=/data/store`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.rounds.console import Speaker
    from bb3x_ray.rounds.run import run as run_rounds

    quiet()
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


def serve(config: ConfigOption = LOCAL, overrides: Overrides = None) -> None:
    """Chat with the champion: a page and an OpenAI-compatible API, until Ctrl-C.

    Example: `bb3x serve serve.port=8080`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    import signal
    import threading

    from bb3x_ray.data.inbox import open_inbox
    from bb3x_ray.registry import Registry
    from bb3x_ray.rounds import erasure
    from bb3x_ray.rounds.canary import Canaries
    from bb3x_ray.rounds.console import Speaker
    from bb3x_ray.rounds.material import first_version
    from bb3x_ray.rounds.on_ray import connected, start_server
    from bb3x_ray.storage import Storage

    quiet()
    _require_unaltered(parsed.storage.root)
    say = Speaker()
    storage = Storage(parsed.storage.root)
    champion = first_version(Registry(storage, "models"), parsed.model.source)
    with connected(parsed.ray):
        server = start_server(storage, parsed, say)
        say(f"chat with {champion} at {server.url} (Ctrl-C stops)")
        stopped = threading.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stopped.set())
        inbox = open_inbox(parsed.log.root or str(storage.root))
        erasures = (storage, inbox, parsed.log.seal_seconds + 0.5, say, stopped)
        threading.Thread(target=erasure.watch, args=erasures, daemon=True).start()
        if parsed.canary.share:
            watch = Canaries(storage, parsed, say).watch
            threading.Thread(target=watch, args=(stopped,), daemon=True).start()
        stopped.wait()
        say.stop()
        server.stop()
        erasure.catch_up(storage, inbox)  # nothing is being written any more


def plan(
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="H200, H100, A100, A100-40, L40S, A10G, L4 …; else H100, or this machine where "
            "the config asks for no GPU."
        ),
    ] = None,
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
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from rich.console import Console

    from bb3x_ray.rounds.planning import as_json, plan_for, show

    made = plan_for(parsed, gpu=gpu, gpus=gpus, per_node=per_node, node_gib=node_memory, rows=rows, mfu=mfu)
    if json:
        Console().print_json(data=as_json(made))
    else:
        show(made, Console())
        train = parsed.train
        if not made.machines.gpu.is_cpu and (train.gpus_per_worker, train.workers) != (1, made.setup.workers):
            typer.echo(f"As with train.gpus_per_worker=1 train.workers={made.setup.workers}.")
    if not made.fits:
        raise typer.Exit(1)


def _require_unaltered(root: str) -> None:
    """Refuse an altered champion here, in a sentence, rather than in a replica's traceback."""
    from bb3x_ray.registry import Registry
    from bb3x_ray.storage import Storage

    registry = Registry(Storage(root), "models")
    champion = registry.alias("champion")
    if champion is not None:
        registry.folder(champion)


COMMANDS = (run, serve, plan)
