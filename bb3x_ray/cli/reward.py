"""`bb3x reward`: what the reward model thinks of replies."""

from pathlib import Path
from typing import Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, Overrides
from bb3x_ray.cli.quiet import quiet

reward_app = typer.Typer(help="The reward model: how good replies are.", no_args_is_help=True)


@reward_app.command("score")
def reward_score(
    file: Annotated[
        Path, typer.Argument(help="Parquet or JSON lines with context, reply and perhaps after.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the scores go, as Parquet.")],
    reward: Annotated[str, typer.Option(help="A version, for instance v0003; empty: the newest.")] = "",
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Also how unsafe each reply is, and the message before it.")
    ] = False,
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
) -> None:
    """Score any file of replies. Killed and given again, the same command goes on where it was.

    Example: `bb3x reward score replies.jsonl --out scores.parquet reward.max_actors=4`
    """
    from bb3x_ray.config import load_config

    parsed = load_config(config, overrides)
    import shutil

    from bb3x_ray.registry import Registry
    from bb3x_ray.reward.on_ray import score_groups
    from bb3x_ray.reward.score_file import FileTurns, write_scored
    from bb3x_ray.reward.score_parts import Resume
    from bb3x_ray.rounds.on_ray import connected
    from bb3x_ray.rounds.told import told
    from bb3x_ray.schemas.errors import UserError
    from bb3x_ray.storage import Storage, sha256_file

    quiet()
    rewards = Registry(Storage(parsed.storage.root), "rewards")
    version = reward or (rewards.versions() or [""])[-1]
    if not version:
        raise UserError(f"no reward model under {parsed.storage.root} yet: `bb3x run` trains one a round.")
    folder = rewards.folder(version)
    turns = FileTurns.of(file.resolve())
    safety = None
    if unsafe:
        from bb3x_ray.rounds.safety import ensure_safety, safety_folder

        storage = rewards.storage
        safety = safety_folder(storage, ensure_safety(storage, parsed.safety, parsed.seed, typer.echo))
    resume = Resume(out.resolve().with_name(f".{out.name}.parts"), sha256_file(file))
    with connected(parsed.ray):
        tables = score_groups(
            turns,
            len(turns.cuts),
            folder,
            parsed.reward.encoder,
            parsed.reward,
            version=version,
            safety=safety,
            resume=resume,
        )
        say = told(tables, turns.rows, typer.echo, "{} of {} replies", len)
        rows, errors = write_scored(say, out)
    shutil.rmtree(resume.folder, ignore_errors=True)
    typer.echo(f"{out}: {rows} replies scored by reward {version}, {errors} of them have an error instead")
