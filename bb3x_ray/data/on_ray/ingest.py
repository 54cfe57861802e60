"""Data's Ray door: blocks of files are parsed by tasks of Ray Data."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import pyarrow as pa
import ray
import ray.data

from bb3x_ray.data.file_blocks import Block
from bb3x_ray.data.on_ray import tasks_at_once
from bb3x_ray.data.parse import parse_block

# A task holds a block, its parsed JSON (about eight times as large) and its columns.
_TASK_BYTES = 500_000_000
_OBJECT_STORE_BYTES = 800_000_000
_TABLES_BYTES = 32_000_000  # Ray Data joins a task's tables up to this


def parse_blocks(blocks: Sequence[Block]) -> Iterator[pa.Table]:
    """Tables of PARSED_SCHEMA in the order of `blocks`, whatever order they were parsed in.

    Uses the Ray that is running, else starts one here for as long as it takes. As many blocks are under way
    as there are cores and memory; finished ones wait in the object store, and while it is full no new ones
    start.
    """
    with _running():
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = _TABLES_BYTES
        with ray.data.DataContext.current(context):
            parsed = ray.data.from_items(
                [asdict(block) for block in blocks], override_num_blocks=len(blocks)
            ).map_batches(
                _parse,
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=1,
                memory=_TASK_BYTES,
                compute=ray.data.TaskPoolStrategy(size=tasks_at_once()),
            )
        yield from parsed.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


def _parse(blocks: pa.Table) -> Iterator[pa.Table]:
    for block in blocks.to_pylist():
        yield from parse_block(Block(**block))


@contextmanager
def _running() -> Iterator[None]:
    """Ray for the length of the block, where none is running yet."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()
