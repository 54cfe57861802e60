"""One run of one arm, in a process of its own: its seconds, and what all its processes together took."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EVERY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Measured:
    """cpu_seconds  of all processes, to a quarter of a second each; what else runs hardly matters to it
    peak_bytes   the highest sum of proportional set sizes: what processes share counts once
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    said: dict[str, Any]


def run(module: str, *arguments: str) -> Measured:
    """`python -m MODULE ARGUMENTS…`, which prints its `seconds`, and what else it has to say, as JSON."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=out, env=_environment())
        watch = _Watch(process.pid)
        watch.start()
        code = process.wait()
        watch.stop()
        out.seek(0)
        lines = out.read().splitlines()
    if code or not lines:
        raise SystemExit(f"bench-data: {module} failed ({code})")
    said = json.loads(lines[-1])
    return Measured(said["seconds"], sum(watch.cpu.values()), watch.peak, said)


def _environment() -> dict[str, str]:
    return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class _Watch:
    """Looks at a process and all its descendants now and then."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak = 0
        self.cpu: dict[int, float] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.is_set():
            family = _family(self._pid)
            self.cpu |= family
            self.peak = max(self.peak, sum(map(_pss, family)))
            self._done.wait(_EVERY_SECONDS)


def _family(pid: int) -> dict[int, float]:
    """The process and all below it -> the CPU seconds that each has had."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            fields = stat.rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            seconds[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    family, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    return {one: seconds[one] for one in family if one in seconds}


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # it ended meanwhile
        pass
    return 0


def report(seconds: float, **said: Any) -> None:
    """What an arm says when it is done."""
    sys.stdout.write(json.dumps({"seconds": seconds, **said}) + "\n")


def timer() -> float:
    return time.perf_counter()
