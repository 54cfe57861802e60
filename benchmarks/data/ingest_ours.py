"""Our ingest of the release's files: `python -m benchmarks.data.ingest_ours FOLDER ROOT [tasks]`. Ray's start
counts."""

import sys
from dataclasses import asdict

from benchmarks.data.arm import report, timer


def main(folder: str, root: str, how: str = "") -> None:
    began = timer()
    from bb3x_ray.data.ingest import ingest
    from bb3x_ray.storage import Storage

    started = timer() - began
    done = ingest(Storage(root), folder, "bb3", by_tasks=True if how == "tasks" else None)
    seconds = timer() - began
    said = {key: value for key, value in asdict(done).items() if key != "rejected"}
    report(seconds, start_seconds=started, **said)


if __name__ == "__main__":
    main(*sys.argv[1:])
