"""What is known of a canary from the log: who answered, what people thought of it, how fast and how safe.

Everything here is ids and numbers; no text is needed.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bb3x_ray.schemas.event import FAILED_TURN
from bb3x_ray.serve.canary.compare import Answers

_NEUTRAL = 0.5
_PERCENTILES = (50, 95)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of one of the two versions, or a turn in which it gave none.

    latency_ms   None where nobody measured it
    failed       the model failed; something canned was said in its place, or nothing
    """

    message_id: str
    person: str
    version: str
    latency_ms: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Thumb:
    """The thumb that stands on a reply; `order` is its commit_seq, by which thumbs came."""

    message_id: str
    person: str
    up: bool
    order: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """Of one reply: what the reward model gives it; whether it is unsafe, and how unsafe the message is that
    it answers (None: nobody was asked)."""

    good: float
    unsafe: bool | None = None
    unsafe_heard: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What was known of a person before the canary began: trust 0 to 1, 0 for who is distrusted, and the
    share of their thumbs that were up.

    It is of before, because what somebody does on an arm must not decide how much it counts there.
    """

    trust: float
    up_before: float = _NEUTRAL


@dataclass(frozen=True, slots=True)
class Evidence:
    """newcomers   what a thumb counts of somebody who is in no `standing`: 0 to 1. Accounts cost nothing, so
    whoever wants a version rolled back makes some; above 0 they may."""

    champion: str
    candidate: str
    replies: tuple[Reply, ...] = ()
    thumbs: tuple[Thumb, ...] = ()
    scores: Mapping[str, Score] = field(default_factory=dict)
    standing: Mapping[str, Standing] = field(default_factory=dict)
    newcomers: float = 0.0

    def trust(self, person: str) -> float:
        known = self.standing.get(person)
        return self.newcomers if known is None else known.trust

    def thumb_answers(self) -> Answers:
        """Thumbs that count, in the order in which they came, for `sequential.look_through`."""
        version = {reply.message_id: reply.version for reply in self.replies}
        means = {arm: self._mean_score(arm) for arm in (self.champion, self.candidate)}
        rows = []
        for thumb in sorted(self.thumbs, key=lambda thumb: thumb.order):
            arm = version.get(thumb.message_id)
            if arm is not None and self.trust(thumb.person) > 0:
                before = self.standing.get(thumb.person)
                score = self.scores.get(thumb.message_id)
                above = 0.0 if score is None else score.good - means[arm]
                up_before = before.up_before if before else _NEUTRAL
                rows.append((thumb.person, arm, float(thumb.up), (up_before, above)))
        return self._answers(rows, {person: self.trust(person) for person, *_ in rows})

    def score_answers(self) -> Answers:
        """The reward model's scores of all replies, for `compare.Sums`."""
        return self._of_scores(lambda score: score.good)

    def unsafe_answers(self) -> Answers:
        """1 for each unsafe reply, 0 for each other, of those that somebody was asked about."""
        return self._of_scores(lambda score: None if score.unsafe is None else float(score.unsafe))

    def failure_answers(self) -> Answers:
        """1 for each turn that failed, 0 for each other."""
        rows = [(r.person, r.version, float(r.failed), ()) for r in self.replies if self._is_heard(r.person)]
        return self._answers(rows, {person: 1.0 for person, *_ in rows})

    def _is_heard(self, person: str) -> bool:
        """People who are distrusted may have been after just what their replies would show."""
        known = self.standing.get(person)
        return known is None or known.trust > 0

    def _of_scores(self, value_of: Callable[[Score], float | None]) -> Answers:
        """How unsafe the messages were that people wrote is controlled for."""
        rows = []
        for reply in self.replies:
            score = self.scores.get(reply.message_id)
            value = None if score is None else value_of(score)
            if score is not None and value is not None and self._is_heard(reply.person):
                rows.append((reply.person, reply.version, value, (score.unsafe_heard or 0.0,)))
        return self._answers(rows, {person: 1.0 for person, *_ in rows})

    def _answers(
        self, rows: Sequence[tuple[str, str, float, tuple[float, ...]]], weights: Mapping[str, float]
    ) -> Answers:
        """One run. A person who talked to both versions, because the share was changed, is two units."""
        units = {unit: number for number, unit in enumerate(dict.fromkeys(row[:2] for row in rows))}
        width = len(rows[0][3]) if rows else 0
        return Answers(
            np.array([[units[row[:2]] for row in rows]], np.int64).reshape(1, -1),
            np.array([[row[2] for row in rows]], np.float64).reshape(1, -1),
            np.array([row[3] for row in rows], np.float64).reshape(1, len(rows), width),
            np.array([[weights[person] for person, _ in units]], np.float64).reshape(1, -1),
            np.array([[arm == self.candidate for _, arm in units]], bool).reshape(1, -1),
        )

    def _mean_score(self, version: str) -> float:
        found = [
            self.scores[r.message_id].good
            for r in self.replies
            if r.version == version and r.message_id in self.scores
        ]
        return float(np.mean(found)) if found else _NEUTRAL

    def counts(self, version: str) -> dict[str, float]:
        """What there is of one version, as floats by name; what nobody measured is left out."""
        replies = [reply for reply in self.replies if reply.version == version]
        ids = {reply.message_id for reply in replies}
        thumbs = [thumb for thumb in self.thumbs if thumb.message_id in ids]
        counted = [thumb for thumb in thumbs if self.trust(thumb.person) > 0]
        reasons = Counter(reason for thumb in thumbs for reason in thumb.reasons)
        scores = [self.scores[message_id] for message_id in ids if message_id in self.scores]
        judged = [score.unsafe for score in scores if score.unsafe is not None]
        latencies = [reply.latency_ms for reply in replies if reply.latency_ms is not None]
        found = {
            "replies": float(len(replies)),
            "people": float(len({reply.person for reply in replies})),
            "failed": float(sum(reply.failed for reply in replies)),
            "thumbs_up": float(sum(thumb.up for thumb in thumbs)),
            "thumbs_down": float(sum(not thumb.up for thumb in thumbs)),
            "thumbs_that_count": float(len(counted)),
            "people_who_count": float(len({thumb.person for thumb in counted})),
            "scored": float(len(scores)),
            **{f"reason_{reason}": float(count) for reason, count in sorted(reasons.items())},
        }
        if counted:
            found["up_share_that_counts"] = float(np.mean([thumb.up for thumb in counted]))
        if scores:
            found["score"] = float(np.mean([score.good for score in scores]))
        if judged:
            found["unsafe_share"] = float(np.mean(judged))
        for percentile in _PERCENTILES if latencies else ():
            found[f"latency_ms_p{percentile}"] = float(np.percentile(latencies, percentile))
        return found


