"""One storage root. Things are published whole: written aside, hashed, manifest last, renamed.

A folder is *done* when its MANIFEST.json is there and every hash in it matches.
"""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bb3x_ray.schemas.errors import UserError

MANIFEST = "MANIFEST.json"


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    """Make a file, or the entries of a folder, survive a loss of power."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` in one step: a reader sees the old text or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with aside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    fsync_path(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not valid JSON (line {error.lineno}): restore it, or remove it."
        ) from None


class Storage:
    """The storage root: a folder today, on a shared volume when several nodes write to it."""

    def __init__(self, root: str | Path) -> None:
        if "://" in str(root):
            raise UserError(
                f"storage.root: {str(root).split('://')[0]}:// is not supported yet; "
                "give a folder (on a cluster: on a shared volume)."
            )
        self.root = Path(root).expanduser().resolve()

    def path(self, *parts: str) -> Path:
        """A path under the root. Raises ValueError for one that would leave it."""
        path = self.root.joinpath(*parts)
        if not path.resolve().is_relative_to(self.root):
            raise ValueError("a storage path must stay under the root")
        return path

    def is_published(self, name: str) -> bool:
        return (self.path(name) / MANIFEST).is_file()

    @contextmanager
    def publish(self, name: str, found: Mapping[str, Any] | None = None, /, **about: Any) -> Iterator[Path]:
        """Yield an empty folder to fill; publish it as `name` when the block ends without an error.

        `about` goes into the manifest, and so does `found`, as it is when the block ends. What is already
        published stays as it is: FileExistsError.
        """
        target = self.path(name)
        if self.is_published(name):
            raise FileExistsError(f"{target} is already published")
        aside = self.path("tmp", uuid.uuid4().hex)
        try:
            aside.mkdir(parents=True)
            yield aside
            self._seal(aside, {**about, **(found or {})})
            target.parent.mkdir(parents=True, exist_ok=True)
            if (
                target.exists()
            ):  # an empty or half-copied folder from outside; ours are never without manifest
                shutil.rmtree(target)
            os.replace(aside, target)
            fsync_path(target.parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"no space left under {self.root} while writing {name}: free some disk space and run the "
                    "same command again; nothing half-written was kept."
                ) from None
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder for the length of the block."""
        folder = self.path("tmp", uuid.uuid4().hex)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _seal(self, folder: Path, about: dict[str, Any]) -> None:
        files = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            fsync_path(path)
            files[path.relative_to(folder).as_posix()] = {
                "sha256": sha256_file(path),
                "bytes": path.stat().st_size,
            }
        write_json(folder / MANIFEST, {**about, "files": files})

    def manifest(self, name: str) -> dict[str, Any]:
        if not self.is_published(name):
            raise UserError(f"{self.path(name)} is not there or was never finished (no {MANIFEST}).")
        manifest: dict[str, Any] = read_json(self.path(name) / MANIFEST)
        return manifest

    def verify(self, name: str) -> Path:
        """The folder of `name`, after every file in its manifest was found unaltered."""
        folder = self.path(name)
        for file, expected in self.manifest(name)["files"].items():
            path = folder / file
            if not path.is_file():
                raise UserError(f"{path} is missing: {_cure(name)}.")
            if path.stat().st_size != expected["bytes"] or sha256_file(path) != expected["sha256"]:
                raise UserError(
                    f"{path} was altered after it was published (its hash differs from {MANIFEST}): "
                    f"{_cure(name)}."
                )
        return folder

    def redact(self, name: str, file: str, rewrite: Callable[[Path, Path], int], because: str) -> int:
        """Take something out of a file of what was published; returns what `rewrite(old, new)` returns.

        The manifest gets the new hash and keeps the old one under `redactions`. Nothing happens when
        `rewrite` returns 0. After a crash in between the file seems altered; doing it again mends that.
        """
        path, manifest = self.path(name) / file, self.manifest(name)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            removed = rewrite(path, aside)
            if removed:
                fsync_path(aside)
                entry = manifest["files"][file]
                old = {"file": file, "sha256": sha256_file(path), "removed": removed, "because": because}
                entry |= {"sha256": sha256_file(aside), "bytes": aside.stat().st_size}
                told = [r for r in manifest.get("redactions", []) if r["sha256"] != old["sha256"]]
                write_json(self.path(name) / MANIFEST, {**manifest, "redactions": [*told, old]})
                os.replace(aside, path)
                fsync_path(path.parent)
        finally:
            aside.unlink(missing_ok=True)
        return removed

    def discard(self, name: str) -> None:
        """Remove what was published as `name`, manifest first; nothing when it is not there."""
        (self.path(name) / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.path(name), ignore_errors=True)

    def clear_aside(self) -> None:
        """Remove what killed processes left unfinished. Only call while nothing else writes."""
        shutil.rmtree(self.path("tmp"), ignore_errors=True)


def _cure(name: str) -> str:
    """What helps against damage of something published as `name`."""
    if name.startswith("models/"):
        return "restore it from a copy, or import the model again"
    return "restore it from a copy, or remove that folder, so that the next run makes it anew"
