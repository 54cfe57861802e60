"""Work on several threads whose results come in the order of what was given.

Arrow and numpy let go of Python's lock while they decode, copy and compare, so threads fill the cores and
nothing has to be copied between processes.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Threads:
    """Several threads, or with `pool` None nobody but the caller."""

    pool: ThreadPoolExecutor | None
    count: int

    def in_order(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """work(item) of each, in order; one more than there are threads are under way or wait to be taken.

        `items` are drawn in the caller's thread and may themselves be results of these threads: work
        never waits for other work. Raises what `work` raises, at its place.
        """
        if self.pool is None:
            yield from map(work, items)
            return
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self.pool.submit(work, item))
            if len(waiting) > self.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def threads(count: int | None = None) -> Iterator[Threads]:
    """`count` threads for the length of the block; None: as many as this process may use cores."""
    count = len(os.sched_getaffinity(0)) if count is None else count
    if count < 2:
        yield Threads(None, 1)
        return
    pool = ThreadPoolExecutor(count, thread_name_prefix="bb3x-read")
    try:
        yield Threads(pool, count)
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops early does not wait for what he never asked for
