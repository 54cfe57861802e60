"""A replica's own files of events: durable before `append` returns, sealed for the committer.

    inbox/20250131T101500123456-replica_1-5f0c….open      being written; its owner holds a lock on it
    inbox/20250131T101500123456-replica_1-5f0c….jsonl     sealed: complete, never written again

Threads that append together share one write and one sync (group_commit.py). The lock (flock) is freed
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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from bb3x_ray.data.event_rows import check_event, to_lines
from bb3x_ray.data.group_commit import GroupCommit
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import fsync_path

OPEN, SEALED = ".open", ".jsonl"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = logging.getLogger(__name__)


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
        self._replica = replica
        self._seal_seconds, self._seal_bytes = seal_seconds, seal_bytes
        self._group = GroupCommit(self._write)
        self._segment: _Segment | None = None  # touched by the thread that leads, or with the turn held
        inbox.mkdir(parents=True, exist_ok=True)
        self._sealer = threading.Thread(target=self._seal_old, name="segment-sealer", daemon=True)
        self._sealer.start()

    def append(self, events: list[Event]) -> None:
        """Returns when the lines of `events` are on disk, in one piece and in order.

        Raises UserError when the disk is full or an event cannot be stored (then nothing of this
        call is acknowledged), RuntimeError after `close`.
        """
        if events:
            self._group.append(lines_of(events))

    def close(self) -> None:
        """Seal what is open. Appends that already wait are written first."""
        with self._group.closing():
            self._seal()
        self._sealer.join()

    def __enter__(self) -> "SegmentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        name = segment_name(self._replica)
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
        """Publish the open segment. Called by the thread that leads, or with the turn held.

        Appenders wait meanwhile, so the new name is not synced: should the power fail, the segment is
        found under its old one, without an owner, and taken over.
        """
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            os.rename(segment.path, segment.path.with_suffix(SEALED))
        finally:
            os.close(segment.fd)

    def _seal_old(self) -> None:
        """The sealer's thread: an idle replica's events must reach the committer too."""
        turn = self._group.turn
        with turn:
            while not self._group.closed:
                if self._group.busy or self._segment is None:
                    turn.wait()
                    continue
                left = self._segment.since + self._seal_seconds - time.monotonic()
                if left > 0:
                    turn.wait(timeout=left)
                    continue
                try:
                    self._seal()
                except OSError as error:  # its lock is free now, so the committer takes it over
                    _log.warning("a segment could not be sealed (errno %s)", error.errno)


def segment_name(replica: str) -> str:
    """Names sort by the time at which their segments were begun; two are never the same."""
    replica = re.sub(r"[^A-Za-z0-9_]", "_", replica) or "replica"
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{replica}-{uuid.uuid4().hex}"


def begun_at(name: str) -> datetime:
    """When a segment of this name was begun: its oldest event is about as old."""
    return datetime.strptime(name.split("-", 1)[0], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)


def lines_of(events: list[Event]) -> bytes:
    """Lines of a segment. Raises UserError for an event that cannot be stored."""
    for event in events:
        try:
            check_event(event)
        except ValueError as error:
            raise UserError(f"an event was refused: {error}.") from None
    return to_lines(events)


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
