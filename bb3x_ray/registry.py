"""Immutable versions v0001… and the aliases champion and previous. The only writer of aliases.

The champion moves by exactly three moves (law 8), each by compare-and-swap under a file lock:

    Bootstrap(version)                       there is no champion yet
    Promotion(verdict)                       the verdict is of that very candidate and passed
    Rollback(reason)                         back to `previous`
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.storage import Storage, read_json, write_json


@dataclass(frozen=True, slots=True)
class Bootstrap:
    version: str


@dataclass(frozen=True, slots=True)
class Promotion:
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Rollback:
    reason: str


Move = Bootstrap | Promotion | Rollback

ADAPTER_CONFIG = "adapter_config.json"  # peft's name


def base_of(folder: Path) -> str | None:
    """The version that a folder with an adapter only stands on; None for one with whole weights."""
    about = folder / ADAPTER_CONFIG
    return str(read_json(about)["base_model_name_or_path"]) if about.is_file() else None


class Registry:
    """Versions of one kind: `models`, `rewards` or `judges` under the storage root."""

    def __init__(self, storage: Storage, kind: str = "models") -> None:
        self.storage = storage
        self.kind = kind

    def reserve(self) -> str:
        """Take the next number. A number is used once, also when its version is never published."""
        with self._lock():
            counter = self._folder() / "next.json"
            number = read_json(counter)["next"] if counter.is_file() else 1
            # Rounds before 0.4 published reward models without taking a number.
            number = max(number, *(int(version[1:]) + 1 for version in self.versions()), 1)
            write_json(counter, {"next": number + 1})
        return f"v{number:04d}"

    @contextmanager
    def publish(self, version: str, lineage: dict[str, Any], card: str) -> Iterator[Path]:
        """Yield the folder to fill with weights; adds lineage.json and README.md, manifest last.

        The lineage of an adapter names its base, which has to be a published version.
        """
        with self.storage.publish(f"{self.kind}/{version}", kind=self.kind, version=version) as folder:
            yield folder
            base = base_of(folder)
            if base is not None and not self.is_published(base):
                raise ValueError(f"{version} is an adapter on {base}, which is not published")
            on = {} if base is None else {"base": base}
            write_json(folder / "lineage.json", {"version": version, **lineage, **on})
            (folder / "README.md").write_text(card, encoding="utf-8")

    def is_published(self, version: str) -> bool:
        return self.storage.is_published(f"{self.kind}/{version}")

    def folder(self, version: str) -> Path:
        """The version's folder, every hash verified, of an adapter's base as well.

        Raises UserError naming what is wrong (law 9).
        """
        folder = self.storage.verify(f"{self.kind}/{version}")
        base = base_of(folder)
        if base is not None:
            try:
                self.folder(base)
            except UserError as error:
                raise UserError(
                    f"{self.kind}/{version} is an adapter on {base}, which cannot be used: {error}"
                ) from None
        return folder

    def lineage(self, version: str) -> dict[str, Any]:
        lineage: dict[str, Any] = read_json(self._folder() / version / "lineage.json")
        return lineage

    def versions(self) -> list[str]:
        if not self._folder().is_dir():
            return []
        return sorted(p.name for p in self._folder().iterdir() if self.is_published(p.name))

    def alias(self, name: str) -> str | None:
        path = self._alias_path(name)
        return str(read_json(path)["version"]) if path.is_file() else None

    @property
    def champion(self) -> str:
        version = self.alias("champion")
        if version is None:
            raise UserError("there is no champion yet: `bb3x models import smollm2` makes the first version.")
        return version

    def history(self) -> list[dict[str, Any]]:
        path = self._alias_path("history")
        return list(read_json(path)) if path.is_file() else []

    def move_champion(self, move: Move, *, expected: str | None) -> str:
        """Carry out a move if the champion still is `expected`; returns the champion after it.

        Moving twice by the same promotion is moving once, so that a resumed round may repeat it.
        Raises UserError when somebody else moved the champion meanwhile.
        """
        with self._lock():
            current = self.alias("champion")
            target = self._target(move)
            if isinstance(move, Promotion) and current == target:
                return target
            if current != expected:
                raise UserError(
                    f"the champion is {current}, not {expected}: it moved meanwhile; run the command again."
                )
            if not self.is_published(target):
                raise UserError(f"{self.kind}/{target} is not published, so it cannot become champion.")
            record = {"version": target, "at": time.time(), "by": type(move).__name__, "from": current}
            if isinstance(move, Rollback):
                record["reason"] = move.reason
            write_json(self._alias_path("history"), [*self.history(), record])
            if current is not None:
                write_json(self._alias_path("previous"), {"version": current})
            write_json(self._alias_path("champion"), record)
        return target

    def _target(self, move: Move) -> str:
        if isinstance(move, Bootstrap):
            if self.alias("champion") is not None:
                raise UserError("there is a champion already; only a promotion or a rollback moves it.")
            return move.version
        if isinstance(move, Promotion):
            if not move.verdict.passed:
                raise ValueError(f"{move.verdict.candidate} was rejected and cannot be promoted")
            return move.verdict.candidate
        previous = self.alias("previous")
        if previous is None:
            raise UserError("there is no previous version to roll back to.")
        return previous

    def _folder(self) -> Path:
        return self.storage.path(self.kind)

    def _alias_path(self, name: str) -> Path:
        return self.storage.path(self.kind, "aliases", f"{name}.json")

    def _lock(self) -> FileLock:
        self._folder().mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder() / ".lock")
