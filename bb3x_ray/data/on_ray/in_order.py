"""The same work on many numbers, on all cores of a cluster; what comes of it, in order."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

import ray
import ray.exceptions

from bb3x_ray.data.on_ray import tasks_at_once
from bb3x_ray.schemas.errors import UserError

T = TypeVar("T")


def on_all_cores(work: Callable[[int], T], count: int) -> Iterator[T]:
    """work(0), work(1) … work(count - 1), as `map` gives them; here, where there is one number only.

    As many tasks as there are cores are under way, and as many results wait; one that dies is repeated.
    Ray must be running, and every node must reach what `work` reads.
    """
    if count < 2:
        yield from map(work, range(count))
        return
    known: Any = ray.put(work)
    numbers = iter(range(count))
    at_once = tasks_at_once()
    under_way: deque[Any] = deque(_do.remote(known, number) for number in islice(numbers, 2 * at_once))
    while under_way:
        yield _result(under_way.popleft())
        under_way.extend(_do.remote(known, number) for number in islice(numbers, 1))


def _result(reference: Any) -> Any:
    """What a task returned. Raises its UserError without the traceback that Ray adds to its words."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


@ray.remote(num_cpus=1, max_retries=3)
def _do(work: Callable[[int], T], number: int) -> T:
    return work(number)
