"""What could not be read, kept: one file under rejects/ for each path that was ingested."""

import hashlib
import json
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import IO

from bb3x_ray.storage import Storage, fsync_path

_FOLDER = "rejects"


class RejectFile:
    """JSON lines of line number, reason and raw text, written as they come.

    Reading a path again replaces its file, or removes it when nothing was rejected. When reading ends by an
    error that is no UserError, the file stays as it was.
    """

    def __init__(self, storage: Storage, path: Path, format: str) -> None:
        name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
        self._target = storage.path(_FOLDER, f"{format}-{name}.jsonl")
        for leftover in self._target.parent.glob(f".{self._target.name}.*"):
            leftover.unlink()  # of a reading that was killed
        self._aside = self._target.with_name(f".{self._target.name}.{uuid.uuid4().hex}")
        self._file: IO[str] | None = None

    def add(self, file: str, line: int, reason: str, raw: str) -> None:
        if self._file is None:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._aside.open("w", encoding="ascii")
        kept = {"file": file, "line": line, "reason": reason, "raw": raw}
        self._file.write(json.dumps(kept) + "\n")

    def keep(self) -> None:
        """Publish what was added."""
        if self._file is None:
            self._target.unlink(missing_ok=True)
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._aside, self._target)
        fsync_path(self._target.parent)
        self._file = None

    def __enter__(self) -> "RejectFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._aside.unlink(missing_ok=True)
