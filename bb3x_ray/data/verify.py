"""Is the log whole? Every damage that is found becomes a sentence that says where it is and how to mend it.

Looks under the committer's lease, so that nothing moves meanwhile, and changes nothing. Event ids are held as
digests of 16 bytes and commit_seq as 8, so memory is about 30 bytes for each event.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from deltalake import DeltaTable

from bb3x_ray.data.committer import REJECTS, inboxes, lease, read_lines
from bb3x_ray.data.inbox import Inbox
from bb3x_ray.data.known_ids import covering_runs
from bb3x_ray.data.parsed_rows import digests_of
from bb3x_ray.data.table import IDS, TABLE, data_files, head_of, open_table, stream
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import with_copies
from bb3x_ray.storage import MANIFEST, Storage, read_json

_RESTORE = "`bb3x log restore` commits them"


@dataclass(frozen=True, slots=True)
class Verified:
    """Rows of the table, events that wait, events of the archive, published folders; and every damage."""

    rows: int
    waiting: int
    archived: int
    manifests: int
    damages: list[str]


@dataclass(slots=True)
class _Rows:
    """Of the table: sorted digests of event ids [N], each with its commit_seq [N]; and of the ids that it
    makes known, clients' copies of replies among them."""

    ids: np.ndarray = field(default_factory=lambda: np.empty(0, "S16"))
    seqs: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    known: np.ndarray = field(default_factory=lambda: np.empty(0, "S16"))


def verify(storage: Storage, inbox: Inbox | None = None) -> Verified:
    """Check table, index of ids, archive, inbox and the rounds' published folders against each other.

    Raises UserError when another process holds the committer's lease.
    """
    with lease(storage):
        places = inboxes(storage, inbox)
        table = open_table(storage)
        erased = _erased(storage)
        damages = list(_check_files(storage, table))
        rows = None if damages else _read_rows(storage, table, damages)
        archived = 0
        if rows is not None:
            damages += _check_seqs(rows, head_of(table), erased)
            damages += _check_index(storage, rows, head_of(table), len(erased))
            archived = _check_archive(storage, places, rows, damages)
        waiting = _count_waiting(places)
        manifests = _check_published(storage, head_of(table), damages)
    return Verified(0 if rows is None else len(rows.ids), waiting, archived, manifests, damages)


def _erased(storage: Storage) -> np.ndarray:
    """Sorted commit_seq that were taken out with the people they were about (tombstones)."""
    ranges = [
        range(first, last + 1)
        for path in storage.path("tombstones").glob("*.json")
        for first, last in read_json(path).get("seqs", [])
    ]
    return np.unique(np.fromiter((seq for one in ranges for seq in one), np.int64))


def _check_files(storage: Storage, table: DeltaTable | None) -> Iterator[str]:
    for file in data_files(table) if table else ():
        path = storage.path(TABLE, file.path)
        if not path.is_file():
            yield f"{path} is missing, but the table needs it: restore it from a copy."
        elif path.stat().st_size != file.size:
            yield (
                f"{path} has {path.stat().st_size} bytes where the table's log says {file.size}: restore it "
                "from a copy."
            )


def _read_rows(storage: Storage, table: DeltaTable | None, damages: list[str]) -> _Rows | None:
    if table is None:
        return _Rows()
    ids, seqs, known = [], [], []
    try:
        for batch in stream(storage, table, ["event_id", "commit_seq"]):
            event_ids = batch["event_id"].to_pylist()
            ids.append(digests_of(event_ids))
            known.append(digests_of(with_copies(event_ids)))
            seqs.append(batch["commit_seq"].to_numpy())
    except UserError as error:
        damages.append(
            f"{storage.path(TABLE)} cannot be read ({type(error.__cause__).__name__}): a file of it was "
            "altered; restore the folder from a copy."
        )
        return None
    if not ids:
        return _Rows()
    all_ids, all_seqs = np.concatenate(ids), np.concatenate(seqs)
    order = np.argsort(all_ids, kind="stable")
    return _Rows(all_ids[order], all_seqs[order], np.unique(np.concatenate(known)))