def replies_of(rows: Iterable[Mapping[str, Any]], champion: str, candidate: str) -> tuple[Reply, ...]:
    """Replies of the two arms, and turns that failed, among rows of the log (schemas.event.EVENT_SCHEMA).

    Only what `details`, a JSON object, call an arm's counts, and only where that arm's version wrote it: who
    names a version gets its replies, and must have no more of a say on it than others. A canned reply, or
    none, belongs to the version that `details` say it stands in for, under `model_version`.
    """
    arms, found = {"champion": champion, "candidate": candidate}, []
    for row in rows:
        details = _details(row.get("details"))
        about = _dict(details.get(FAILED_TURN)) or details
        by_model = row["author_kind"] == "model"
        version = row["author_name"] if by_model else about.get("model_version")
        told = by_model or row["author_kind"] == "canned" or FAILED_TURN in details
        if told and version is not None and version == arms.get(str(about.get("arm"))):
            found.append(
                Reply(
                    row["message_id"],
                    row["person"],
                    version,
                    _number(about.get("latency_ms")),
                    bool(about.get("failed", False)),
                )
            )
    return tuple(found)


def _number(value: object) -> float | None:
    """None for what is no number, negative, or no time that a reply can take."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        return None
    return float(value)


def _details(text: Any) -> dict[str, Any]:
    if not isinstance(text, str):
        return {}
    try:
        details = json.loads(text)
    except ValueError:
        return {}  # what a reply was like beside its words is never a reason to stop watching
    return _dict(details)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
