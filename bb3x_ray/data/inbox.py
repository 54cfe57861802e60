"""Where acknowledged events wait for the committer, and where it puts what it has committed.

    inbox/<segment>.jsonl            sealed, waits (a folder's open segments end in `.open`)
    archive/<day>/<segment>.jsonl    is in the table; kept, so that a lost table can be made again

Both lie under one root: a folder (of this machine, or on a shared volume) or an object store's address.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bb3x_ray.data.segments import OPEN, SEALED, SegmentWriter, take_over_orphans
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import fsync_path, write_atomic

INBOX, ARCHIVE = "inbox", "archive"


@dataclass(frozen=True, slots=True)
class Segment:
    """One that waits, or lies in the archive; `size` in bytes."""

    name: str
    size: int


class EventWriter(Protocol):
    """Where a replica writes its events: `append` returns when they are durable, or raises."""

    def append(self, events: list[Event]) -> None: ...

    def close(self) -> None: ...


class Inbox(Protocol):
    """Inbox and archive under one root. `open_inbox(inbox.address)` opens the same again."""

    @property
    def address(self) -> str: ...

    def writer(self, replica: str, seal_seconds: float, seal_bytes: int) -> EventWriter: ...

    def take_over(self) -> None:
        """Seal what dead writers left open."""

    def waiting(self) -> list[Segment]:
        """Sealed segments, oldest first."""

    def being_written(self) -> list[Segment]:
        """Segments that are still open."""

    def read(self, names: Sequence[str]) -> list[bytes]:
        """Contents of segments that wait."""

    def unarchived(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """(name, contents) of what is being written, whole lines only, then of what waits and is `wanted`.

        What is archived meanwhile is left out: it is in the table. What is sealed meanwhile may come twice.
        """

    def archive(self, names: Sequence[str]) -> None:
        """Move segments that were committed into the archive. Does the rest when it is called again."""

    def archived(self) -> list[Segment]:
        """What lies in the archive, oldest first."""

    def read_archived(self, names: Sequence[str]) -> list[bytes]:
        """Contents of archived segments."""

    def rewrite(self, keep: Callable[[bytes], bool]) -> int:
        """Drop every sealed line, waiting or archived, for which `keep` is False; returns how many.

        Only under the committer's lease.
        """


def open_inbox(address: str) -> Inbox:
    """The inbox under a folder, or under `s3://bucket/path` and the like. Raises UserError for others."""
    if "://" in address:
        from bb3x_ray.data.object_inbox import ObjectInbox

        return ObjectInbox(address)
    return FolderInbox(Path(address).expanduser().resolve())


class FolderInbox:
    """In a folder of this machine, or of a volume that every node sees."""

    def __init__(self, root: Path) -> None:
        self._root, self._inbox, self._archive = root, root / INBOX, root / ARCHIVE

    @property
    def address(self) -> str:
        return str(self._root)

    def writer(self, replica: str, seal_seconds: float, seal_bytes: int) -> SegmentWriter:
        return SegmentWriter(self._inbox, replica, seal_seconds, seal_bytes)

    def take_over(self) -> None:
        take_over_orphans(self._inbox)

    def waiting(self) -> list[Segment]:
        return _segments(self._inbox, self._inbox.glob(f"*{SEALED}"))

    def being_written(self) -> list[Segment]:
        return _segments(self._inbox, self._inbox.glob(f"*{OPEN}"))

    def read(self, names: Sequence[str]) -> list[bytes]:
        return [(self._inbox / name).read_bytes() for name in names]

    def unarchived(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        for segment in self.being_written():
            path = self._inbox / segment.name
            data = _read_if_there(path) or _read_if_there(path.with_suffix(SEALED))
            yield segment.name, data[: data.rfind(b"\n") + 1]
        for segment in self.waiting():
            if wanted(segment.name):
                yield segment.name, _read_if_there(self._inbox / segment.name)

    def archive(self, names: Sequence[str]) -> None:
        for name in names:
            segment, folder = self._inbox / name, self._archive / name[:8]
            folder.mkdir(parents=True, exist_ok=True)
            if segment.exists():  # else it was moved before a crash
                os.replace(segment, folder / name)
                fsync_path(folder)
        fsync_path(self._inbox)

    def archived(self) -> list[Segment]:
        return _segments(self._archive, self._archive.rglob(f"*{SEALED}"))

    def read_archived(self, names: Sequence[str]) -> list[bytes]:
        return [(self._archive / name).read_bytes() for name in names]

    def rewrite(self, keep: Callable[[bytes], bool]) -> int:
        paths = [self._inbox / segment.name for segment in self.waiting()]
        paths += [self._archive / segment.name for segment in self.archived()]
        return sum(rewrite_lines(path, keep) for path in paths)


def _read_if_there(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""  # sealed, or archived, meanwhile


def kept_lines(data: bytes, keep: Callable[[bytes], bool]) -> tuple[bytes, int]:
    """The whole lines of a segment for which `keep` is true, and how many it was not for."""
    lines = data.split(b"\n")[:-1]
    kept = [line for line in lines if keep(line)]
    return b"".join(line + b"\n" for line in kept), len(lines) - len(kept)


def rewrite_lines(path: Path, keep: Callable[[bytes], bool]) -> int:
    """The same with a file, in one step."""
    kept, dropped = kept_lines(path.read_bytes(), keep)
    if dropped:
        write_atomic(path, kept)
    return dropped


def _segments(root: Path, paths: Iterable[Path]) -> list[Segment]:
    found = []
    for path in paths:
        try:
            found.append(Segment(path.relative_to(root).as_posix(), path.stat().st_size))
        except FileNotFoundError:
            continue  # sealed or archived meanwhile: it goes by its new name
    return sorted(found, key=lambda segment: segment.name)
