"""Trust of very many people: what they did is counted by Ray Data's group-by, no process sees all thumbs.

Every block of thumbs becomes one row a person, with counts in place of thumbs; rows are grouped by a hash of
the person, and added up. What comes back is small: 24 numbers a person.
"""

import logging
from collections.abc import Sequence

import pyarrow as pa
import ray
import ray.data

from bb3x_ray.reward.trust.counting import GROUPS, JUDGED_COLUMNS, add_counts, count_block
from bb3x_ray.reward.trust.history import TrustHistory, of_table


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
        counted = rows.map_batches(count_block, batch_format="pyarrow", batch_size=None, zero_copy_batch=True)
        added = counted.groupby("group", num_partitions=GROUPS).map_groups(
            add_counts, batch_format="pyarrow", zero_copy_batch=True
        )
        tables = [t for t in added.iter_batches(batch_size=None, batch_format="pyarrow") if len(t)]
    if not tables:
        return TrustHistory.empty()
    return of_table(pa.concat_tables(tables).sort_by("person"))


def _context() -> ray.data.DataContext:
    """No progress bars: the round shows its own progress."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context
