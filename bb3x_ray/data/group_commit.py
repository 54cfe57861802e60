"""Threads that write together share one write: the first of them leads, the others wait for it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class _Pending:
    data: bytes
    done: bool = False
    error: Exception | None = None


class GroupCommit:
    """`write` gets what several threads handed in, in one piece, and returns when that is durable.

    One thread at a time is inside `write`. What that raises is raised in every thread whose bytes it got.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self.turn = threading.Condition()  # notified after every write, and at the end
        self._waiting: list[_Pending] = []
        self._busy = False  # somebody writes, outside the condition's lock
        self.closed = False

    @property
    def busy(self) -> bool:
        """Whether a write is under way. Only with `turn` held."""
        return self._busy

    def append(self, data: bytes) -> None:
        """Returns when `data` is durable. Raises RuntimeError once it is closed."""
        mine = _Pending(data)
        with self.turn:
            if self.closed:
                raise RuntimeError("the segment writer is closed")
            self._waiting.append(mine)
            while not mine.done:
                if self._busy:
                    self.turn.wait()
                else:
                    self._lead()
        if mine.error is not None:
            raise mine.error

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Refuse what comes from now on; the block runs when all that waited is written, with `turn` held."""
        with self.turn:
            self.closed = True
            self.turn.notify_all()
            while self._busy or self._waiting:
                self.turn.wait()
            yield

    def _lead(self) -> None:
        """Write everything that waits, for all its threads. Called with the condition held."""
        batch, self._waiting = self._waiting, []
        self._busy = True
        self.turn.release()
        error: Exception | None = RuntimeError("the write was interrupted: the events were not stored")
        try:
            self._write(b"".join(pending.data for pending in batch))
            error = None
        except Exception as raised:  # handed to every appender of this batch, below
            error = raised
        finally:
            self.turn.acquire()
            self._busy = False
            for pending in batch:
                pending.done, pending.error = True, error
            self.turn.notify_all()
