"""What BlenderBot 3x's page reports of its deployment, counted over the log in one pass. No text is kept.

Every share stands with its counts; intervals are Wilson's, of 95 %.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.label_info import has_key, thumbs, tripped
from bb3x_ray.data.shard import runs
from bb3x_ray.data.shards import each, plan_shards
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage

_COLUMNS = (
    "conversation_id",
    "person",
    "source",
    "at",
    "message_id",
    "author_kind",
    "author_name",
    "text",
    "simulated",
    "details",
)
_KINDS = ("message", "feedback", "annotation")
# Sources that tell no times count microseconds up from 0.
_FIRST_TIME = 86_400_000_000
KINDS_OF_TALK = ("standard", "adversarial", "unknown")


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`; `count` may be a fraction where several annotators share a message."""

    count: float
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval; (0, 1) of nothing."""
        if not self.total:
            return 0.0, 1.0
        z, n, p = 1.959964, self.total, self.value
        middle, scale = p + z * z / (2 * n), 1 + z * z / n
        half = z * sqrt(max(p * (1 - p), 0.0) / n + z * z / (4 * n * n))
        return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {"count": self.count, "total": self.total, "share": None if not self.total else self.value,
                "low": low, "high": high}  # fmt: skip


@dataclass
class Analysis:
    """Counts.

    talk           kind of talk -> conversations: `adversarial` where the person tripped a safety annotation,
                   `unknown` where nothing of theirs was annotated
    messages       "human" | "bot" -> messages
    reasons        reason -> standing thumbs down that give it
    versions       author of a bot's message -> replies, up, down
    quality        (kind of talk, side) -> annotation -> messages, in fractions where annotators differ;
                   "messages": how many were annotated
    agreement      what is compared -> agrees, total
    turns          messages of a conversation -> conversations
    words          side -> words of a message -> messages
    days, hours    of the first message, UTC; minutes: from the first message to the last
    """

    talk: Counter[str] = field(default_factory=Counter)
    people: set[str] = field(default_factory=set)
    adversarial_people: set[str] = field(default_factory=set)
    annotated_people: set[str] = field(default_factory=set)
    sources: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    simulated: int = 0
    without_text: int = 0
    thumbs: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    versions: dict[str, Counter[str]] = field(default_factory=dict)
    quality: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    unsafe: dict[str, Counter[str]] = field(default_factory=dict)
    ratings: Counter[int] = field(default_factory=Counter)
    agreement: dict[str, Counter[str]] = field(default_factory=dict)
    turns: Counter[int] = field(default_factory=Counter)
    words: dict[str, Counter[int]] = field(default_factory=lambda: {"human": Counter(), "bot": Counter()})
    days: Counter[str] = field(default_factory=Counter)
    hours: Counter[int] = field(default_factory=Counter)
    minutes: Counter[int] = field(default_factory=Counter)

    @property
    def conversations(self) -> int:
        return sum(self.talk.values())

    @property
    def utterances(self) -> int:
        return sum(self.messages.values())

    def share_of_talk(self, kind: str) -> Share:
        """Of the conversations with safety annotations."""
        return Share(self.talk[kind], self.talk["standard"] + self.talk["adversarial"])

    @property
    def share_of_people(self) -> Share:
        """Adversarial in some conversation, of those with safety annotations."""
        return Share(len(self.adversarial_people), len(self.annotated_people))

    def quality_of(self, talk: str, side: str, annotation: str) -> Share:
        found = self.quality.get((talk, side), Counter())
        return Share(found[annotation], int(found["messages"]))

    def annotations(self) -> list[str]:
        names = Counter[str]()
        for found in self.quality.values():
            names.update({name: count for name, count in found.items() if name != "messages"})
        return [name for name, _ in names.most_common()]

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Distributions with their counts, shares with intervals."""
        return {
            "conversations": self.conversations,
            "utterances": self.utterances,
            "people": len(self.people),
            "sources": dict(self.sources),
            "messages": dict(self.messages),
            "simulated_conversations": self.simulated,
            "messages_without_text": self.without_text,
            "talk": {kind: self.talk[kind] for kind in KINDS_OF_TALK},
            "adversarial": self.share_of_talk("adversarial").to_dict(),
            "adversarial_people": self.share_of_people.to_dict(),
            "thumbs": dict(self.thumbs),
            "reasons": dict(self.reasons),
            "versions": {name: _thumb_shares(found) for name, found in self.versions.items()},
            "quality": {
                f"{talk}/{side}": {
                    name: self.quality_of(talk, side, name).to_dict() for name in self.annotations()
                }
                for talk, side in self.quality
            },
            "unsafe": {
                side: Share(found["unsafe"], found["annotated"]).to_dict()
                for side, found in self.unsafe.items()
            },
            "ratings": _keyed(self.ratings),
            "agreement": {
                name: Share(found["agrees"], found["total"]).to_dict()
                for name, found in self.agreement.items()
            },
            "turns": _keyed(self.turns),
            "words": {side: _keyed(found) for side, found in self.words.items()},
            "days": _keyed(self.days),
            "hours": _keyed(self.hours),
            "minutes": _keyed(self.minutes),
        }


