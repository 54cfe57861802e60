"""How far an ingest is, for people: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from bb3x_ray.data.ingest import OnProgress, Progress

_EVERY_SECONDS = 10.0


@contextmanager
def showing(title: str) -> Iterator[OnProgress]:
    """Yields what an ingest is to call; shown on stderr."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from _bar(title, console)
    else:
        yield _lines(title)


def _bar(title: str, console: Console) -> Iterator[OnProgress]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def show(at: Progress) -> None:
            bar.update(task, completed=at.done, total=at.total, description=f"{title}: {_said(at)}")

        yield show


def _lines(title: str) -> OnProgress:
    last = time.monotonic()

    def show(at: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_SECONDS:
            last = time.monotonic()
            sys.stderr.write(f"{title}: {at.done / max(at.total, 1):.0%}, {_said(at)}\n")

    return show


def _said(at: Progress) -> str:
    return f"{at.events} events" + (f", {at.left_out} left out" if at.left_out else "")
