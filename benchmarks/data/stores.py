"""The store that a deployment was ingested into: made once, read by every measure after `ingest`."""

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.data import arm

# Of a store, what an ingest leaves; everything else was made by a measure, which the next one must not find.
_LOG = {"interactions", "interactions_ids", "inbox", "archive", "rejects", "committer.lock"}


def ingested(folder: Path, root: Path) -> dict[str, Any]:
    """What the ingest of `folder` into `root` said; done here where `root` is not there or is not whole."""
    if not _note(root).exists():
        remove(root)
        remember(root, arm.run("benchmarks.data.ingest_ours", str(folder), str(root)).said)
    said: dict[str, Any] = json.loads(_note(root).read_text())
    return said


def remember(root: Path, said: dict[str, Any]) -> None:
    """The ingest into `root` came to its end. The note lies beside the store, not in it."""
    _note(root).write_text(json.dumps(said))


def utterances(said: dict[str, Any]) -> int:
    """Messages that an ingest took in: of its events those that are no thumbs."""
    return int(said["events_new"] - said["thumbs_up"] - said["thumbs_down"])


def tidy(root: Path) -> None:
    """Leave the log alone in `root`: rounds, models and the like that a measure made go."""
    for path in root.iterdir() if root.exists() else ():
        if path.name not in _LOG:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove(root: Path) -> None:
    _note(root).unlink(missing_ok=True)
    if root.exists():
        shutil.rmtree(root)


def _note(root: Path) -> Path:
    return root.with_name(f"{root.name}.json")
