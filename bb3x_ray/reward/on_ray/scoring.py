"""Reward's Ray door: bot turns are scored by actors that Ray Data feeds.

A group's turns are sorted by length and cut into buckets; its pieces take turns at the buckets, so that a
single group keeps all actors busy with about equal work. Which rows are batched together depends on the
turns alone, never on how many actors there are or which of them had been killed.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch

from bb3x_ray.classify.pair_model import load_pair_model
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.score_parts import Parts, Resume, stamp_of
from bb3x_ray.reward.score_rows import ROWS, RowScorer, Unsafe, buckets
from bb3x_ray.schemas.learning import SCORED_SCHEMA

PIECES_PER_ACTOR = 8  # at least, so that actors end at about the same time
# Some turns of a slice: number of a group -> table of turns.TURNS_SCHEMA. Any process may call it.
TurnsOf = Callable[[int], pa.Table]
_PART_SCHEMA = SCORED_SCHEMA.append(pa.field("group", pa.int64())).append(pa.field("place", pa.int64()))


class SafetySource(Protocol):
    """How an actor comes by the scorer of unsafe texts; `stamp` names it with all its settings."""

    @property
    def stamp(self) -> str: ...

    def load(self) -> Unsafe: ...


@dataclass(frozen=True, slots=True)
class _Source:
    """What an actor loads."""

    folder: str
    version: str
    safety: SafetySource | None
    max_chars: int
    threads: int
    parts: Parts | None

    def load(self) -> RowScorer:
        torch.set_num_threads(self.threads)
        if self.threads == 1:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        model = load_pair_model(Path(self.folder))
        return RowScorer(model, self.version, self.safety.load() if self.safety else None, self.max_chars)


class ScoreActor:
    """Loads the models once; scores blocks of turns, which say their group, piece and places."""

    def __init__(self, source: _Source) -> None:
        self._score, self._parts = source.load(), source.parts

    def __call__(self, turns: pa.Table) -> pa.Table:
        group, piece = (turns[name][0].as_py() for name in ("group", "piece"))
        return self._publish(group, piece, self._scored(turns, turns["group"], turns["place"]))

    def _scored(self, turns: pa.Table, group: Any, place: Any) -> pa.Table:
        return self._score(turns).append_column("group", group).append_column("place", place)

    def _publish(self, group: int, piece: int, scored: pa.Table) -> pa.Table:
        if self._parts is not None:
            self._parts.publish(group, piece, scored)
        return scored


class ScoreGroups(ScoreActor):
    """The same for pieces of groups, whose turns it makes itself: no text travels between processes."""

    def __init__(self, source: _Source, turns_of: TurnsOf, pieces: int) -> None:
        super().__init__(source)
        self._turns_of, self._pieces = turns_of, pieces
        self._last: tuple[int, pa.Table, list[np.ndarray]] | None = None

    def __call__(self, item: pa.Table) -> pa.Table:
        group, piece = (item[name][0].as_py() for name in ("group", "piece"))
        turns, cut = self._group(group)
        mine = cut[piece :: self._pieces]
        tables = [
            self._scored(turns.take(bucket), pa.array([group] * len(bucket)), pa.array(bucket))
            for bucket in mine
        ]
        return self._publish(group, piece, pa.concat_tables([_PART_SCHEMA.empty_table(), *tables]))

    def _group(self, group: int) -> tuple[pa.Table, list[np.ndarray]]:
        if self._last is None or self._last[0] != group:
            turns = self._turns_of(group)
            self._last = (group, turns, buckets(turns))
        return self._last[1:]


def score_turns(
    turns: pa.Table,
    reward_folder: Path,
    config: RewardConfig,
    *,
    version: str = "",
    safety: SafetySource | None = None,
    resume: Resume | None = None,
) -> pa.Table:
    """Score turns (TURNS_SCHEMA) on `config.min_actors` to `config.max_actors` actors.

    version   stamped on every row; "": the name of `reward_folder`
    safety    fills `unsafe` and `unsafe_heard`
    resume    where a run that is killed leaves what it has scored

    Returns a table of SCORED_SCHEMA in the order of `turns`; rows that cannot be scored have `error` and
    good = fresh = 0.5. Ray must be running.
    """
    cut = buckets(turns)
    source = _source(reward_folder, config, version, safety, resume, 1)
    done = source.parts.found if source.parts else {}

    def blocks() -> ray.data.Dataset:
        return ray.data.from_arrow(
            [
                _with(turns.take(cut[piece]), group=0, piece=piece).append_column(
                    "place", pa.array(cut[piece], pa.int64())
                )
                for piece in range(len(cut))
                if (0, piece) not in done
            ]
        )

    tables = [_PART_SCHEMA.empty_table(), *(source.parts.read(*key) for key in sorted(done) if source.parts)]
    if len(done) < len(cut):
        tables += _run(blocks, ScoreActor, {"source": source}, config)
    return _in_order(tables)


def score_groups(
    turns_of: TurnsOf,
    groups: int,
    reward_folder: Path,
    config: RewardConfig,
    *,
    version: str = "",
    safety: SafetySource | None = None,
    resume: Resume | None = None,
) -> Iterator[pa.Table]:
    """The same for the turns of all groups, a table a group that has turns; each actor reads its own groups,
    so every node must reach them."""
    if not groups:
        return
    pieces = -(-PIECES_PER_ACTOR * config.max_actors // groups)
    source = _source(reward_folder, config, version, safety, resume, pieces)
    parts = source.parts
    pieces = parts.pieces if parts else pieces
    items = [(group, piece) for group in range(groups) for piece in range(pieces)]
    todo = [item for item in items if parts is None or item not in parts.found]
    arguments = {"source": source, "turns_of": turns_of, "pieces": pieces}

    def blocks() -> ray.data.Dataset:
        return ray.data.from_arrow([pa.table({"group": [g], "piece": [p]}) for g, p in todo])

    fresh = _ByGroup(_run(blocks, ScoreGroups, arguments, config) if todo else iter(()))
    for group in range(groups):
        stored = [parts.read(group, p) for p in range(pieces) if (group, p) in parts.found] if parts else []
        table = _in_order([_PART_SCHEMA.empty_table(), *stored, *fresh.of(group)])
        if len(table):
            yield table


class _ByGroup:
    """Tables in the order of their groups, taken out group by group."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables, self._ahead = tables, None

    def of(self, group: int) -> Iterator[pa.Table]:
        while (table := self._next()) is not None:
            if table["group"][0].as_py() != group:
                self._ahead = table
                return
            yield table

    def _next(self) -> pa.Table | None:
        table, self._ahead = self._ahead, None
        return table if table is not None else next(self._tables, None)


