"""Which replies people should annotate: a sample in strata, of which each gets as many as the others.

A stratum is what the reward model scored (below, between or above its thresholds), what the thumb says of
that (none, agrees, disagrees), and whether the person was adversarial. Drawn evenly, a sample would hardly
hold a thumb; so each reply carries how many like it there are, as a weight of mean 1.
"""

import hashlib
import heapq
import hmac
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bb3x_ray.classify.words import unsafe_words
from bb3x_ray.data.annotation_sheet import COLUMNS, Item, to_context, write_sheet
from bb3x_ray.data.consented import consented
from bb3x_ray.data.label_info import thumbs, tripped
from bb3x_ray.data.shard import in_one, runs
from bb3x_ray.data.shards import shards
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage

# (text, the pseudonym of the conversation's person) -> the text that may leave the log.
Clean = Callable[[str, str], str]

_READ = ["conversation_id", "person", "consent_basis", "message_id", "author_kind", "text", "details"]
_KINDS = ("message", "feedback", "annotation", "consent")
_CONTEXT_TURNS, _CONTEXT_CHARS = 12, 3000
_SCORES = "rounds/*/score/turns.parquet"


@dataclass(frozen=True, slots=True)
class Stratum:
    """score: `low`, `middle`, `high`, or `unscored`; thumb: `none`, `agrees`, `disagrees`, or `up`, `down` on
    a reply that has no score."""

    score: str
    thumb: str
    adversarial: bool

    def __str__(self) -> str:
        return f"score {self.score}, thumb {self.thumb}, {'adversarial' if self.adversarial else 'standard'}"


