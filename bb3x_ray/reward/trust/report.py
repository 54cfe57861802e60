"""Why somebody is distrusted, from what a round stored of its trust. No text of anybody's is in it.

people.parquet    a row a person: trust, how often right, group
judged.parquet    a row a thumb that was judged in this round: message, thumb, what the models said
history.parquet   what the next round starts from (history.py); not there after a round that judged nobody
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust.estimate import Trust
from bb3x_ray.reward.trust.history import TrustHistory
from bb3x_ray.schemas.errors import UserError

PEOPLE, JUDGED, HISTORY = "people.parquet", "judged.parquet", "history.parquet"
_OFF = 0.5  # a thumb is against the models when they gave it a chance below this

PEOPLE_SCHEMA = pa.schema(
    [
        ("person", pa.string()),
        ("trust", pa.float64()),
        ("distrusted", pa.bool_()),
        ("thumbs", pa.int64()),
        ("right_about_good", pa.float64()),
        ("right_about_bad", pa.float64()),
        ("group", pa.int32()),  # null: in none
    ]
)
JUDGED_SCHEMA = pa.schema(
    [
        ("message_id", pa.string()),
        ("conversation_id", pa.string()),
        ("person", pa.string()),
        ("label", pa.int8()),
        ("said", pa.float64()),  # P(thumb up) by models that did not see the thumb
        ("weight", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class JudgedThumb:
    """A thumb (1 up, 0 down), and by how much it is off what the models say: 0 to 1."""

    message_id: str
    conversation_id: str
    label: int
    said: float

    @property
    def off(self) -> float:
        return abs(self.label - self.said)


@dataclass(frozen=True, slots=True)
class PersonReport:
    """`thumbs` counts those of earlier rounds, `judged` are those of this round, the most off first."""

    person: str
    trust: float
    distrusted: bool
    thumbs: int
    right: tuple[float, float]
    group: int | None
    judged: tuple[JudgedThumb, ...]

    @property
    def against(self) -> list[JudgedThumb]:
        return [thumb for thumb in self.judged if thumb.off > _OFF]

    @property
    def why(self) -> str:
        """One sentence about a person; it quotes nobody."""
        parts = []
        if self.group is not None:
            parts.append(f"does the same as the others of group {self.group}, who count as one")
        if self.judged:
            up = sum(thumb.label for thumb in self.judged)
            if up in (0, len(self.judged)) and len(self.judged) > 1:
                parts.append(f"pressed {'up' if up else 'down'} all {len(self.judged)} times")
            if self.against:
                mean = sum(thumb.off for thumb in self.against) / len(self.against)
                parts.append(
                    f"{len(self.against)} of {len(self.judged)} thumbs against the models, by {mean:.2f}"
                )
        elif self.thumbs:
            parts.append("as in earlier rounds")
        good, bad = self.right
        parts.append(f"likely right about {good:.0%} of good replies and {bad:.0%} of bad ones")
        return "; ".join(parts)


def save_trust(folder: Path, trust: Trust, signals: Sequence[Signal]) -> None:
    """What `load_report` and the next round need, into the folder of a score step.

    signals   those that `trust` was estimated from in this round
    """
    group = {person: number for number, group in enumerate(trust.groups, start=1) for person in group}
    people = [
        {
            "person": person,
            "trust": value,
            "distrusted": person in trust.distrusted,
            "thumbs": trust.thumbs[person],
            "right_about_good": trust.right.get(person, (value, value))[0],
            "right_about_bad": trust.right.get(person, (value, value))[1],
            "group": group.get(person),
        }
        for person, value in trust.trust.items()
    ]
    judged = [
        {
            "message_id": s.message_id,
            "conversation_id": s.conversation_id,
            "person": s.person,
            "label": s.label,
            "said": trust.said[s.message_id],
            "weight": trust.weight(s),
        }
        for s in signals
        if s.message_id in trust.said
    ]
    pq.write_table(pa.Table.from_pylist(people, schema=PEOPLE_SCHEMA), folder / PEOPLE)
    pq.write_table(pa.Table.from_pylist(judged, schema=JUDGED_SCHEMA), folder / JUDGED)
    if trust.history is not None:
        trust.history.save(folder / HISTORY)


def judged_thumbs(folder: Path) -> Iterator[tuple[str, int]]:
    """(message, thumb: 1 up, 0 down) that the round of this score step judged; none where it is not told."""
    if (folder / JUDGED).is_file():
        table = pq.read_table(folder / JUDGED, columns=["message_id", "label"])
        yield from zip(table["message_id"].to_pylist(), table["label"].to_pylist(), strict=True)


def load_history(folder: Path) -> TrustHistory:
    """What a round's score step remembers of people. Raises UserError where it has none."""
    return TrustHistory.load(folder / HISTORY)


def load_report(folder: Path) -> list[PersonReport]:
    """Everybody of a round's score step, the least trusted first. Raises UserError where none is stored."""
    if not (folder / PEOPLE).is_file() or not (folder / JUDGED).is_file():
        raise UserError(
            f"{folder} does not tell why people are trusted: it was made by an earlier version of bb3x-ray. "
            "Remove it, and the steps of its round that came after it, and run the round again."
        )
    thumbs: dict[str, list[JudgedThumb]] = {}
    for row in pq.read_table(folder / JUDGED).to_pylist():
        thumb = JudgedThumb(row["message_id"], row["conversation_id"], row["label"], row["said"])
        thumbs.setdefault(row["person"], []).append(thumb)
    found = [
        PersonReport(
            row["person"],
            row["trust"],
            row["distrusted"],
            row["thumbs"],
            (row["right_about_good"], row["right_about_bad"]),
            row["group"],
            tuple(sorted(thumbs.get(row["person"], []), key=lambda t: (-t.off, t.message_id))),
        )
        for row in pq.read_table(folder / PEOPLE).to_pylist()
    ]
    return sorted(found, key=lambda p: (not p.distrusted, p.trust, p.person))
