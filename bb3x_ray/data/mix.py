"""What a round trains on beside its own conversations: the mix (train.mix), by labelled turns."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.config import MixEntry
from bb3x_ray.schemas.errors import UserError

HUMAN, REPLAY, SAFETY = "human", "replay", "safety"

# A source that can be asked for rows: by how many labelled turns, at least, if it has so many.
Pool = Callable[[int], pa.Table]


def mix(
    own: pa.Table, earlier: pa.Table, pools: Mapping[str, Pool], entries: Sequence[MixEntry], seed: int
) -> tuple[pa.Table, dict[str, dict[str, float]]]:
    """(training rows, what each source gave). All tables are of TRAINING_SCHEMA.

    own       the round's own set. What it has of a source that the mix names counts as that source's.
    earlier   own sets of earlier rounds: what `replay` and ingested sources draw from
    pools     rows of `human` and `safety`, made when they are asked for

    Each entry gives whole rows, drawn by `seed`, until it has `weight` labelled turns for each labelled turn
    of the round's own, or no more rows. Nothing is given twice. Returned for each source: rows, turns,
    tokens (labelled ones), share (of all labelled turns).

    Raises UserError for a source that neither the round nor an earlier one knows, and where the round has no
    labelled turn beside what the mix names: every weight would then be a share of nothing.
    """
    named = {entry.source for entry in entries}
    _check_known(named, own, earlier)
    own_human = pc.equal(own["source"], HUMAN)
    is_named = pc.is_in(own["source"], value_set=pa.array(sorted(named), pa.string()))
    base = own.filter(pc.invert(pc.or_(is_named, own_human)))
    turns = labelled_turns(base)
    if entries and not turns:
        raise _nothing_of_its_own(own, named)
    parts = {"round": base}
    if HUMAN not in named:
        parts[HUMAN] = own.filter(own_human)
    given = set(base["row_id"].to_pylist())
    for entry in entries:
        wanted = round(entry.weight * turns)
        pool = _pool(entry.source, own, earlier, pools, wanted, given)
        drawn = _draw(pool, wanted, random.Random(f"{seed}/{entry.source}"))
        given |= set(drawn["row_id"].to_pylist())
        parts[entry.source] = drawn
    return pa.concat_tables(parts.values()), shares(parts)


def _check_known(named: set[str], own: pa.Table, earlier: pa.Table) -> None:
    known = {HUMAN, REPLAY, SAFETY} | set(own["source"].to_pylist()) | set(earlier["source"].to_pylist())
    for name in sorted(named - known):
        raise UserError(
            f"train.mix: source {name!r} has taught nothing yet; known are {', '.join(sorted(known))}. "
            "Bring it in by `bb3x ingest`, or leave it out."
        )


def _nothing_of_its_own(own: pa.Table, named: set[str]) -> UserError:
    taken = sorted(set(own["source"].to_pylist()) & named - {HUMAN})
    cure = f"take {', '.join(taken)} out of train.mix" if taken else "collect more talk, or empty train.mix"
    return UserError(
        "train.mix: its weights count turns for each labelled turn of the round's own, and beside "
        f"{', '.join(sorted(named))} the round has none: {cure}."
    )


def _pool(
    name: str, own: pa.Table, earlier: pa.Table, pools: Mapping[str, Pool], wanted: int, given: set[str]
) -> pa.Table:
    if name in pools:
        return pools[name](wanted)
    if name == REPLAY:
        pool = earlier.filter(pc.not_equal(earlier["source"], HUMAN))
    else:
        both = pa.concat_tables([own, earlier])
        pool = both.filter(pc.equal(both["source"], name))
    # A conversation that went on is in two rounds' sets, under one name.
    seen = set(given)
    fresh = []
    for row_id in pool["row_id"].to_pylist():
        fresh.append(row_id not in seen)
        seen.add(row_id)
    return pool.filter(pa.array(fresh, pa.bool_()))


def _draw(pool: pa.Table, wanted: int, rng: random.Random) -> pa.Table:
    """Rows of `pool` in an order by chance, until they hold `wanted` labelled turns."""
    order = np.array(rng.sample(range(pool.num_rows), pool.num_rows), np.int64)
    turns = np.cumsum(turns_of_rows(pool)[order])
    taken = order[: 0 if wanted <= 0 else int(np.searchsorted(turns, wanted)) + 1]
    return pool.take(pa.array(np.sort(taken)))


def by_source(table: pa.Table) -> dict[str, pa.Table]:
    sources = sorted(set(table["source"].to_pylist()))
    return {source: table.filter(pc.equal(table["source"], source)) for source in sources}


def shares(parts: Mapping[str, pa.Table]) -> dict[str, dict[str, float]]:
    """Of each source: rows, labelled turns, labelled tokens, share of all labelled turns."""
    turns = {name: labelled_turns(table) for name, table in parts.items()}
    whole = max(1, sum(turns.values()))
    return {
        name: {
            "rows": table.num_rows,
            "turns": turns[name],
            "tokens": sum(int(_marked(table[side])[0].sum()) for side in ("imitate", "avoid")),
            "share": turns[name] / whole,
        }
        for name, table in parts.items()
    }


def labelled_turns(table: pa.Table, masks: Sequence[str] = ("imitate", "avoid")) -> int:
    """How many turns of `table` are labelled, under either mask or under the one that is asked for."""
    return int(turns_of_rows(table, masks).sum())


def turns_of_rows(table: pa.Table, masks: Sequence[str] = ("imitate", "avoid")) -> np.ndarray:
    """[N] runs of marked tokens: a turn is one, as the template stands between two."""
    return sum((_runs(*_marked(table[name])) for name in masks), np.zeros(table.num_rows, np.int64))


def _marked(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(all marks of a column of masks, one after the other; [N + 1] where each row's begin and end)."""
    marks = pc.list_flatten(column).to_numpy()
    return marks, np.concatenate([[0], np.cumsum(pc.list_value_length(column).to_numpy())]).astype(np.int64)


def _runs(marks: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    begins = marks.copy()
    begins[1:] &= ~marks[:-1]
    first = bounds[:-1][np.diff(bounds) > 0]
    begins[first] = marks[first]  # a run ends with its row
    until = np.concatenate([[0], np.cumsum(begins)])
    return np.diff(until[bounds])


def describe(given: Mapping[str, Mapping[str, Any]]) -> str:
    """`human 62 %, round 38 %`: what a person reads."""
    largest_first = sorted(given.items(), key=lambda item: -item[1]["share"])
    return ", ".join(f"{name} {100 * about['share']:.0f} %" for name, about in largest_first)
