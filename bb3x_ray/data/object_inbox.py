"""The inbox in an object store (`log.ack: shared`): what is acknowledged there outlives node and disk.

Threads that append together share one PUT (group_commit.py), which is atomic: an object is there whole, or
not at all, so every object is a sealed segment. Address and credentials are found as those of other tools
are: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ALLOW_HTTP and so on.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from bb3x_ray.data.group_commit import GroupCommit
from bb3x_ray.data.inbox import ARCHIVE, INBOX, Segment, kept_lines
from bb3x_ray.data.segments import SEALED, lines_of, segment_name
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event

if TYPE_CHECKING:  # types only: the package has no such names when it runs
    from obstore.store import ClientConfig

SCHEMES = ("s3", "gs", "az")
# A thumb that cannot be stored within this time is refused rather than left hanging.
_TIMEOUT, _RETRIES = "10s", 3
_READERS = 16  # objects read at the same time


class ObjectWriter:
    """Appends events of one replica as objects, one for all that wait at the same time."""

    def __init__(self, store: ObjectStore, address: str, replica: str) -> None:
        self._store, self._address, self._replica = store, address, replica
        self._group = GroupCommit(self._write)

    def append(self, events: list[Event]) -> None:
        """Returns when the store has taken the lines of `events`, in one object and in order.

        Raises UserError when it has not, or an event cannot be stored (then nothing of this call is
        acknowledged), RuntimeError after `close`.
        """
        if events:
            self._group.append(lines_of(events))

    def close(self) -> None:
        """Refuse further events. Appends that already wait are written first."""
        with self._group.closing():
            pass  # every object is complete

    def __enter__(self) -> "ObjectWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        try:
            obstore.put(self._store, f"{INBOX}/{segment_name(self._replica)}{SEALED}", data)
        except (BaseError, OSError) as error:
            raise UserError(
                f"the object store at {self._address} did not take what was sent just now "
                f"({type(error).__name__}): check that it answers, and the credentials."
            ) from None


class ObjectInbox:
    """Inbox and archive under an address such as `s3://bucket/path`."""

    def __init__(self, address: str) -> None:
        scheme = address.split("://")[0]
        if scheme not in SCHEMES:
            raise UserError(
                f"log.root: {scheme}:// is not known; give a folder, or an address that begins with "
                f"{', '.join(f'{known}://' for known in SCHEMES)}."
            )
        self._address = address.rstrip("/")
        self._store = _open(self._address)

    @property
    def address(self) -> str:
        return self._address

    def writer(self, replica: str, seal_seconds: float, seal_bytes: int) -> ObjectWriter:
        """`seal_seconds` and `seal_bytes` mean nothing here: an object is sealed when it is there."""
        return ObjectWriter(self._store, self._address, replica)

    def take_over(self) -> None:
        """Nothing to do: what a dead writer left is whole."""

    def waiting(self) -> list[Segment]:
        return self._list(INBOX)

    def being_written(self) -> list[Segment]:
        return []

    def read(self, names: Sequence[str]) -> list[bytes]:
        return self._get([f"{INBOX}/{name}" for name in names])

    def unarchived(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        names = [segment.name for segment in self.waiting() if wanted(segment.name)]
        with ThreadPoolExecutor(_READERS) as readers:
            yield from zip(names, readers.map(self._get_if_there, names), strict=True)

    def archive(self, names: Sequence[str]) -> None:
        """Many small objects become one of the archive; they go when that one is there."""
        if not names:
            return
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        target = f"{ARCHIVE}/{names[0][:8]}/{names[0].removesuffix(SEALED)}-{digest}{SEALED}"
        if not self._is_there(target):
            obstore.put(self._store, target, b"".join(self.read(names)))
        obstore.delete(self._store, [f"{INBOX}/{name}" for name in names])

    def archived(self) -> list[Segment]:
        return self._list(ARCHIVE)

    def read_archived(self, names: Sequence[str]) -> list[bytes]:
        return self._get([f"{ARCHIVE}/{name}" for name in names])

    def rewrite(self, keep: Callable[[bytes], bool]) -> int:
        paths = [f"{INBOX}/{segment.name}" for segment in self.waiting()]
        paths += [f"{ARCHIVE}/{segment.name}" for segment in self.archived()]
        return sum(self._rewrite(path, keep) for path in paths)

    def _rewrite(self, path: str, keep: Callable[[bytes], bool]) -> int:
        (data,) = self._get([path])
        kept, dropped = kept_lines(data, keep)
        if dropped:
            obstore.put(self._store, path, kept)
        return dropped

    def _list(self, folder: str) -> list[Segment]:
        found = [
            Segment(entry["path"].removeprefix(f"{folder}/"), entry["size"])
            for chunk in obstore.list(self._store, folder, chunk_size=1000)
            for entry in chunk
            if entry["path"].endswith(SEALED)
        ]
        return sorted(found, key=lambda segment: segment.name)

    def _get(self, paths: Sequence[str]) -> list[bytes]:
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(lambda path: bytes(obstore.get(self._store, path).bytes()), paths))

    def _get_if_there(self, name: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, f"{INBOX}/{name}").bytes())
        except FileNotFoundError:
            return b""  # archived meanwhile

    def _is_there(self, path: str) -> bool:
        try:
            obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        return True


def _open(address: str) -> ObjectStore:
    options: ClientConfig = {"timeout": _TIMEOUT}
    if os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true"):
        options["allow_http"] = True
    return from_url(address, client_options=options, retry_config={"max_retries": _RETRIES})