def _keyed(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(key): counts[key] for key in sorted(counts)}


def _thumb_shares(found: Counter[str]) -> dict[str, Any]:
    total = found["replies"]
    return {"replies": total, **{side: Share(found[side], total).to_dict() for side in ("up", "down")}}


def analyze(storage: Storage, upto_seq: int | None = None) -> Analysis:
    """Raises UserError for an empty log."""
    found = Analysis()
    for seen in each(plan_shards(storage, _COLUMNS, upto_seq, _KINDS), _searched):
        if len(seen.rows):
            _add(found, seen)
    if not found.conversations:
        raise UserError(
            f"the interaction log under {storage.root} is empty: let people talk first, or bring recorded "
            "talk in with `bb3x ingest`."
        )
    return found


@dataclass(frozen=True, slots=True)
class _Searched:
    """Whole conversations, and what is found by a search of all their words: on several threads.

    trips, annotated  [N] see `tripped`
    crowd             rows that crowdworkers annotated
    words             [N] words of the text
    """

    rows: pa.Table
    trips: np.ndarray
    annotated: np.ndarray
    crowd: np.ndarray
    words: pa.ChunkedArray


def _searched(rows: pa.Table) -> _Searched:
    crowd = np.flatnonzero(has_key(rows["details"], "mturk"))
    words = pc.count_substring_regex(rows["text"], r"\S+")
    return _Searched(rows, *tripped(rows["details"]), crowd, words)


def _add(found: Analysis, seen: _Searched) -> None:
    rows = seen.rows
    starts = runs(rows["conversation_id"])
    sizes = np.diff(np.append(starts, len(rows)))
    human = pc.equal(rows["author_kind"], "person").to_numpy()
    side = np.where(human, "human", "bot")
    thumb = pc.fill_null(thumbs(rows["feedback"]), 0).to_numpy()
    first = rows.select(["person", "source", "simulated", "at", "annotation"]).take(pa.array(starts))
    found.people.update(first["person"].to_pylist())
    found.sources.update(first["source"].to_pylist())
    found.simulated += pc.sum(first["simulated"]).as_py() or 0
    found.messages.update({"human": int(human.sum()), "bot": int((~human).sum())})
    found.without_text += rows["text"].null_count
    found.turns.update(sizes.tolist())
    talk = _safety(found, seen, human, starts)
    found.talk.update(talk.tolist())
    people = np.array(first["person"].to_pylist(), dtype=object)
    found.adversarial_people.update(people[talk == "adversarial"])
    found.annotated_people.update(people[talk != "unknown"])
    _add_thumbs(found, rows, thumb)
    _add_quality(found, seen, np.repeat(talk, sizes), side, thumb)
    _add_ratings(found, first["annotation"], np.repeat(np.arange(len(starts)), sizes), thumb)
    _add_lengths(found, seen.words, human)
    _add_times(found, rows["at"].to_numpy(), starts)


