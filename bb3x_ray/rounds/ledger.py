"""What is done, by one run at a time. A step is done when its manifest is there and the hashes match."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bb3x_ray.rounds.round import RoundPlan
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage, read_json, write_json


class Ledger:
    """The folders rounds/0001/<step>/ under the storage root."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def is_done(self, round_: str, step: str) -> bool:
        return self.storage.is_published(f"{round_}/{step}")

    def folder(self, round_: str, step: str) -> Path:
        """The step's folder, hashes verified."""
        return self.storage.verify(f"{round_}/{step}")

    @contextmanager
    def publish(
        self, round_: str, step: str, found: Mapping[str, Any] | None = None, /, **about: Any
    ) -> Iterator[Path]:
        """See `Storage.publish`."""
        with self.storage.publish(f"{round_}/{step}", found, step=step, **about) as folder:
            yield folder

    def plan(self, number: int, make: Callable[[], RoundPlan]) -> RoundPlan:
        """The plan of round `number`: as published, else made now and published."""
        round_ = f"rounds/{number:04d}"
        if not self.is_done(round_, "plan"):
            plan = make()
            with self.publish(round_, "plan") as folder:
                write_json(folder / "plan.json", asdict(plan))
        return RoundPlan(**read_json(self.folder(round_, "plan") / "plan.json"))


@contextmanager
def only_run(storage: Storage) -> Iterator[None]:
    """One run at a time on a storage root. Raises UserError while another one is under way."""
    storage.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(storage.path("run.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{storage.root}: another bb3x run works on this storage root; wait for it, or give another "
            "storage.root."
        ) from None
    try:
        yield
    finally:
        lock.release()
