"""The log as evidence of a canary: replies of both versions since it began, thumbs, scores, trust."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bb3x_ray.classify.pair_model import load_pair_model
from bb3x_ray.config import Config
from bb3x_ray.data.collect import NotTaken, Range, collect
from bb3x_ray.data.slices import conversations_of
from bb3x_ray.data.table import head_of, open_table, scan
from bb3x_ray.registry import Registry
from bb3x_ray.reward.score_rows import RowScorer
from bb3x_ray.reward.trust.history import TrustHistory
from bb3x_ray.reward.trust.report import HISTORY, PEOPLE
from bb3x_ray.reward.turns import turns_table
from bb3x_ray.rounds.ledger import Ledger
from bb3x_ray.rounds.safety import KIND as SAFETY
from bb3x_ray.rounds.safety import safety_folder
from bb3x_ray.schemas.event import FAILED_TURN_ID
from bb3x_ray.serve.canary.evidence import Evidence, Reply, Score, Standing, Thumb, replies_of
from bb3x_ray.storage import Storage, write_atomic

SCORES = "scores.parquet"
# No text and no person: what a reply was given, so that the next look need not ask again.
_SCORES_SCHEMA = pa.schema(
    [
        ("message_id", pa.string()),
        ("good", pa.float64()),
        ("unsafe", pa.bool_()),
        ("unsafe_heard", pa.float64()),
    ]
)
_REPLY = ["message_id", "person", "author_kind", "author_name", "details"]
_THUMB = ["commit_seq", "at", "message_id", "person", "rating", "reasons"]
_PRIOR = 2.0  # thumbs' worth of the mean person's share of thumbs up that everybody begins with


@dataclass(frozen=True, slots=True)
class Began:
    """after   events committed after this `commit_seq` count
    round   whose score step says whom to trust; None: nobody is known"""

    candidate: str
    champion: str
    after: int
    round: int | None
    at: float


class LogEvidence:
    """Reads the log anew each time; only scores are kept, in the canary's folder."""

    def __init__(self, storage: Storage, config: Config, began: Began) -> None:
        self._storage, self._config, self._began = storage, config, began
        self.candidate = began.candidate
        self._scorer: tuple[RowScorer, float | None] | None = None

    def gather(self) -> Evidence:
        began, table = self._began, open_table(self._storage)
        arms = (began.champion, began.candidate)
        newcomers = self._config.canary.newcomers
        if table is None:
            return Evidence(*arms, newcomers=newcomers)
        new = ds.field("commit_seq") > began.after
        of_bots = (ds.field("kind") == "message") & ds.field("author_kind").isin(["model", "canned"])
        failed = (ds.field("kind") == "feedback") & pc.starts_with(ds.field("event_id"), FAILED_TURN_ID)
        replies = replies_of(scan(self._storage, table, _REPLY, new & (of_bots | failed)).to_pylist(), *arms)
        feedback = scan(self._storage, table, _THUMB, new & (ds.field("kind") == "feedback"))
        return Evidence(
            *arms,
            replies,
            standing_thumbs(feedback),
            self._scores(replies, head_of(table)),
            self._standing(),
            newcomers,
        )

    def _standing(self) -> Mapping[str, Standing]:
        """As the round that made the candidate found it: before anybody had talked to it."""
        if self._began.round is None:
            return {}
        folder = Ledger(self._storage).folder(f"rounds/{self._began.round:04d}", "score")
        if not (folder / PEOPLE).is_file():
            return {}
        people = pq.read_table(
            folder / PEOPLE, columns=["person", "trust", "distrusted", "group"]
        ).to_pylist()
        up = _up_before(TrustHistory.load(folder / HISTORY)) if (folder / HISTORY).is_file() else {}
        groups = [row["group"] for row in people]
        # Accounts of a group count as one person together.
        size = {group: groups.count(group) for group in set(groups) if group is not None}
        return {
            row["person"]: Standing(
                0.0 if row["distrusted"] else row["trust"] / size.get(row["group"], 1),
                up.get(row["person"], up.get("", 0.5)),
            )
            for row in people
        }

    # Scores

    def _scores(self, replies: tuple[Reply, ...], upto: int) -> Mapping[str, Score]:
        path = self._storage.path("canaries", self._began.candidate, SCORES)
        kept = pq.read_table(path) if path.is_file() else _SCORES_SCHEMA.empty_table()
        missing = {r.message_id for r in replies if not r.failed} - set(kept["message_id"].to_pylist())
        made = list(self._score(missing, upto)) if missing else []
        if made:
            kept = pa.concat_tables([kept, *made])
            written = io.BytesIO()
            pq.write_table(kept, written)
            write_atomic(path, written.getvalue())
        return {
            row["message_id"]: Score(row["good"], row["unsafe"], row["unsafe_heard"])
            for row in kept.to_pylist()
        }

    def _score(self, missing: set[str], upto: int) -> Iterator[pa.Table]:
        """Tables of _SCORES_SCHEMA about those of the replies whose text may be looked at."""
        if self._scorer is None:
            self._scorer = self._load_scorer()
        if self._scorer is None:
            return
        scorer, unsafe_above = self._scorer
        wanted = pa.array(sorted(missing), pa.string())
        for table in collect(self._storage, Range(self._began.after, upto), NotTaken()):
            turns = turns_table(conversations_of(table), ())
            turns = turns.filter(pc.is_in(turns["message_id"], wanted))
            if not len(turns):
                continue
            scored = scorer(turns)
            scored = scored.filter(pc.equal(scored["error"], ""))
            unsafe = (
                pa.nulls(len(scored), pa.bool_())
                if unsafe_above is None
                else pc.greater(scored["unsafe"], unsafe_above)
            )
            # `fresh`: what the reply is worth without what the person said next, or pressed
            yield pa.table(
                [scored["message_id"], scored["fresh"], unsafe, scored["unsafe_heard"]], schema=_SCORES_SCHEMA
            )

    def _load_scorer(self) -> tuple[RowScorer, float | None] | None:
        """By the reward model that taught the candidate; None where there is none."""
        rewards, safety = Registry(self._storage, "rewards"), Registry(self._storage, SAFETY)
        version = Registry(self._storage, "models").lineage(self._began.candidate).get("reward")
        if version is None or not rewards.is_published(version):
            return None
        filters = safety.versions()
        filter_ = safety_folder(self._storage, filters[-1]).load() if filters else None
        model = load_pair_model(rewards.folder(version))
        scorer = RowScorer(model, version, filter_, self._config.reward.max_chars)
        return scorer, filter_.reply_threshold if filter_ else None


def standing_thumbs(feedback: pa.Table) -> tuple[Thumb, ...]:
    """The latest of each person about each message, unless it was taken back; its place is that of the first:
    who refines a thumb does not move it."""
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    first: dict[tuple[str, str], int] = {}
    for row in feedback.sort_by([("at", "ascending"), ("commit_seq", "ascending")]).to_pylist():
        key = row["message_id"], row["person"]
        first[key] = min(first.get(key, row["commit_seq"]), row["commit_seq"])
        latest[key] = row
    return tuple(
        Thumb(*key, row["rating"] == 1, first[key], tuple(row["reasons"] or ()))
        for key, row in latest.items()
        if row["rating"] is not None
    )


def _up_before(history: TrustHistory) -> dict[str, float]:
    """person -> share of thumbs up before, drawn to that of all people, which is under ""."""
    up = history.counts[:, history.counts.shape[1] // 2 :].sum(1)
    given = history.counts.sum(1)
    mean = float(up.sum() / given.sum()) if given.sum() else 0.5
    shares = np.asarray((up + _PRIOR * mean) / (given + _PRIOR)).tolist()
    return {"": mean, **dict(zip(history.people, shares, strict=True))}