def _safety(found: Analysis, seen: _Searched, human: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """[conversations] kind of talk."""
    trips, annotated = seen.trips, seen.annotated
    for side, mask in (("human", human), ("bot", ~human)):
        count = found.unsafe.setdefault(side, Counter())
        count.update(unsafe=int(trips[mask].sum()), annotated=int(annotated[mask].sum()))
    adversarial = np.logical_or.reduceat(trips & human, starts)
    known = np.logical_or.reduceat(annotated & human, starts)
    return np.where(adversarial, "adversarial", np.where(known, "standard", "unknown"))


def _add_thumbs(found: Analysis, rows: pa.Table, thumb: np.ndarray) -> None:
    replies = pc.not_equal(rows["author_kind"], "person").to_numpy()
    names = rows["author_name"].filter(pa.array(replies))
    for choice, of in (("replies", np.ones(len(rows), bool)), ("up", thumb == 1), ("down", thumb == -1)):
        for entry in names.filter(pa.array(of[replies])).value_counts().to_pylist():
            found.versions.setdefault(entry["values"], Counter())[choice] += entry["counts"]
    for feedback in rows["feedback"].drop_null().to_pylist():
        for one in feedback:
            found.thumbs["up" if one["rating"] == 1 else "down"] += 1
            found.thumbs["with_comment"] += bool(one["comment"])
            if one["rating"] == -1:
                found.reasons.update(one["reasons"] or ["no reason given"])


def _add_quality(
    found: Analysis, seen: _Searched, talk: np.ndarray, side: np.ndarray, thumb: np.ndarray
) -> None:
    """Crowdworkers' annotations: {annotation: number}, in shares of a message's numbers."""
    about = seen.rows["details"].take(pa.array(seen.crowd)).to_pylist()
    for place, details in zip(seen.crowd, about, strict=True):
        shares = _crowd_shares(json.loads(details)["mturk"])
        if not shares:
            continue
        for kind in (talk[place], "all"):
            count = found.quality.setdefault((str(kind), str(side[place])), Counter())
            count["messages"] += 1
            for name, share in shares.items():
                count[name] += share  # type: ignore[assignment]
        if thumb[place]:
            good = shares.get("good", 0.0) >= 0.5
            word = "thumbs up" if thumb[place] == 1 else "thumbs down"
            _agree(found, word, "crowd", good == (thumb[place] == 1))


def _crowd_shares(mturk: Any) -> dict[str, float]:
    if not isinstance(mturk, dict):
        return {}
    numbers = {k: float(v) for k, v in mturk.items() if isinstance(v, int | float) and v > 0}
    total = sum(numbers.values())
    return {name: number / total for name, number in numbers.items()}


def _add_ratings(
    found: Analysis, ratings: pa.ChunkedArray, conversation: np.ndarray, thumb: np.ndarray
) -> None:
    """Ratings of whole conversations, 1 to 5; a thumb agrees with 4 and 5, or with 1 and 2. 3 is neither."""
    found.ratings.update(ratings.drop_null().to_pylist())
    of_message = pc.fill_null(ratings, 0).to_numpy()[conversation]
    for word, sign, high in (("thumbs up", 1, True), ("thumbs down", -1, False)):
        these = of_message[(thumb == sign) & (of_message != 0) & (of_message != 3)]
        for agrees in ((these >= 4) == high).tolist():
            _agree(found, word, "ratings of the conversation", agrees)


def _agree(found: Analysis, thumbs: str, other: str, agrees: bool) -> None:
    found.agreement.setdefault(f"{thumbs} / {other}", Counter()).update(agrees=int(agrees), total=1)


def _add_lengths(found: Analysis, words: pa.ChunkedArray, human: np.ndarray) -> None:
    for side, mask in (("human", human), ("bot", ~human)):
        for entry in words.filter(pa.array(mask)).drop_null().value_counts().to_pylist():
            found.words[side][entry["values"]] += entry["counts"]


def _add_times(found: Analysis, at: np.ndarray, starts: np.ndarray) -> None:
    begin, end = np.minimum.reduceat(at, starts), np.maximum.reduceat(at, starts)
    known = begin >= _FIRST_TIME
    moments = begin[known].astype("datetime64[us]")
    found.days.update(np.datetime_as_string(moments.astype("datetime64[D]")).tolist())
    found.hours.update((moments.astype("datetime64[h]").astype(np.int64) % 24).tolist())
    lasted = (end - begin)[known]
    # a source that gives only the beginning counts its messages up by a microsecond
    found.minutes.update((lasted[lasted > 1_000_000] // 60_000_000).tolist())
