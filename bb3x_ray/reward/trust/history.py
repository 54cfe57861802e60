"""What is remembered of a person from round to round: counts, from which trust is made anew.

A round stores it and the next one starts from it, so nobody's old thumbs are judged again. Each time that a
person gives thumbs, what they did before counts a little less (`trust.memory`): trust that was lost comes
back slowly, and only by what the person does. Who was found to do the same as others stays in that group.
Nothing in it is text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bb3x_ray.reward.trust.confusion import LEVELS
from bb3x_ray.schemas.errors import UserError

_WIDTH = 2 * len(LEVELS)
COUNTS_SCHEMA = pa.schema([("person", pa.string()), ("counts", pa.list_(pa.float32(), _WIDTH))])
HISTORY_SCHEMA = COUNTS_SCHEMA.append(pa.field("group", pa.int32()))  # a number from 1; null: in none


@dataclass(frozen=True, slots=True)
class TrustHistory:
    """people: sorted names [P]; counts: float32 [P, 2 · levels], as of confusion.observe; groups: of these
    people, nobody in two (see groups.py)."""

    people: tuple[str, ...]
    counts: np.ndarray
    groups: tuple[frozenset[str], ...] = ()

    @classmethod
    def empty(cls) -> "TrustHistory":
        return cls((), np.zeros((0, _WIDTH), np.float32))

    def of(self, people: Sequence[str]) -> np.ndarray:
        """float64 [len(people), 2 · levels]; zeros for who is new."""
        row = {person: i for i, person in enumerate(self.people)}
        counts = np.zeros((len(people), _WIDTH))
        known = [(i, row[person]) for i, person in enumerate(people) if person in row]
        if known:
            to, of = np.array(known).T
            counts[to] = self.counts[of]
        return counts

    def after(
        self, people: Sequence[str], counts: np.ndarray, memory: float, groups: Sequence[frozenset[str]] = ()
    ) -> "TrustHistory":
        """With what `people` [M] did now, counts [M, 2 · levels]; what they did before fades by `memory`.

        groups   all of them, those that were remembered among them
        """
        names = sorted({*self.people, *people})
        active = counts.sum(1) > 0
        now = TrustHistory(tuple(people), counts.astype(np.float32)).of(names)
        acted = {person for person, did in zip(people, active, strict=True) if did}
        fade = np.array([memory if name in acted else 1.0 for name in names])
        total = self.of(names) * fade.reshape(-1, 1) + now
        return TrustHistory(tuple(names), total.astype(np.float32).reshape(-1, _WIDTH), tuple(groups))

    def save(self, path: Path) -> None:
        number = {person: i for i, group in enumerate(self.groups, start=1) for person in group}
        group = pa.array([number.get(person) for person in self.people], pa.int32())
        table = as_table(pa.array(self.people, pa.string()), self.counts).append_column("group", group)
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> "TrustHistory":
        """Raises UserError for a file that is missing or of another version."""
        if not path.is_file():
            raise UserError(f"{path} is missing: make the round's score step anew.")
        table = pq.read_table(path)
        if not table.schema.equals(HISTORY_SCHEMA):
            raise UserError(
                f"{path} was written by another version of bb3x-ray: remove it, and the score step that it "
                "is in, to make that anew."
            )
        groups: dict[int, set[str]] = {}
        for person, number in zip(table["person"].to_pylist(), table["group"].to_pylist(), strict=True):
            if number is not None:
                groups.setdefault(number, set()).add(person)
        in_order = tuple(frozenset(groups[number]) for number in sorted(groups))
        return replace(of_table(table), groups=in_order)


def as_table(people: pa.Array, counts: np.ndarray) -> pa.Table:
    """people [P] and their counts [P, 2 · levels] as a table of COUNTS_SCHEMA."""
    values = pa.array(np.ascontiguousarray(counts, np.float32).reshape(-1))
    return pa.table([people, pa.FixedSizeListArray.from_arrays(values, _WIDTH)], schema=COUNTS_SCHEMA)


def of_table(table: pa.Table) -> TrustHistory:
    """The rows of a table of COUNTS_SCHEMA, or with more columns, as they are; without groups."""
    counts = [c.flatten().to_numpy(zero_copy_only=False) for c in table["counts"].chunks]
    values = np.concatenate(counts) if counts else np.zeros(0, np.float32)
    return TrustHistory(tuple(table["person"].to_pylist()), values.reshape(-1, _WIDTH).astype(np.float32))
