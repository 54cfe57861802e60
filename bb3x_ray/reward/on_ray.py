"""Reward's Ray door: bot turns are scored by actors that Ray Data feeds."""

import logging
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
from bb3x_ray.schemas.learning import ScoredTurn

BATCH = 64
_COLUMNS = ["conversation_id", "message_id", "rating", "trusted"]


class ScoreActor:
    """Loads the reward model once; adds the columns `score`, `base_rate` and `error` to batches of turns."""

    def __init__(self, reward_folder: str, encoder: str) -> None:
        self._model = PairLogistic.load(Path(reward_folder), load_encoder(encoder))

    def __call__(self, batch: pa.Table) -> pa.Table:
        contexts, replies = batch["context"].to_pylist(), batch["reply"].to_pylist()
        scored = self._score(list(zip(contexts, replies, strict=True)))
        kept = batch.select(_COLUMNS)
        kept = kept.append_column("score", pa.array([score for score, _ in scored], pa.float64()))
        base_rate = pa.array([self._model.base_rate] * len(scored), pa.float64())
        kept = kept.append_column("base_rate", base_rate)
        return kept.append_column("error", pa.array([error for _, error in scored], pa.string()))

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


def score_turns(
    turns: pa.Table | list[dict[str, Any]],
    reward_folder: Path,
    encoder: str,
    config: RewardConfig,
    reward_version: str,
) -> list[ScoredTurn]:
    """Score turns (columns of turns.TURNS_SCHEMA) on `config.actors` actors.

    Returns one ScoredTurn a row, by (conversation_id, message_id); rows that cannot be scored have
    `error` and good = 0.5. Ray must be running.
    """
    table = turns if isinstance(turns, pa.Table) else pa.Table.from_pylist(turns)
    if not table.num_rows:
        return []
    _quiet()
    scored = ray.data.from_arrow(table).map_batches(
        ScoreActor,
        fn_constructor_kwargs={"reward_folder": str(reward_folder), "encoder": encoder},
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=config.actors),
        batch_size=BATCH,
        batch_format="pyarrow",
        num_cpus=config.num_cpus,
    )
    rows = sorted(scored.take_all(), key=lambda row: (row["conversation_id"], row["message_id"]))
    return [_scored_turn(row, reward_version) for row in rows]


def _scored_turn(row: dict[str, Any], reward_version: str) -> ScoredTurn:
    rating = row["rating"] if row["trusted"] else None
    return ScoredTurn(
        conversation_id=row["conversation_id"],
        message_id=row["message_id"],
        good=row["score"] if row["error"] else with_thumb(row["score"], rating, row["base_rate"]),
        rating=rating,
        trusted=row["trusted"],
        reward_version=reward_version,
        error=row["error"],
    )


def _quiet() -> None:
    """No progress bars: the round shows its own progress."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
