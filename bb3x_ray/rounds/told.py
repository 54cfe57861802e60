"""Long work that says now and then how far it is."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
SECONDS = 20.0


def told(
    items: Iterable[T],
    of: int,
    say: Callable[[str], None],
    words: str,
    size: Callable[[T], int] = lambda item: 1,
    seconds: float = SECONDS,
) -> Iterator[T]:
    """`items` as they come; every `seconds` it says `words` with how much came, of how much, and how long it
    will take at that pace. `size` counts an item.

    told(tables, 90_000, say, "score: {} of {} replies", len)
    """
    began = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - last >= seconds and done < of:
            last = now
            left = (now - began) / max(done, 1) * (of - done)
            say(f"{words.format(done, of)}, about {left / 60:.0f} min left")
