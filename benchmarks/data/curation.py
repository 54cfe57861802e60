"""Curation of a first round over all that people said: `python -m benchmarks.data.curation ROOT TOKENIZER`.

Everything that a round does to the data before it trains, with what the round itself calls:

    collect   shards joined with feedback and consent, de-identified, written as a slice
    trust     signals of all thumbs, folds, trust per person
    turns     every reply with its context, as the reward model reads it, in tasks
    labels    joined with the scores: imitate, avoid, or a reason
    rows      rendered by the chat template, tokenised, masked, written as a training set, in tasks

The goal is about what comes before rows; they are measured beside it.

Left out is what two networks say, because that is the models' time and not the data's: embeddings of rated
replies are made up of their words' hashes, and so are the scores.
"""

import hashlib
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GOAL_SECONDS, GOAL_BYTES = 300.0, 6 * 2**30
STAGES = ("collect", "trust", "turns", "labels", "rows")
_WIDTH = 384


def measure(folder: Path, root: Path, repeats: int) -> Any:
    """`repeats` times a first round's curation of the store at `root`; medians."""
    from benchmarks.data import arm, goals, results, stores

    tokenizer = _tokenizer()
    runs = []
    for _ in range(repeats):
        stores.tidy(root)
        runs.append(arm.run("benchmarks.data.curation", str(root), str(tokenizer)))
    said = runs[-1].said
    seconds = statistics.median(run.seconds for run in runs)
    peak = max(run.peak_bytes for run in runs)
    stages = {name: statistics.median(run.said[name] for run in runs) for name in STAGES}
    start = statistics.median(run.said["start_seconds"] for run in runs)
    joined = statistics.median(run.seconds - run.said["rows"] for run in runs)
    table = [
        goals.Goal("utterances, thumbs, people", f"{said['utterances']}, {said['thumbs']}, {said['people']}"),
        goals.Goal("replies to imitate, to avoid", f"{said['imitate']}, {said['avoid']}"),
        goals.Goal("training rows, million tokens", f"{said['rows_made']}, {said['tokens'] / 1e6:.1f}"),
        *(goals.Goal(f"{name}, s", f"{took:.1f}") for name, took in stages.items()),
        goals.Goal(
            f"feedback joined, trust, labels: all before rows, s (start of Ray and imports: {start:.1f})",
            f"{joined:.1f}",
            f"≤ {GOAL_SECONDS:g}",
            joined <= GOAL_SECONDS,
        ),
        goals.Goal("the same with training rows rendered and tokenised, s", f"{seconds:.1f}"),
        goals.Goal("peak memory of all processes, GiB", f"{peak / 2**30:.2f}", "≤ 6", peak <= GOAL_BYTES),
    ]
    return results.Found(
        table,
        utterances=said["utterances"],
        seconds=seconds,
        cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
        peak_bytes=peak,
        start_seconds=start,
        also={**stages, "before_rows": joined},
    )


def _tokenizer() -> Path:
    """The embedded model's folder, imported once."""
    from bb3x_ray.language.loading import import_model

    folder = Path(__file__).parents[2] / "build" / "bench-model"
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        import_model("smollm2", folder)
    return folder


class MadeUpEncoder:
    """Embeddings of the right size, made of a text's hash."""

    def __init__(self) -> None:
        drawn = np.random.default_rng(0).standard_normal((4096, _WIDTH)).astype(np.float32)
        self._drawn = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        places = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:2], "big") % 4096 for text in texts]
        return self._drawn[places]


@dataclass(frozen=True, slots=True)
class MadeUpScores:
    """Turns of a group as the reward model's actors make them, with a score out of their hash."""

    turns_of: Any

    def __call__(self, group: int) -> Any:
        import pyarrow as pa

        from bb3x_ray.schemas.learning import SCORED_SCHEMA

        turns = self.turns_of(group)
        scores = [hashlib.sha256(one.encode()).digest()[0] / 255 for one in turns["message_id"].to_pylist()]
        columns = {name: turns[name] for name in SCORED_SCHEMA.names if name in turns.column_names}
        unasked = pa.nulls(len(turns), pa.float64())
        columns |= {"good": pa.array(scores), "fresh": pa.array(scores), "error": pa.array([""] * len(turns))}
        columns |= {
            "unsafe": unasked,
            "unsafe_heard": unasked,
            "reward_version": pa.array(["-"] * len(turns)),
        }
        return pa.table([columns[name] for name in SCORED_SCHEMA.names], schema=SCORED_SCHEMA)


class _Stopwatch:
    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.took: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.took[name], self._last = now - self._last, now


def main(root: str, tokenizer: str) -> None:
    watch = _Stopwatch()
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bb3x_ray.config import CurateConfig, RewardConfig, TrustConfig
    from bb3x_ray.data import slices, table
    from bb3x_ray.data.curate import curate
    from bb3x_ray.data.deidentify import Deidentifier
    from bb3x_ray.data.late_words import feedback_upto
    from bb3x_ray.data.on_ray.in_order import on_all_cores
    from bb3x_ray.reward.evidence import signals_of
    from bb3x_ray.reward.fold_judge import EncoderFoldJudge
    from bb3x_ray.reward.trust import estimate_trust
    from bb3x_ray.rounds.turns_of_slice import TurnsOfSlice
    from bb3x_ray.schemas.learning import SCORED_SCHEMA, TRAINING_SCHEMA, Scored
    from bb3x_ray.storage import Storage
    from benchmarks.data.arm import report, start_ray

    start_ray()
    watch.lap("start_seconds")

    storage, name = Storage(root), "rounds/0001/collect"
    clean = Deidentifier(b"a key of the benchmark's own....")
    info = slices.pin(storage, name, 0, table.head(storage), clean=clean)
    slice_ = slices.open_slice(storage, name)
    watch.lap("collect")

    signals = signals_of(slice_.rated(feedback_upto(storage, info.upto_seq)))
    trust = estimate_trust(signals, EncoderFoldJudge(MadeUpEncoder(), signals), TrustConfig())  # type: ignore[arg-type]
    watch.lap("trust")

    scores = MadeUpScores(TurnsOfSlice(slice_, trust.distrusted, frozenset()))
    turns = pa.concat_tables([SCORED_SCHEMA.empty_table(), *on_all_cores(scores, slice_.groups)])
    watch.lap("turns")

    laps = {"labels": 0.0}
    config, reward = CurateConfig(human_rows=0), RewardConfig()
    rows_made = tokens = 0
    with pq.ParquetWriter(storage.path("rounds/0001/training_set.parquet"), TRAINING_SCHEMA) as file:

        def write(rows: Any) -> None:
            nonlocal rows_made, tokens
            rows_made, tokens = (
                rows_made + len(rows),
                tokens + len(rows["input_ids"].combine_chunks().flatten()),
            )
            file.write_table(rows)

        def each(rows_of: Any, groups: int) -> Any:
            watch.lap("labels")
            return on_all_cores(rows_of, groups)

        scored = Scored(turns, trust.trust, trust.distrusted, "v0001", {})
        above, below = reward.imitate_above, reward.avoid_below
        made = curate(slice_, scored, Path(tokenizer), [], config, "", above, below, 0, write, each=each)
    watch.lap("rows")
    laps |= watch.took
    utterances = sum(
        len(t["messages"].combine_chunks().flatten())
        for t in slice_.tables(["messages.list.element.message_id"])
    )
    report(
        sum(laps.values()),
        **laps,
        utterances=utterances,
        thumbs=len(signals),
        people=len(trust.trust),
        imitate=made.imitate,
        avoid=made.avoid,
        rows_made=rows_made,
        tokens=tokens,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
