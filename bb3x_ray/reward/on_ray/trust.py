"""Trust of very many people: what they did is counted by Ray Data's group-by, no process sees all thumbs.

Every block of thumbs becomes one row a person, with counts in place of thumbs; rows are grouped by a hash of
the person, and added up. What comes back is small: 24 numbers a person.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from bb3x_ray.reward.trust.confusion import LEVELS, level_of
from bb3x_ray.reward.trust.history import TrustHistory, as_table, of_table

# rating   1 or −1; rows without one are left out
# p        P(thumb up), by a model that has not seen the thumb
JUDGED_COLUMNS = ["person", "rating", "p"]
_WIDTH = 2 * len(LEVELS)
_GROUPS = 32


def count_thumbs(judged: Sequence[str] | pa.Table) -> TrustHistory:
    """What everybody did.

    judged   Parquet files with JUDGED_COLUMNS, which every node can read, or a table

    Ray must be running.
    """
    with ray.data.DataContext.current(_context()):
        if isinstance(judged, pa.Table):
            rows: ray.data.Dataset = ray.data.from_arrow(judged.select(JUDGED_COLUMNS))
        else:
            rows = ray.data.read_parquet(list(judged), columns=JUDGED_COLUMNS)
        counted = rows.map_batches(_count, batch_format="pyarrow", batch_size=None, zero_copy_batch=True)
        added = counted.groupby("group", num_partitions=_GROUPS).map_groups(
            _add, batch_format="pyarrow", zero_copy_batch=True
        )
        tables = [t for t in added.iter_batches(batch_size=None, batch_format="pyarrow") if len(t)]
    if not tables:
        return TrustHistory.empty()
    return of_table(pa.concat_tables(tables).sort_by("person"))


def _count(thumbs: pa.Table) -> pa.Table:
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
    return pa.array([sum(name.encode()[-8:]) % _GROUPS for name in text], pa.int32())


def _add(rows: pa.Table) -> pa.Table:
    """The rows of one person as one row."""
    people = pc.dictionary_encode(rows["person"].combine_chunks())
    person = people.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(person, kind="stable")
    values = of_table(rows.select(["person", "counts"])).counts[order]
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))
    return as_table(people.dictionary, np.add.reduceat(values, starts, axis=0))


def _context() -> ray.data.DataContext:
    """No progress bars: the round shows its own progress."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context
