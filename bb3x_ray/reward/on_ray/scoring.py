"""Reward's Ray door: bot turns are scored by actors that Ray Data feeds."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pair_logistic import PairLogistic
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.turns import with_thumb
from bb3x_ray.schemas.learning import SCORED_SCHEMA

BATCH = 64
_COLUMNS = ["conversation_id", "message_id", "person", "rating", "trusted"]
# Some turns of a slice: number of a group -> table of turns.TURNS_SCHEMA. Any process may call it.
TurnsOf = Callable[[int], pa.Table]


class ScoreActor:
    """Loads the reward model once; makes rows of SCORED_SCHEMA of batches of turns (TURNS_SCHEMA)."""

    def __init__(self, reward_folder: str, encoder: str) -> None:
        self._model = PairLogistic.load(Path(reward_folder), load_encoder(encoder))

    def __call__(self, batch: pa.Table) -> pa.Table:
        contexts, replies = batch["context"].to_pylist(), batch["reply"].to_pylist()
        scored = self._score(list(zip(contexts, replies, strict=True)))
        ratings = [
            rating if trusted else None
            for rating, trusted in zip(batch["rating"].to_pylist(), batch["trusted"].to_pylist(), strict=True)
        ]
        good = [
            score if error else with_thumb(score, rating, self._model.base_rate)
            for (score, error), rating in zip(scored, ratings, strict=True)
        ]
        columns = {name: batch[name] for name in _COLUMNS}
        columns |= {"good": pa.array(good, pa.float64()), "rating": pa.array(ratings, pa.int8())}
        columns["error"] = pa.array([error for _, error in scored], pa.string())
        return pa.table([columns[name] for name in SCORED_SCHEMA.names], schema=SCORED_SCHEMA)

    def _score(self, turns: list[tuple[str | None, str | None]]) -> list[tuple[float, str]]:
        """(score, "") for each turn, or (0.5, why not): one bad row must not take its block down with it."""
        whole = [
            Pair(context, reply) for context, reply in turns if context is not None and reply is not None
        ]
        scores = iter(self._model.predict(whole))
        found = []
        for context, reply in turns:
            score = 0.5 if context is None or reply is None else float(next(scores))
            error = "no text" if context is None or reply is None else ""
            if not np.isfinite(score):
                score, error = 0.5, "score is not a number"
            found.append((score, error))
        return found


class ScoreGroups(ScoreActor):
    """The same for numbers of groups, whose turns it makes itself: no text travels between processes."""

    def __init__(self, reward_folder: str, encoder: str, turns_of: TurnsOf) -> None:
        super().__init__(reward_folder, encoder)
        self._turns_of = turns_of

    def __call__(self, numbers: pa.Table) -> Iterator[pa.Table]:  # type: ignore[override]
        for number in numbers["id"].to_pylist():
            turns = self._turns_of(number)
            for first in range(0, len(turns), BATCH):
                yield super().__call__(turns.slice(first, BATCH))


def score_turns(turns: pa.Table, reward_folder: Path, encoder: str, config: RewardConfig) -> pa.Table:
    """Score turns (TURNS_SCHEMA) on `config.actors` actors.

    Returns a table of SCORED_SCHEMA in the order of `turns`; rows that cannot be scored have `error` and
    good = 0.5. Ray must be running.
    """
    if not turns.num_rows:
        return SCORED_SCHEMA.empty_table()
    arguments = {"reward_folder": str(reward_folder), "encoder": encoder}
    scored = _scored(lambda: ray.data.from_arrow(turns), ScoreActor, arguments, BATCH, config)
    return pa.concat_tables(scored)


def score_groups(
    turns_of: TurnsOf, groups: int, reward_folder: Path, encoder: str, config: RewardConfig
) -> Iterator[pa.Table]:
    """The same for the turns of all groups, a table after the other; each actor reads its own groups, so
    every node must reach them."""
    arguments = {"reward_folder": str(reward_folder), "encoder": encoder, "turns_of": turns_of}
    if groups:
        yield from _scored(
            lambda: ray.data.range(groups, override_num_blocks=groups), ScoreGroups, arguments, 1, config
        )


def _scored(
    dataset: Callable[[], ray.data.Dataset],
    actor: type[ScoreActor],
    arguments: dict[str, Any],
    batch_size: int,
    config: RewardConfig,
) -> Iterator[pa.Table]:
    with ray.data.DataContext.current(_context()):
        scored = dataset().map_batches(
            actor,
            fn_constructor_kwargs=arguments,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=config.actors),
            batch_size=batch_size,
            batch_format="pyarrow",
            num_cpus=config.num_cpus,
        )
    tables: Any = scored.iter_batches(batch_size=None, batch_format="pyarrow")
    # Of an actor that had nothing to score come blocks without columns.
    yield from (table.cast(SCORED_SCHEMA) for table in tables if len(table))


def _context() -> ray.data.DataContext:
    """Results in order, and no progress bars: the round shows its own progress."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    return context
