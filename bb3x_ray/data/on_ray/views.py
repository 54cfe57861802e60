"""Views through Ray Data: the shards of the log are read by tasks, on all cores or on a whole cluster."""

import logging
from collections.abc import Iterator

import pyarrow as pa
import ray
import ray.data

from bb3x_ray.data.on_ray import tasks_at_once
from bb3x_ray.data.shard import Shard, iter_shard
from bb3x_ray.data.shards import plan_shards
from bb3x_ray.data.views import COLUMNS, KINDS, LAZY, View, examples
from bb3x_ray.storage import Storage

# A task holds a batch of rows, the contexts made of it, and the block that it hands over.
_TASK_BYTES = 500_000_000
_SHARD_ROWS = 50_000  # small files are read together up to this: enough tasks for the cores of a small log
_BLOCK_BYTES = 32_000_000  # Ray Data joins tables up to this: a block has its price, large ones fill a store


def view_dataset(
    storage: Storage,
    view: View,
    split: str | None = None,
    upto_seq: int | None = None,
    with_turns: bool = False,
    shard_rows: int = _SHARD_ROWS,
) -> ray.data.Dataset:
    """The examples of a view, a row each (`views.EXAMPLE`), in no particular order; nothing is read yet.

    Every node must see the storage root. Ray must be running.
    """
    plan = plan_shards(storage, COLUMNS, upto_seq, KINDS, shard_rows=shard_rows, lazy=LAZY)
    read = ReadView([ray.put(shard) for shard in plan], view, split, with_turns)
    with ray.data.DataContext.current(_context()):
        numbers = ray.data.range(len(plan), override_num_blocks=max(1, len(plan)))
        # One shard a task: a task that dies is repeated alone.
        return numbers.map_batches(
            read,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            memory=_TASK_BYTES,
            compute=ray.data.TaskPoolStrategy(size=tasks_at_once()),
        )


class ReadView:
    """Numbers of shards -> their examples, as a stream of tables."""

    def __init__(self, plan: list["ray.ObjectRef[Shard]"], view: View, split: str | None, with_turns: bool):
        self._plan, self._view, self._split, self._with_turns = plan, view, split, with_turns

    def __call__(self, numbers: pa.Table) -> Iterator[pa.Table]:
        for number in numbers["id"].to_pylist():
            for rows in iter_shard(ray.get(self._plan[number])):
                yield examples(rows, self._view, self._split, with_turns=self._with_turns)


def _context() -> ray.data.DataContext:
    """No progress bars: who calls shows progress, if anybody."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK_BYTES
    return context
