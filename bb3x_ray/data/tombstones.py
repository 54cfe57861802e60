"""What is left of a person who was erased: a digest, a time, and numbers. Never a word, never a name.

    tombstones/<digest>.json

Or of one conversation of theirs, where no more than that was asked for.

What they said up to that time is refused should it come back (the same file ingested again, a segment of a
replica that was cut off). What they say later is theirs to say anew.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.event_rows import parse_line
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage, read_json, write_json

FOLDER, _PENDING = "tombstones", "tombstones/pending"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """
    person    digest of the pseudonym, or of pseudonym and conversation
    at        microseconds since 1970, when it was asked for: what was said until then is refused
    done      False while an erasure is under way; whoever finds it so brings it to its end
    removed   place -> how many entries were taken out of it
    seqs      commit_seq ranges [first, last] that the table no longer holds
    models    versions whose lineage touched the person
    of_conversation   whether one conversation went, and not all that is the person's
    """

    person: str
    at: int
    done: bool = False
    removed: dict[str, int] = field(default_factory=dict)
    seqs: list[list[int]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    of_conversation: bool = False


class Tombstones:
    """Those under a storage root, as they were when this was made."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        paths = sorted(storage.path(FOLDER).glob("*.json"))
        self._stones = {stone.person: stone for stone in map(_read, paths)}

    def of(self, person: str, conversation: str = "") -> Tombstone | None:
        return self._stones.get(digest(person, conversation))

    def covers(self, event: Event) -> bool:
        """Whether this was said before its person, or its conversation, was erased."""
        if not self._stones:
            return False
        stones = [self.of(one, about) for one in _about(event) for about in ("", event.conversation_id)]
        return any(stone is not None and event.at <= stone.at for stone in stones)

    def cover_rows(self, rows: pa.Table) -> np.ndarray:
        """[N] bool: the same of rows of EVENT_SCHEMA."""
        covered = np.zeros(len(rows), dtype=bool)
        if not self._stones:
            return covered
        rater = pc.if_else(pc.equal(rows["kind"], "annotation"), rows["author_name"], None)
        for column in (rows["person"], rater):
            for person in pc.unique(column).to_pylist():
                stone = self.of(person or "")
                if stone is not None:
                    theirs = pc.and_(pc.equal(column, person), pc.less_equal(rows["at"], stone.at))
                    covered |= pc.fill_null(theirs, False).to_numpy(zero_copy_only=False)
        if any(stone.of_conversation for stone in self._stones.values()):
            covered |= self._cover_conversations(rows)
        return covered

    def _cover_conversations(self, rows: pa.Table) -> np.ndarray:
        talks = zip(
            rows["person"].to_pylist(),
            rows["conversation_id"].to_pylist(),
            rows["at"].to_pylist(),
            strict=True,
        )
        until = {
            pair: stone.at
            for pair in set(zip(rows["person"].to_pylist(), rows["conversation_id"].to_pylist(), strict=True))
            if (stone := self.of(pair[0] or "", pair[1] or "")) is not None
        }
        return np.array([at <= until.get((person, talk), at - 1) for person, talk, at in talks], dtype=bool)

    def covers_line(self, line: bytes) -> bool:
        """The same of an event as a segment's line; a line that is no event is not covered."""
        try:
            return self.covers(parse_line(line))
        except ValueError:
            return False

    def __len__(self) -> int:
        return len(self._stones)

    def __iter__(self) -> Iterator[Tombstone]:
        return iter(self._stones.values())

    def put(self, stone: Tombstone) -> None:
        write_json(self._storage.path(FOLDER, f"{stone.person}.json"), asdict(stone))
        self._stones[stone.person] = stone


def _about(event: Event) -> list[str]:
    """Whose event it is: the conversation's person's, and a rater's."""
    return [event.person, *([event.author_name or ""] if event.kind == "annotation" else [])]


def digest(person: str, conversation: str = "") -> str:
    subject = f"{person}\0{conversation}" if conversation else person
    return hashlib.sha256(b"bb3x-tombstone\0" + subject.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def stone_of(storage: Storage, person: str, conversation: str = "") -> Tombstone | None:
    """The one of a person, or of a conversation, without reading the others."""
    path = storage.path(FOLDER, f"{digest(person, conversation)}.json")
    return _read(path) if path.is_file() else None


def _read(path: Any) -> Tombstone:
    return Tombstone(**read_json(path))


@dataclass(frozen=True, slots=True)
class Request:
    """
    names          what else a damaged line may call the person by
    conversation   only that one goes
    at             when it was asked for, microseconds since 1970: what is said later stays; None: whenever it
                   is carried out
    """

    person: str
    names: tuple[str, ...] = ()
    conversation: str = ""
    at: int | None = None

    @property
    def digest(self) -> str:
        return digest(self.person, self.conversation)


def ask_for_erasure(storage: Storage, request: Request) -> None:
    """Durable when it returns; carried out by whoever looks next. Asked twice, the later time counts."""
    before = pending_of(storage, request.person, request.conversation)
    if before is not None:
        at = None if before.at is None or request.at is None else max(before.at, request.at)
        names = tuple(dict.fromkeys((*before.names, *request.names)))
        request = replace(request, at=at, names=names)
    write_json(_pending_path(storage, request), asdict(request))


def pending_of(storage: Storage, person: str, conversation: str = "") -> Request | None:
    """The request about a person, or about one conversation, that was not carried out yet."""
    path = _pending_path(storage, Request(person, conversation=conversation))
    return _read_request(path) if path.is_file() else None


def pending(storage: Storage) -> Iterator[Request]:
    """Every request that was not carried out yet."""
    for path in sorted(storage.path(_PENDING).glob("*.json")):
        yield _read_request(path)


def withdraw(storage: Storage, request: Request) -> None:
    """The request was carried out: the name goes too. One that came for the same meanwhile stays."""
    if pending_of(storage, request.person, request.conversation) == request:
        _pending_path(storage, request).unlink()


def _pending_path(storage: Storage, request: Request) -> Path:
    return storage.path(_PENDING, f"{request.digest}.json")


def _read_request(path: Path) -> Request:
    asked = read_json(path)
    names, conversation = tuple(asked["names"]), asked.get("conversation", "")
    return Request(asked["person"], names, conversation, asked.get("at"))