def _in_order(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).sort_by("place").select(SCORED_SCHEMA.names)


def _with(table: pa.Table, **numbers: int) -> pa.Table:
    for name, number in numbers.items():
        table = table.append_column(name, pa.array([number] * len(table), pa.int64()))
    return table


def _source(
    folder: Path,
    config: RewardConfig,
    version: str,
    safety: SafetySource | None,
    resume: Resume | None,
    pieces: int,
) -> _Source:
    version = version or folder.name
    threads = max(1, (os.cpu_count() or 1) // config.max_actors)
    parts = None
    if resume is not None:
        stamp = stamp_of(
            folder,
            version=version,
            safety=safety.stamp if safety else None,
            max_chars=config.max_chars,
            rows=ROWS,
        )
        parts = Parts.open(resume, stamp, pieces)
    return _Source(str(folder), version, safety, config.max_chars, threads, parts)


def _run(
    blocks: Callable[[], ray.data.Dataset],
    actor: type[ScoreActor],
    arguments: dict[str, Any],
    config: RewardConfig,
) -> Iterator[pa.Table]:
    """What actors make of blocks, in their order; nothing of blocks without turns."""
    with ray.data.DataContext.current(_context()):
        scored = blocks().map_batches(
            actor,
            fn_constructor_kwargs=arguments,
            compute=ray.data.ActorPoolStrategy(min_size=config.min_actors, max_size=config.max_actors),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=config.num_cpus,
            num_gpus=config.num_gpus,
        )
    tables: Any = scored.iter_batches(batch_size=None, batch_format="pyarrow")
    # Of an actor that had nothing to score come blocks without columns.
    yield from (table.cast(_PART_SCHEMA) for table in tables if len(table))


def _context() -> ray.data.DataContext:
    """Results in order, and no progress bars: the round shows its own progress."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    return context
