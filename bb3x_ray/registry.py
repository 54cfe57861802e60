"""Immutable versions v0001… and the aliases champion, challenger and previous. The only writer of aliases.

The champion moves by exactly three moves (law 8), each by compare-and-swap under a file lock:

    Bootstrap(version)             there is no champion yet
    Promotion(verdict, canary)     the verdict is of that very candidate and passed; where people talked to it
                                   as a canary, so did that
    Rollback(reason)               back to `previous`

The challenger is the candidate of a canary: it comes by `Trial(verdict)`, and goes by its Promotion or by a
Rollback. What was rolled back is in quarantine, and neither becomes champion nor challenger again.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from bb3x_ray.schemas.canary import Canary
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.storage import Storage, read_json, write_json
from bb3x_ray.version_files import check_tokenizer, check_version_files


@dataclass(frozen=True, slots=True)
class Bootstrap:
    version: str


@dataclass(frozen=True, slots=True)
class Promotion:
    """canary: what people thought of it, where they were asked; None where no canary was configured."""

    verdict: Verdict
    canary: Canary | None = None


@dataclass(frozen=True, slots=True)
class Rollback:
    """evidence: numbers that led to it, for the quarantine."""

    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """Some people talk to the verdict's candidate from now on."""

    verdict: Verdict


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
        """The version's folder, every hash verified, of an adapter's base as well; all shards are there, and
        its own tokenizer.

        Raises UserError naming what is wrong (law 9).
        """
        folder = self.storage.verify(f"{self.kind}/{version}")
        check_version_files(folder)
        self._check_tokenizer(version)
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
        about = self._alias(name)
        return None if about is None else str(about["version"])

    @property
    def champion(self) -> str:
        version = self.alias("champion")
        if version is None:
            raise UserError("there is no champion yet: `bb3x models import smollm2` makes the first version.")
        return version

    @property
    def challenger(self) -> str | None:
        """The candidate of the canary that is under way."""
        about = self._alias("challenger")
        if about is None:
            return None
        # What a move that was killed half-way left there is no challenger.
        ended = about["against"] != self.alias("champion") or self.is_quarantined(about["version"])
        return None if ended else str(about["version"])

    def history(self) -> list[dict[str, Any]]:
        path = self._alias_path("history")
        return list(read_json(path)) if path.is_file() else []

    def move_champion(self, move: Move, *, expected: str | None) -> str:
        """Carry out a move if the champion still is `expected`; returns the champion after it.

        Moving twice by the same promotion is moving once, so that a resumed round may repeat it.
        Raises UserError when somebody else moved the champion meanwhile, and for a version in quarantine.
        """
        with self._lock():
            current = self.alias("champion")
            if isinstance(move, Promotion) and current == move.verdict.candidate:
                self._end_trial()  # a promotion that was killed half-way
                return current
            target = self._target(move)
            if current != expected:
                raise UserError(
                    f"the champion is {current}, not {expected}: it moved meanwhile; run the command again."
                )
            if not self.is_published(target):
                raise UserError(f"{self.kind}/{target} is not published, so it cannot become champion.")
            self._refuse_quarantined(target)
            record = {"version": target, "at": time.time(), "by": type(move).__name__, "from": current}
            if isinstance(move, Rollback):
                record["reason"] = move.reason
                assert current is not None
                self._quarantine(current, move)
            elif isinstance(move, Promotion) and move.canary is not None:
                record["canary"] = move.canary.words
            history = [*self.history(), record]
            write_json(self._alias_path("history"), history)
            self._set_alias("previous", self._before(history))
            write_json(self._alias_path("champion"), record)
            self._end_trial()  # whoever is the challenger was compared with another champion
        return target

    def move_challenger(self, move: Trial | Rollback, *, expected: str | None) -> str | None:
        """Begin or end a canary if the challenger still is `expected`; returns the challenger after it.

        A rollback puts the challenger into quarantine. Moving twice is moving once. Raises UserError when
        somebody else moved meanwhile, and for a candidate that is in quarantine or whose verdict was about
        another champion; ValueError for one that was rejected.
        """
        with self._lock():
            if isinstance(move, Trial):
                self._begin_trial(move.verdict, expected)
                return move.verdict.candidate
            current = self.alias("challenger")
            if current is None and expected is not None and self.is_quarantined(expected):
                return None  # done already
            if current is None or current != expected:
                raise UserError(
                    f"the challenger is {current}, not {expected}: it moved meanwhile; run the command again."
                )
            self._quarantine(current, move)
            self._end_trial()
        return None

    # Quarantine

    def is_quarantined(self, version: str) -> bool:
        return self._quarantine_path(version).is_file()

    def quarantine(self, version: str) -> dict[str, Any]:
        """Why a version is in quarantine: reason, evidence, and the round whose talk it learned from."""
        found: dict[str, Any] = read_json(self._quarantine_path(version))
        return found

    def quarantined(self) -> list[str]:
        return sorted(path.stem for path in self._quarantine_path("v").parent.glob("v*.json"))

    def quarantined_rounds(self) -> set[int]:
        """Rounds whose talk taught a version that is in quarantine."""
        numbers = (self.quarantine(version)["round"] for version in self.quarantined())
        return {int(number) for number in numbers if number is not None}

    def _quarantine(self, version: str, move: Rollback) -> None:
        if self.is_quarantined(version):
            return
        lineage = self.lineage(version)
        number = lineage.get("round")
        about = {
            "version": version,
            "at": time.time(),
            "reason": move.reason,
            "evidence": dict(move.evidence),
            "parent": lineage.get("parent"),
            "round": number,
            "slice": None if number is None else f"rounds/{number:04d}/collect",
        }
        write_json(self._quarantine_path(version), about)

    def _refuse_quarantined(self, version: str) -> None:
        if self.is_quarantined(version):
            raise UserError(
                f"{self.kind}/{version} is in quarantine ({self.quarantine(version)['reason']}): it can be "
                f"neither champion nor challenger; {self._quarantine_path(version)} says more."
            )

    def _quarantine_path(self, version: str) -> Path:
        return self.storage.path(self.kind, "quarantine", f"{version}.json")

    # Parts of moves, under the lock

    def _begin_trial(self, verdict: Verdict, expected: str | None) -> None:
        candidate, champion, current = verdict.candidate, self.alias("champion"), self.challenger
        if not verdict.passed:
            raise ValueError(f"{candidate} was rejected and cannot be tried on people")
        self._refuse_quarantined(candidate)
        if current == candidate:
            return
        if current != expected:
            raise UserError(
                f"the challenger is {current}, not {expected}: a canary of it is under way; wait for its end."
            )
        if champion != verdict.champion:
            raise UserError(
                f"the champion is {champion}, and {candidate} was judged against {verdict.champion}."
            )
        if not self.is_published(candidate):
            raise UserError(f"{self.kind}/{candidate} is not published, so it cannot become challenger.")
        record = {"version": candidate, "at": time.time(), "against": champion}
        write_json(self._alias_path("challenger"), record)

    def _end_trial(self) -> None:
        self._set_alias("challenger", None)

    def _before(self, history: list[dict[str, Any]]) -> str | None:
        """The version that a rollback returns to: promotions stack up, a rollback takes them off again."""
        stack: list[str] = []
        for move in history:
            while move["by"] == Rollback.__name__ and stack and stack[-1] != move["version"]:
                stack.pop()
            if not stack or stack[-1] != move["version"]:
                stack.append(move["version"])
        below = [version for version in stack[:-1] if not self.is_quarantined(version)]
        return below[-1] if below else None

    def _set_alias(self, name: str, version: str | None) -> None:
        if version is None:
            self._alias_path(name).unlink(missing_ok=True)
        else:
            write_json(self._alias_path(name), {"version": version})

    def _target(self, move: Move) -> str:
        if isinstance(move, Bootstrap):
            if self.alias("champion") is not None:
                raise UserError("there is a champion already; only a promotion or a rollback moves it.")
            return move.version
        if isinstance(move, Promotion):
            return self._promoted(move)
        previous = self.alias("previous")
        if previous is None:
            raise UserError("there is no previous version to roll back to.")
        return previous

    def _promoted(self, move: Promotion) -> str:
        candidate, canary = move.verdict.candidate, move.canary
        if not move.verdict.passed:
            raise ValueError(f"{candidate} was rejected and cannot be promoted")
        if canary is not None and (canary.candidate != candidate or canary.decision != "promote"):
            raise ValueError(f"the canary of {canary.candidate} does not promote {candidate}")
        if canary is None and self.challenger == candidate:
            raise UserError(f"a canary of {candidate} is under way: people's thumbs promote it, or do not.")
        return candidate

    def _check_tokenizer(self, version: str) -> None:
        """A version that was trained has its parent's tokenizer, byte for byte."""
        path = self._folder() / version / "lineage.json"
        parent = read_json(path).get("parent") if path.is_file() else None
        if isinstance(parent, str) and self.is_published(parent):
            names = (f"{self.kind}/{version}", f"{self.kind}/{parent}")
            check_tokenizer(*((name, self.storage.manifest(name)["files"]) for name in names))

    def _folder(self) -> Path:
        return self.storage.path(self.kind)

    def _alias(self, name: str) -> dict[str, Any] | None:
        """None where there is none, also where it is taken away in this moment: who reads holds no lock."""
        try:
            about: dict[str, Any] = read_json(self._alias_path(name))
        except FileNotFoundError:
            return None
        return about

    def _alias_path(self, name: str) -> Path:
        return self.storage.path(self.kind, "aliases", f"{name}.json")

    def _lock(self) -> FileLock:
        self._folder().mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder() / ".lock")
