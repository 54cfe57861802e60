"""Which versions an engine holds, which one answers, and who still waits for which: the bookkeeping alone."""

import threading
from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

from bb3x_ray.serve.engines.protocol import UnknownVersion

Opened = TypeVar("Opened")  # what it takes to answer with a version


class Held(Generic[Opened]):
    """Threads may share it. There is always a current version, and it is always held.

    A version that was added stays until `keep` does not name it, or another becomes current in its place:
    then it leaves with the last reply that uses it. What has left is returned, for the caller to give up.
    """

    def __init__(self, version: str, opened: Opened) -> None:
        self._lock = threading.Lock()
        self._opened = {version: opened}
        self._current = version
        self._kept: frozenset[str] = frozenset()
        self._leaving: set[str] = set()
        self._used: dict[Hashable, str] = {}  # reply -> version

    @property
    def current(self) -> str:
        return self._current

    @property
    def names(self) -> list[str]:
        """The newest first."""
        with self._lock:
            return list(reversed(self._opened))

    def begin(self, reply: Hashable, version: str | None) -> None:
        """A reply is asked for, of the current version where none is named. Raises UnknownVersion."""
        with self._lock:
            if version is not None and version not in self._opened:
                raise UnknownVersion(version)
            self._used[reply] = version or self._current

    def writing(self, reply: Hashable) -> tuple[str, Opened]:
        """What writes a reply that began: its version, or where that was replaced the current one."""
        with self._lock:
            if self._used[reply] not in self._opened:
                self._used[reply] = self._current
            name = self._used[reply]
            return name, self._opened[name]

    def end(self, reply: Hashable) -> list[Opened]:
        with self._lock:
            self._used.pop(reply, None)
            return self._gone()

    def stays(self, version: str) -> bool:
        """Whether it is held; then it does not leave any more."""
        with self._lock:
            self._leaving.discard(version)
            return version in self._opened

    def add(self, version: str, opened: Opened) -> None:
        with self._lock:
            self._opened[version] = opened

    def move_to(self, version: str) -> list[Opened]:
        """It becomes current, the one before leaves unless it is kept. Raises UnknownVersion."""
        with self._lock:
            if version not in self._opened:
                raise UnknownVersion(version)
            before, self._current = self._current, version
            self._leaving.discard(version)
            if before != version and before not in self._kept:
                self._leaving.add(before)
            return self._gone()

    def replace_all(self, version: str, opened: Opened) -> list[Opened]:
        """It takes the place of all others at once: replies that began with them will be its own."""
        with self._lock:
            gone = list(self._opened.values())
            self._opened, self._current, self._leaving = {version: opened}, version, set()
            return gone

    def keep(self, versions: Collection[str]) -> list[Opened]:
        """These stay beside the current one, all others leave."""
        with self._lock:
            self._kept = frozenset(versions)
            self._leaving = set(self._opened) - self._kept - {self._current}
            return self._gone()

    def _gone(self) -> list[Opened]:
        done = self._leaving - set(self._used.values())
        self._leaving -= done
        return [self._opened.pop(name) for name in sorted(done)]