@dataclass(slots=True)
class Sample:
    """`drawn` of `there` by stratum; `left_out` counts conversations (or, as `annotated`, replies)."""

    items: list[Item]
    there: dict[Stratum, int]
    drawn: dict[Stratum, int]
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores by message. `low`, `high`: the thresholds between the bands."""

    ids: pa.Array
    good: np.ndarray
    low: float
    high: float

    def of(self, message_ids: pa.ChunkedArray) -> np.ndarray:
        """[N] scores, NaN where there is none."""
        place = pc.index_in(in_one(message_ids), self.ids)
        known = pc.is_valid(place).to_numpy(zero_copy_only=False)
        found = np.full(len(known), np.nan)
        found[known] = self.good[place.drop_null().to_numpy()]
        return found


def latest_scores(storage: Storage, low: float, high: float) -> Scores:
    """Of each reply that of the latest round that scored it. Rows with an error are no scores."""
    schema = pa.schema([("message_id", pa.string()), ("good", pa.float64())])
    # The latest first: of an id that is there twice, the first is found.
    found = [_scores_of(path) for path in sorted(storage.root.glob(_SCORES), reverse=True)]
    turns = pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in found)])
    return Scores(in_one(turns["message_id"]), turns["good"].to_numpy(), low, high)


def _scores_of(path: Path) -> pa.Table:
    turns = pq.read_table(path)
    turns = turns.filter(pc.equal(turns["error"], ""))
    good = turns["good"]
    if "fresh" in turns.column_names:  # what the model alone thought: `good` was moved by the thumb
        good = pc.coalesce(turns["fresh"], good)
    return pa.table({"message_id": turns["message_id"], "good": good})


def draw(
    storage: Storage, key: bytes, count: int, seed: int, scores: Scores, clean: Clean | None = None
) -> Sample:
    """`count` replies that can be trained on, of consented conversations, none of them annotated yet.

    key     the storage root's secret: what hides the ids of messages, with which people rate their replies
    clean   applied to every text; None: as they are

    The same log, key and seed give the same sample. Memory: `count` replies with their contexts for each
    stratum. Raises UserError where there is nothing to annotate.
    """
    drawer = _Drawer(key, count, seed, scores)
    left_out: Counter[str] = Counter()
    for rows in shards(storage, _READ, None, _KINDS):
        drawer.look_at(consented(rows, left_out), left_out)
    sample = drawer.sample(clean)
    sample.left_out = Counter({reason: number for reason, number in left_out.items() if number})
    if not sample.items:
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(sample.left_out.items()))
        raise UserError(
            f"the log under {storage.root} holds no reply to annotate"
            f"{' (left out: ' + reasons + ')' if reasons else ''}: let people talk first, or bring recorded "
            "talk in with `bb3x ingest`."
        )
    return sample


def write_sample(path: Path, sample: Sample) -> None:
    """The sheet, with an empty column for the label. Raises UserError where there is one already."""
    if path.exists():
        raise UserError(f"{path} is there already: give another name, or remove it first.")
    rows = ([one.id, one.context, one.reply, "", f"{one.weight:.4g}"] for one in sample.items)
    write_sheet(path, COLUMNS, rows)


def hidden_id(key: bytes, message_id: str) -> str:
    """What a sheet calls a message: whoever holds a completion's own id could rate it. No spreadsheet takes
    it for a number."""
    return f"r-{hmac.new(key, f'annotate:{message_id}'.encode(), hashlib.sha256).hexdigest()[:24]}"


class _Drawer:
    """Keeps, of every stratum, the `count` replies with the lowest of random numbers that follow from seed
    and id: whatever the order in which they come."""

    def __init__(self, key: bytes, count: int, seed: int, scores: Scores) -> None:
        self._key, self._count, self._seed, self._scores = key, count, seed, scores
        self._there: Counter[Stratum] = Counter()
        self._kept: dict[Stratum, list[tuple[int, str, dict[str, Any]]]] = {}

    def look_at(self, rows: pa.Table, left_out: Counter[str]) -> None:
        """Rows of whole conversations."""
        if not len(rows):
            return
        kinds = rows["author_kind"]
        replies = pc.and_(pc.is_in(kinds, pa.array(["model", "external"])), pc.not_equal(rows["text"], ""))
        annotated = pc.and_(replies, pc.is_valid(rows["annotations"]))
        left_out["annotated"] += pc.sum(annotated).as_py() or 0
        places = pc.indices_nonzero(pc.and_not(replies, annotated)).to_numpy()
        starts = runs(rows["conversation_id"])
        talk = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(rows))))
        adversarial = _adversarial(rows, starts)[talk]
        scores, thumb = self._scores.of(rows["message_id"]), pc.fill_null(thumbs(rows["feedback"]), 0)
        signs, ids = thumb.to_numpy(), rows["message_id"].take(pa.array(places)).to_pylist()
        for place, message_id in zip(places.tolist(), ids, strict=True):
            stratum = self._stratum(scores[place], int(signs[place]), bool(adversarial[place]))
            self._there[stratum] += 1
            number = -int.from_bytes(hashlib.sha256(f"{self._seed}:{message_id}".encode()).digest()[:8])
            kept = self._kept.setdefault(stratum, [])
            if len(kept) < self._count or number > kept[0][0]:
                entry = (number, message_id, _seen(rows, int(starts[talk[place]]), place))
                heapq.heappush(kept, entry)
                if len(kept) > self._count:
                    heapq.heappop(kept)

    def _stratum(self, score: float, thumb: int, adversarial: bool) -> Stratum:
        if np.isnan(score):
            return Stratum("unscored", ("none", "up", "down")[thumb], adversarial)
        band = "low" if score <= self._scores.low else "high" if score >= self._scores.high else "middle"
        says = "none" if not thumb else "agrees" if (thumb > 0) == (score >= 0.5) else "disagrees"
        return Stratum(band, says, adversarial)

    def sample(self, clean: Clean | None) -> Sample:
        shares = _shared_out(self._count, {stratum: self._there[stratum] for stratum in self._kept})
        chosen = []
        for stratum, kept in self._kept.items():
            for number, message_id, seen in sorted(kept, reverse=True, key=lambda one: one[:2])[
                : shares[stratum]
            ]:
                chosen.append((number, message_id, seen, self._there[stratum] / shares[stratum]))
        chosen.sort(key=lambda one: one[:2])  # no stratum shows by its place
        mean = sum(weight for *_, weight in chosen) / max(len(chosen), 1)
        items = [
            Item(hidden_id(self._key, message_id), *_texts(seen, clean), weight / mean)
            for _, message_id, seen, weight in chosen
        ]
        return Sample(items, dict(self._there), {s: n for s, n in shares.items() if n})


def _shared_out(count: int, there: dict[Stratum, int]) -> dict[Stratum, int]:
    """Equal shares; what a stratum is too small for goes to the others. Small ones are served first."""
    shares, left = dict[Stratum, int](), count
    smallest = sorted(there, key=lambda stratum: (there[stratum], str(stratum)))
    for number, stratum in enumerate(smallest):
        shares[stratum] = min(there[stratum], -(-left // (len(smallest) - number)))
        left -= shares[stratum]
    return shares


def _adversarial(rows: pa.Table, starts: np.ndarray) -> np.ndarray:
    """[conversations] whether their person tripped a safety annotation, or said an unsafe word where there is
    none."""
    human = pc.equal(rows["author_kind"], "person").to_numpy()
    trips, annotated = tripped(rows["details"])
    bad = human & trips
    unknown = np.flatnonzero(human & ~annotated)
    texts = rows["text"].take(pa.array(unknown)).to_pylist()
    bad[unknown] = [bool(unsafe_words(text)) for text in texts]
    return np.logical_or.reduceat(bad, starts)


def _seen(rows: pa.Table, start: int, place: int) -> dict[str, Any]:
    """The reply and the turns before it, the last ones."""
    begin = max(start, place - _CONTEXT_TURNS)
    some = rows.slice(begin, place - begin + 1).select(["person", "author_kind", "text"]).to_pylist()
    turns = [(one["author_kind"] == "person", one["text"]) for one in some]
    return {"person": some[-1]["person"], "turns": turns[:-1], "reply": turns[-1][1], "cut": begin > start}


def _texts(seen: dict[str, Any], clean: Clean | None) -> tuple[str, str]:
    """(context, reply) as they may leave the log."""

    def cleaned(text: str) -> str:
        text = text.replace("\r\n", "\n").replace("\r", "\n")  # as spreadsheets write them anyhow
        return clean(text, seen["person"]) if clean else text

    return to_context(_shortened(seen["turns"], cleaned)), cleaned(seen["reply"])


def _shortened(turns: list[tuple[bool, str]], cleaned: Callable[[str], str]) -> Iterator[tuple[bool, str]]:
    """The last turns that fit, whole ones; of the very last one at least its end."""
    kept, room = list[tuple[bool, str]](), _CONTEXT_CHARS
    for is_person, text in reversed(turns):
        said = cleaned(text)
        if len(said) > room and kept:
            break
        kept.append((is_person, said if len(said) <= room else f"… {said[-room:]}"))
        room -= len(said)
    return reversed(kept)
