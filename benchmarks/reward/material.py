"""What is learned from: thumbs of recorded files, read by the product's own readers."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bb3x_ray.classify.pairs import Pair
from bb3x_ray.data import slices, table
from bb3x_ray.data.ingest import ingest
from bb3x_ray.reward.evidence import signals_of
from bb3x_ray.reward.signals import Signal
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage


@dataclass(frozen=True, slots=True)
class Material:
    """
    pairs    with hindsight where the files have it
    groups   whose each pair is: a person, and for hh-rlhf a pair of replies; nobody is on both sides of a
    split reasons  of each thumb, mostly none
    """

    name: str
    pairs: list[Pair]
    groups: list[str]
    reasons: list[tuple[str, ...]]

    @property
    def labels(self) -> np.ndarray:
        return np.array([pair.label for pair in self.pairs])

    @property
    def has_hindsight(self) -> bool:
        return any(pair.after is not None for pair in self.pairs)


def convai2(folder: Path) -> Material:
    """Thumbs of ConvAI2's volunteers: all files of `folder`; those without thumbs add nothing."""
    signals = _signals(folder / "convai2", "convai2", "*.json")
    pairs = [Pair(s.context, s.reply, float(s.label), after=s.after) for s in signals]
    return Material("convai2", pairs, [s.person for s in signals], [s.reasons for s in signals])


def hh(folder: Path) -> Material:
    """Chosen and rejected last replies of hh-rlhf, side by side; nobody said anything after them."""
    signals = _signals(folder / "hh-rlhf", "hh-rlhf", "*.jsonl*")
    by_pair: dict[str, list[Signal]] = {}
    for signal in signals:
        by_pair.setdefault(signal.conversation_id.rpartition("-")[0], []).append(signal)
    both = [
        sorted(two, key=lambda s: -s.label) for two in by_pair.values() if {s.label for s in two} == {0, 1}
    ]
    chosen = [signal for two in both for signal in two]
    pairs = [Pair(s.context, s.reply, float(s.label)) for s in chosen]
    return Material("hh-rlhf", pairs, [s.person for s in chosen], [()] * len(chosen))


def _signals(folder: Path, format_: str, pattern: str) -> list[Signal]:
    """Sorted by message, so that they do not depend on how a table was written."""
    files = sorted(folder.glob(pattern))
    if not files:
        raise UserError(
            f"no {pattern} in {folder}: put the files there, or set BB3X_TEST_DATA to their folder."
        )
    with tempfile.TemporaryDirectory() as aside:
        storage = Storage(aside)
        for file in files:
            ingest(storage, file, format_)
        slices.pin(storage, "rounds/0001/collect", 0, table.head(storage))
        talks = slices.open_slice(storage, "rounds/0001/collect").conversations()
        return sorted(signals_of(talks), key=lambda s: s.message_id)
