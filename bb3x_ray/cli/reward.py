"""`bb3x reward`: what the reward model thinks of replies, and how it came to think so."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bb3x_ray.cli.log import catch_up, nobody_waits
from bb3x_ray.cli.options import RECORDED, ConfigOption, Overrides
from bb3x_ray.cli.quiet import quiet

if TYPE_CHECKING:
    from bb3x_ray.registry import Registry

reward_app = typer.Typer(help="The reward model: how good replies are.", no_args_is_help=True)


@reward_app.command("train")
def reward_train(config: ConfigOption = RECORDED, overrides: Overrides = None) -> None:
    """Learn a reward model from everything that people said of replies in the log, and print its card.

    A round makes its own. Example: `bb3x reward train --config configs/recorded.yaml`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.inbox import open_inbox
    from bb3x_ray.rounds.console import Speaker
    from bb3x_ray.rounds.erasure import carry_out
    from bb3x_ray.rounds.judging import may_teach
    from bb3x_ray.rounds.ledger import only_run
    from bb3x_ray.rounds.on_ray import connected
    from bb3x_ray.rounds.rated_talk import rated_in_log
    from bb3x_ray.rounds.reward_models import RewardModels
    from bb3x_ray.storage import Storage

    quiet()
    catch_up(parsed)
    say, storage = Speaker(), Storage(parsed.storage.root)
    # Alone: a run that begins, or an erasure, removes what lies under tmp/, which is where this works.
    with only_run(storage):
        nobody_waits(parsed)
        storage.clear_aside()
        with rated_in_log(storage, parsed.log, may_teach(parsed)) as talk, connected(parsed.ray):
            models = RewardModels(storage, parsed, say)
            version = models.registry.reserve()
            trust, _ = models.trust(talk.evidence)
            models.learn(
                version, talk.evidence, trust, talk.rated_as_a_whole, parsed.seed, upto_seq=talk.upto_seq
            )
        # Whoever asked meanwhile was told that this does it; their tombstone lists the version.
        carry_out(storage, open_inbox(parsed.log.root or str(storage.root)))
    say.stop()
    typer.echo((models.registry.folder(version) / "README.md").read_text(encoding="utf-8"))


@reward_app.command("card")
def reward_card(
    config: ConfigOption = RECORDED,
    overrides: Overrides = None,
    reward: Annotated[str, typer.Option(help="A version, for instance v0003; empty: the newest.")] = "",
) -> None:
    """What a reward model learned from, and how good it is on people that it did not see.

    Example: `bb3x reward card --config configs/local.yaml --reward v0002`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.registry import Registry
    from bb3x_ray.storage import Storage

    rewards = Registry(Storage(parsed.storage.root), "rewards")
    folder = rewards.folder(_version(rewards, reward))
    typer.echo((folder / "README.md").read_text(encoding="utf-8"))


@reward_app.command("evaluate")
def reward_evaluate(
    file: Annotated[Path, typer.Argument(help="Recorded talk with thumbs or annotations.")],
    format: Annotated[str, typer.Option(help="Its format: see `bb3x formats`.")] = "convai2",
    reward: Annotated[str, typer.Option(help="A version, for instance v0003; empty: the newest.")] = "",
    config: ConfigOption = RECORDED,
    overrides: Overrides = None,
) -> None:
    """How well a reward model predicts what people said, with 95 % intervals: on talk that it never saw.

    Who talked both here and in what it learned from is not known: give talk of other people.

    Example: `bb3x reward evaluate other_volunteers.json --format convai2`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.registry import Registry
    from bb3x_ray.rounds.rated_talk import rated_in_file
    from bb3x_ray.rounds.reward_models import measured_in
    from bb3x_ray.storage import Storage

    quiet()
    rewards = Registry(Storage(parsed.storage.root), "rewards")
    folder = rewards.folder(_version(rewards, reward))
    with rated_in_file(file, format) as talk:
        typer.echo(measured_in(talk.evidence, folder, parsed.seed))


def _version(rewards: "Registry", wanted: str) -> str:
    """`wanted`, else the newest. Raises UserError where there is none."""
    from bb3x_ray.schemas.errors import UserError

    version = wanted or (rewards.versions() or [""])[-1]
    if not version:
        raise UserError(
            f"no reward model under {rewards.storage.root} yet: `bb3x reward train` makes one, and so does "
            "each round of `bb3x run`."
        )
    return version


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
    config: ConfigOption = RECORDED,
    overrides: Overrides = None,
) -> None:
    """Score any file of replies. Killed and given again, the same command goes on where it was.

    Example: `bb3x reward score replies.jsonl --out scores.parquet reward.max_actors=4`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    import shutil

    from bb3x_ray.registry import Registry
    from bb3x_ray.reward.on_ray import score_groups
    from bb3x_ray.reward.score_file import FileTurns, write_scored
    from bb3x_ray.reward.score_parts import Resume
    from bb3x_ray.rounds.on_ray import connected
    from bb3x_ray.rounds.told import told
    from bb3x_ray.storage import Storage, sha256_file

    quiet()
    rewards = Registry(Storage(parsed.storage.root), "rewards")
    version = _version(rewards, reward)
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
            parsed.reward,
            version=version,
            safety=safety,
            resume=resume,
        )
        say = told(tables, turns.rows, typer.echo, "{} of {} replies", len)
        rows, errors = write_scored(say, out)
    shutil.rmtree(resume.folder, ignore_errors=True)
    typer.echo(f"{out}: {rows} replies scored by reward {version}, {errors} of them have an error instead")