def _check_seqs(rows: _Rows, head: int, erased: np.ndarray) -> Iterator[str]:
    doubles = int((rows.ids[1:] == rows.ids[:-1]).sum())
    if doubles:
        yield f"{doubles} events are in the table more than once: restore the table from a copy."
    seqs, counts = np.unique(rows.seqs, return_counts=True)
    again = seqs[counts > 1]
    if len(again):
        yield f"{len(again)} commit_seq were given twice (the first is {again[0]}): restore from a copy."
    beyond = seqs[seqs > head]
    if len(beyond):
        yield f"{len(beyond)} rows lie beyond the head {head} that the table's transaction tells."
    missing = np.setdiff1d(np.arange(1, head + 1), np.union1d(seqs, erased), assume_unique=True)
    if len(missing):
        yield (
            f"{len(missing)} commit_seq up to {head} are missing (the first is {missing[0]}) though nobody "
            "was erased there: restore the table from a copy."
        )


def _check_index(storage: Storage, rows: _Rows, head: int, erased: int) -> Iterator[str]:
    folder = storage.path(IDS)
    cure = f"remove {folder}; the next commit makes it again from the table."
    runs, _ = covering_runs(folder, head)
    upto = runs[-1][1] if runs else 0
    try:
        parts = [np.load(path, allow_pickle=False) for _, _, path in runs]
    except (OSError, ValueError, EOFError):
        yield f"{folder} cannot be read, a file of it was altered: {cure}"
        return
    known = np.sort(np.concatenate(parts)) if parts else np.empty(0, "S16")
    unknown = int((~_contains(known, rows.ids[rows.seqs <= upto])).sum())
    if unknown:
        yield f"{folder} lacks {unknown} events of the table, which could be committed again: {cure}"
    foreign = int((~_contains(rows.known, known)).sum())
    erased *= 2  # a reply, and its copy: what was erased stays known, so that it cannot come back
    if foreign > erased:
        yield f"{folder} holds {foreign - erased} events that the table does not have: {cure}"


def _check_archive(storage: Storage, places: list[Inbox], rows: _Rows, damages: list[str]) -> int:
    """Adds to `damages`; returns how many events the archives hold."""
    rejected = _rejected(storage)
    count = 0
    for place in places:
        for segment in place.archived():
            (data,) = place.read_archived([segment.name])
            events, unreadable = read_lines(data)
            count += len(events)
            where = f"archive/{segment.name} of {place.address}"
            lost = int((~_contains(rows.known, digests_of([event.event_id for event in events]))).sum())
            if lost:
                damages.append(f"{where}: {lost} of its events are not in the table: {_RESTORE}.")
            for line, reason, raw in unreadable:
                if _hash(raw) not in rejected:
                    damages.append(f"{where}, line {line}: {reason}; it was altered, restore it from a copy.")
    return count


def _rejected(storage: Storage) -> set[bytes]:
    found = set()
    for path in storage.path(REJECTS).glob("*.jsonl"):
        found |= {_hash(json.loads(line)["raw"]) for line in path.read_bytes().splitlines()}
    return found


def _count_waiting(places: list[Inbox]) -> int:
    return sum(
        len(read_lines(data)[0])
        for place in places
        for segment in place.waiting()
        for data in place.read([segment.name])
    )


def _check_published(storage: Storage, head: int, damages: list[str]) -> int:
    """Hashes of what rounds published; each slice begins where the one before ended."""
    manifests = sorted(storage.path("rounds").glob(f"*/*/{MANIFEST}"))
    ends: int | None = 0
    for manifest in manifests:
        name = manifest.parent.relative_to(storage.root).as_posix()
        try:
            storage.verify(name)
            about = storage.manifest(name)
        except UserError as error:
            damages.append(str(error))
            about = None
        if manifest.parent.name != "collect":
            continue
        if about is None:
            ends = None  # nothing to compare the next one with
            continue
        if ends is not None and about["after_seq"] != ends:
            damages.append(
                f"{name} begins after commit_seq {about['after_seq']}, the round before ended at {ends}."
            )
        ends = int(about["upto_seq"])
        if ends > head:
            damages.append(
                f"{name} goes up to commit_seq {ends}, the table only to {head}: it is an old copy; restore "
                "a newer one."
            )
    return len(manifests)


def _contains(sorted_ids: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Boolean mask [len(ids)]."""
    if not len(sorted_ids):
        return np.zeros(len(ids), dtype=bool)
    place = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    found: np.ndarray = sorted_ids[place] == ids
    return found


def _hash(raw: str) -> bytes:
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest()
