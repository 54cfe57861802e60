"""One run of one arm, in a process of its own: its seconds, and what all its processes together took."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

_OBJECT_STORE_BYTES = 800_000_000
_EVERY_SECONDS = 1.0  # reading how much memory is shared takes the kernel a while
LIMIT_SECONDS = 1200.0  # an arm at full size takes one or two minutes, the slowest should take five


@dataclass(frozen=True, slots=True)
class Measured:
    """cpu_seconds  of all processes, to half a second each; what else runs hardly matters to it
    peak_bytes   the highest sum of proportional set sizes: what processes share counts once
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    said: dict[str, Any]


class ArmFailed(Exception):
    """An arm ended with an error, said nothing, or took too long."""


def run(module: str, *arguments: str, limit_seconds: float = LIMIT_SECONDS) -> Measured:
    """`python -m MODULE ARGUMENTS…`, which prints its `seconds`, and what else it has to say, as JSON.

    Raises ArmFailed; after `limit_seconds` the arm and all below it are killed.
    """
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=out, env=_environment())
        watch = _Watch(process.pid)
        watch.start()
        try:
            code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise ArmFailed(f"{module} took more than {limit_seconds:.0f} s") from None
        except BaseException:
            _kill(process)
            raise
        finally:
            watch.stop()
        out.seek(0)
        lines = out.read().splitlines()
    if code or not lines:
        raise ArmFailed(f"{module} failed ({code})")
    said = json.loads(lines[-1])
    return Measured(said["seconds"], sum(watch.cpu.values()), watch.peak, said)


T = TypeVar("T")


def watched(call: Callable[[], T]) -> tuple[T, Measured]:
    """What `call` returns, and what this process and all below it took meanwhile."""
    before = _family(os.getpid())
    watch = _Watch(os.getpid(), every_seconds=_EVERY_SECONDS * 4)  # an arm's own looks closer
    watch.start()
    began = timer()
    try:
        value = call()
    finally:
        watch.stop()
    cpu = sum(seconds - before.get(pid, 0.0) for pid, seconds in watch.cpu.items())
    return value, Measured(timer() - began, cpu, watch.peak, {})


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """The arm and everything that it started."""
    for pid in _family(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class _Watch:
    """Looks at a process and all its descendants now and then."""

    def __init__(self, pid: int, every_seconds: float = _EVERY_SECONDS) -> None:
        self._pid, self._every_seconds = pid, every_seconds
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
            self._done.wait(self._every_seconds)


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


def start_ray() -> None:
    """Ray on this machine's cores, for an arm that needs it."""
    import ray

    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def report(seconds: float, **said: Any) -> None:
    """What an arm says when it is done."""
    sys.stdout.write(json.dumps({"seconds": seconds, **said}) + "\n")


def timer() -> float:
    return time.perf_counter()
