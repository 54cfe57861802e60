"""What is scored already, on disk: part files that a run killed in the middle goes on with.

    <folder>/<stamp>/parts.json                        into how many pieces each group is cut
    <folder>/<stamp>/000012-0003.<sha256>.parquet      piece 3 of group 12

A part gets its name by a rename, once it is whole; the name holds its hash. The stamp is a digest of all that
scores depend on (model, settings, inputs), so parts of another reward version lie elsewhere, and no part is
taken whose own stamp or hash differs.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bb3x_ray.storage import read_json, sha256_file, write_atomic, write_json

_NAME = re.compile(r"(\d+)-(\d+)\.([0-9a-f]{64})\.parquet")
_STAMP = b"bb3x.stamp"
ABOUT = "parts.json"


@dataclass(frozen=True, slots=True)
class Resume:
    """Where parts are kept, and what names their inputs.

    folder   every node that scores must reach it. It holds ids and scores, no texts; whoever gave it removes
             it once the scores are published
    inputs   a digest of what is scored: with another one nothing is taken over
    """

    folder: Path
    inputs: str


def stamp_of(model: Path, **settings: Any) -> str:
    """A digest of every file of a model's folder and of settings."""
    files = sorted(path for path in model.rglob("*") if path.is_file())
    told = [f"{path.relative_to(model).as_posix()} {sha256_file(path)}" for path in files]
    told += [f"{name}={settings[name]!r}" for name in sorted(settings)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of one stamp. `pieces` as the first run cut groups, whatever a later one would.

    found   (group, piece) -> whole parts that were there when this was opened
    """

    folder: Path
    stamp: str
    pieces: int
    found: dict[tuple[int, int], Path] = field(default_factory=dict)

    @classmethod
    def open(cls, resume: Resume, stamp: str, pieces: int) -> "Parts":
        """Looks through what is there: damaged parts and those of other stamps are removed."""
        stamp = hashlib.sha256(f"{stamp} {resume.inputs}".encode()).hexdigest()
        folder = resume.folder / stamp[:32]
        folder.mkdir(parents=True, exist_ok=True)
        for other in resume.folder.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other)
        if (folder / ABOUT).is_file():
            pieces = int(read_json(folder / ABOUT)["pieces"])
        else:
            write_json(folder / ABOUT, {"pieces": pieces, "stamp": stamp})
        parts = cls(folder, stamp, pieces)
        parts.found.update(parts._whole(folder.iterdir()))
        return parts

    def _whole(self, paths: Iterable[Path]) -> dict[tuple[int, int], Path]:
        whole: dict[tuple[int, int], Path] = {}
        for path in sorted(paths):
            name = _NAME.fullmatch(path.name)
            if name is None:
                if path.name != ABOUT:
                    path.unlink()  # what was not renamed when its process was killed
            elif (
                sha256_file(path) != name[3]
                or pq.read_schema(path).metadata.get(_STAMP) != self.stamp.encode()
            ):
                path.unlink()
            else:
                whole.setdefault((int(name[1]), int(name[2])), path)
        return whole

    def publish(self, group: int, piece: int, scored: pa.Table) -> None:
        """Keep a piece, unless it is there: a task that Ray repeats, its actor having died too late."""
        if any(self.folder.glob(f"{group:06d}-{piece:04d}.*.parquet")):
            return
        sink = pa.BufferOutputStream()
        pq.write_table(scored.replace_schema_metadata({_STAMP: self.stamp}), sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        digest = hashlib.sha256(content).hexdigest()
        write_atomic(self.folder / f"{group:06d}-{piece:04d}.{digest}.parquet", content)

    def read(self, group: int, piece: int) -> pa.Table:
        return pq.read_table(self.found[group, piece], partitioning=None).replace_schema_metadata(None)
