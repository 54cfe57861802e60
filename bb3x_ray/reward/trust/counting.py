"""Blocks of judged thumbs counted per person, and counts added up: what workers do for the door.

A file of its own, because workers import what they run, and this needs no torch.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bb3x_ray.reward.trust.confusion import LEVELS, level_of
from bb3x_ray.reward.trust.history import as_table, of_table
from bb3x_ray.schemas.errors import UserError

# rating   1 or −1; rows without one are left out
# p        P(thumb up), by a model that has not seen the thumb
JUDGED_COLUMNS = ["person", "rating", "p"]
GROUPS = 8
_WIDTH = 2 * len(LEVELS)


def check_judged(path: Path) -> None:
    """Raises UserError for a file without thumbs to count: its footer is read, not its rows."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid):
        raise UserError(f"{path}: there is no such Parquet file.") from None
    kinds = {"person": pa.types.is_string, "rating": pa.types.is_integer, "p": pa.types.is_floating}
    wanted = {"person": "text", "rating": "1 or -1 (int8)", "p": "a probability (float32)"}
    for name, fits in kinds.items():
        if name not in schema.names or not fits(schema.field(name).type):
            raise UserError(f"{path}: column {name} must be there and hold {wanted[name]}.")


def count_block(thumbs: pa.Table) -> pa.Table:
    """A row a person of this block: group, person, counts."""
    thumbs = thumbs.filter(pc.and_(pc.is_valid(thumbs["rating"]), pc.is_valid(thumbs["p"])))
    people = pc.dictionary_encode(thumbs["person"].combine_chunks())
    person = people.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    up = (thumbs["rating"].to_numpy() > 0).astype(np.int64)
    place = up * len(LEVELS) + level_of(thumbs["p"].to_numpy())
    names = people.dictionary
    counts = np.bincount(person * _WIDTH + place, minlength=len(names) * _WIDTH)
    table = as_table(names, counts.reshape(-1, _WIDTH))
    return table.append_column("group", _group_of(names))


def _group_of(names: pa.Array) -> pa.Array:
    """A number from the last eight bytes of each name: the same in every process."""
    text = names.to_pylist()
    return pa.array([sum(name.encode()[-8:]) % GROUPS for name in text], pa.int32())


def add_counts(rows: pa.Table) -> pa.Table:
    """The rows of one person as one row."""
    people = pc.dictionary_encode(rows["person"].combine_chunks())
    person = people.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(person, kind="stable")
    values = of_table(rows.select(["person", "counts"])).counts[order]
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))
    return as_table(people.dictionary, np.add.reduceat(values, starts, axis=0))
