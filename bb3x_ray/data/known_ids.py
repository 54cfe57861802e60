"""Which event ids the log already holds: a bounded index beside the table.

Reading all ids of the table at every commit would cost (commits × events). Here a commit adds one
sorted run of 16-byte digests, and runs are merged when the newer is as long as the older: never
more than about log2(events) runs, looked up by binary search in memory-mapped files, so that n events
cost n · log n altogether. A run's name says which commit_seq it covers; what a crash left uncovered is
read from the table again, so the index can be deleted at any time.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bb3x_ray.data.parsed_rows import digests_of
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import fsync_path

# Event ids with commit_seq above the number given, in any order.
ReadIds = Callable[[int], Iterable[str]]


# First and last commit_seq that a run covers, and its file.
Run = tuple[int, int, Path]
# Event ids, or their digests.
Ids = Sequence[str] | np.ndarray


def _digests(ids: Ids) -> np.ndarray:
    return ids if isinstance(ids, np.ndarray) else digests_of(ids)


def _load(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Raises UserError for a damaged run."""
    try:
        run: np.ndarray = np.load(path, mmap_mode=mmap_mode)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} is damaged: remove the folder {path.parent.name}/, which is made anew from the table."
        ) from error
    return run


def covering_runs(folder: Path, head: int) -> tuple[list[Run], list[Path]]:
    """Runs that cover (0, upto] without gap, upto ≤ head; and files that cover nothing beside them."""
    found: list[Run] = []
    for path in folder.glob("[0-9]*.npy"):
        of_first, _, of_last = path.stem.partition("-")
        found.append((int(of_first), int(of_last), path))
    found.sort(key=lambda run: (run[0], -run[1]))
    runs: list[Run] = []
    leftovers = []
    for run in found:
        if run[0] == (runs[-1][1] if runs else 0) + 1 and run[1] <= head:
            runs.append(run)
        else:
            leftovers.append(run[2])
    return runs, leftovers


class KnownIds:
    """Opened under the committer's lease only. `head` is the table's last commit_seq."""

    def __init__(self, folder: Path, head: int, read_ids: ReadIds) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._runs = self._covering_runs(head)
        if self.upto < head:
            self._add_run(list(read_ids(self.upto)), head)

    @property
    def upto(self) -> int:
        return self._runs[-1][1] if self._runs else 0

    def new(self, ids: Ids) -> np.ndarray:
        """Boolean mask [N]: ids that the log does not hold, and that do not come earlier in `ids`."""
        # Sorted, so that neighbours are looked up in neighbouring pages of a run.
        digests, first = np.unique(_digests(ids), return_index=True)
        unknown = np.ones(len(digests), dtype=bool)
        for _, _, path in self._runs:
            run = _load(path, "r")
            if len(run) and len(digests):
                place = np.minimum(np.searchsorted(run, digests), len(run) - 1)
                unknown &= run[place] != digests
        new = np.zeros(len(ids), dtype=bool)
        new[first[unknown]] = True
        return new

    def add(self, ids: Ids, head: int) -> None:
        """Remember ids that were committed as (upto, head]."""
        self._add_run(ids, head)

    def _covering_runs(self, head: int) -> list[Run]:
        runs, leftovers = covering_runs(self._folder, head)
        for path in [*leftovers, *self._folder.glob(".*")]:
            path.unlink()
        return runs

    def _add_run(self, ids: Ids, head: int) -> None:
        if head <= self.upto:
            return
        first, run = self.upto + 1, np.sort(_digests(ids))
        merged = []
        while self._runs and self._runs[-1][1] - self._runs[-1][0] <= head - first:
            first, _, path = self._runs.pop()
            run = np.sort(np.concatenate([_load(path), run]), kind="stable")  # two sorted runs: a merge
            merged.append(path)
        path = self._folder / f"{first:015d}-{head:015d}.npy"
        aside = self._folder / f".{uuid.uuid4().hex}"
        with aside.open("wb") as file:
            np.save(file, run, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        fsync_path(self._folder)
        for old in merged:
            old.unlink()
        self._runs.append((first, head, path))
