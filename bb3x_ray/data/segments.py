"""A replica's own files of events: durable before `append` returns, sealed for the committer.

    inbox/20250131T101500123456-replica_1-5f0c….open      being written; its owner holds a lock on it
    inbox/20250131T101500123456-replica_1-5f0c….jsonl     sealed: complete, never written again

Threads that append together share one write and one sync (group commit). The lock (flock) is freed
by the kernel when the owner dies, however it dies: the committer then takes the file over. A child
made by fork without exec would keep the lock alive: the file is then read later, not lost.
"""

import errno
import fcntl
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from bb3x_ray.data.event_rows import check_event, to_lines
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import fsync_path, write_atomic

OPEN, SEALED = ".open", ".jsonl"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Pending:
    data: bytes
    done: bool = False
    error: Exception | None = None


@dataclass(slots=True)
class _Segment:
    path: Path
    fd: int
    since: float  # monotonic seconds
    size: int = 0  # bytes that are known to be durable


class SegmentWriter:
    """Appends events of one replica to segments in `inbox`.

    A segment is sealed when it is `seal_seconds` old, larger than `seal_bytes`, or at `close`.
    """

    def __init__(self, inbox: Path, replica: str, seal_seconds: float, seal_bytes: int) -> None:
        self._inbox = inbox
        self._replica = re.sub(r"[^A-Za-z0-9_]", "_", replica) or "replica"
        self._seal_seconds, self._seal_bytes = seal_seconds, seal_bytes
        self._turn = threading.Condition()
        self._waiting: list[_Pending] = []
        self._busy = False  # one thread at a time writes, syncs or seals, outside the condition's lock
        self._closed = False
        self._segment: _Segment | None = None
        inbox.mkdir(parents=True, exist_ok=True)
        self._sealer = threading.Thread(target=self._seal_old, name="segment-sealer", daemon=True)
        self._sealer.start()

    def append(self, events: list[Event]) -> None:
        """Returns when the lines of `events` are on disk, in one piece and in order.

        Raises UserError when the disk is full or an event cannot be stored (then nothing of this
        call is acknowledged), RuntimeError after `close`.
        """
        if not events:
            return
        mine = _Pending(_lines_of(events))
        with self._turn:
            if self._closed:
                raise RuntimeError("the segment writer is closed")
            self._waiting.append(mine)
            while not mine.done:
                if self._busy:
                    self._turn.wait()
                else:
                    self._lead()
        if mine.error is not None:
            raise mine.error

    def close(self) -> None:
        """Seal what is open. Appends that already wait are written first."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
            while self._busy or self._waiting:
                self._turn.wait()
            self._seal()
        self._sealer.join()

    def __enter__(self) -> "SegmentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lead(self) -> None:
        """Write everything that waits, for all its threads. Called with the condition held."""
        batch, self._waiting = self._waiting, []
        self._busy = True
        self._turn.release()
        error: Exception | None = RuntimeError("the write was interrupted: the events were not stored")
        try:
            self._write(b"".join(pending.data for pending in batch))
            error = None
        except Exception as raised:  # handed to every appender of this batch, below
            error = raised
        finally:
            self._turn.acquire()
            self._busy = False
            for pending in batch:
                pending.done, pending.error = True, error
            self._turn.notify_all()

    def _write(self, data: bytes) -> None:
        try:
            segment = self._segment = self._segment or self._open()
            view = memoryview(data)
            while view:
                view = view[os.write(segment.fd, view) :]
            os.fdatasync(segment.fd)
            segment.size += len(data)
            if segment.size >= self._seal_bytes:
                self._seal()
        except BaseException as error:
            self._give_up_segment()
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise UserError(
                    f"no space left for the interaction log in {self._inbox}: free some disk space; "
                    "what was sent just now was not stored."
                ) from None
            raise

    def _open(self) -> _Segment:
        """A new segment. It gets its `.open` name only when it is locked: else it would look orphaned."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{self._replica}-{uuid.uuid4().hex}"
        unlocked, path = self._inbox / f".{name}", self._inbox / f"{name}{OPEN}"
        fd = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.rename(unlocked, path)
            fsync_path(self._inbox)
        except OSError:
            os.close(fd)
            raise
        return _Segment(path, fd, time.monotonic())

    def _give_up_segment(self) -> None:
        """After a failed write or sync: cut off what was not acknowledged, and never use this file again.

        A file whose sync failed may have lost pages in memory: syncing it again would prove nothing.
        """
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            os.ftruncate(segment.fd, segment.size)
        finally:
            os.close(segment.fd)  # frees the lock: the committer takes the rest over

    def _seal(self) -> None:
        """Publish the open segment. Called by the thread that leads, or with the condition held."""
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            os.rename(segment.path, segment.path.with_suffix(SEALED))
        finally:
            os.close(segment.fd)
        fsync_path(self._inbox)

    def _seal_old(self) -> None:
        """The sealer's thread: an idle replica's events must reach the committer too."""
        with self._turn:
            while not self._closed:
                if self._busy or self._segment is None:
                    self._turn.wait()
                    continue
                left = self._segment.since + self._seal_seconds - time.monotonic()
                if left > 0:
                    self._turn.wait(timeout=left)
                    continue
                try:
                    self._seal()
                except OSError as error:  # its lock is free now, so the committer takes it over
                    _log.warning("a segment could not be sealed (errno %s)", error.errno)


def _lines_of(events: list[Event]) -> bytes:
    for event in events:
        try:
            check_event(event)
        except ValueError as error:
            raise UserError(f"an event was refused: {error}.") from None
    return to_lines(events)


def keep_lines(path: Path, keep: Callable[[bytes], bool]) -> int:
    """Rewrite a file of lines, in one step, with those that `keep` wants. Returns how many went."""
    lines = path.read_bytes().split(b"\n")[:-1]
    kept = [line for line in lines if keep(line)]
    if len(kept) < len(lines):
        write_atomic(path, b"".join(line + b"\n" for line in kept))
    return len(lines) - len(kept)


def take_over_orphans(inbox: Path) -> list[Path]:
    """Seal `.open` segments whose owner is dead. Returns their new paths."""
    taken = []
    for path in sorted(inbox.glob(f"*{OPEN}")):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its owner sealed it just now
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sealed = path.with_suffix(SEALED)
            if path.exists():  # its owner may have sealed it between our open and our lock
                os.rename(path, sealed)
                taken.append(sealed)
        except BlockingIOError:
            continue  # alive
        finally:
            os.close(fd)
    return taken
