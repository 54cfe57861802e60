"""The kernel's account: an acknowledgement leaves the process after its bytes were synced, never before."""

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

WRITER = """
import os, sys, threading
from pathlib import Path
from bb3x_ray.data.segments import SegmentWriter
from tests.data.make import talk
writer = SegmentWriter(Path(sys.argv[1]), "traced", seal_seconds=0.05, seal_bytes=4_000)
def work(n):
    for i in range(25):
        writer.append(talk(f"c{n}.{i}"))
        os.write(1, f"ACK c{n}.{i}-0 c{n}.{i}-1\\n".encode())
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
writer.close()
"""

_CALL = re.compile(r"^(?P<pid>\d+) +(?P<name>write|fdatasync|fsync)\(\d+<(?P<path>[^>]*)>(?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_ID = re.compile(r'\\"event_id\\": \\"([^\\]+)\\"')
_SEGMENT = re.compile(r"/inbox/\d{8}T\d+-traced-[0-9a-f]+\.open$")


@dataclass
class Trace:
    """Follows what was written to which segment, and what of it was synced.

    A sync makes durable what was written before it *began*, and counts when it has returned 0.
    """

    written: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    durable: set[str] = field(default_factory=set)
    syncs: int = 0
    acknowledged: list[str] = field(default_factory=list)
    too_early: list[str] = field(default_factory=list)
    _under_way: dict[str, tuple[str, set[str]]] = field(default_factory=dict)

    def line(self, line: str) -> None:
        if call := _CALL.match(line):
            about = self._begin(call["name"], call["path"], call["rest"])
            if "<unfinished ...>" in call["rest"]:
                self._under_way[call["pid"]] = about
            else:
                self._end(about, call["rest"])
        elif (end := _RESUMED.match(line)) and end["pid"] in self._under_way:
            self._end(self._under_way.pop(end["pid"]), end["rest"])

    def _begin(self, name: str, path: str, rest: str) -> tuple[str, set[str]]:
        if name == "write" and _SEGMENT.search(path):
            return f"write {path}", set(_ID.findall(rest))
        if name == "write" and '"ACK ' in rest:
            for event_id in rest.split('"ACK ')[1].split("\\n")[0].split():
                self.acknowledged.append(event_id)
                if event_id not in self.durable:
                    self.too_early.append(event_id)
        elif name != "write" and _SEGMENT.search(path):
            return "sync", set(self.written[path])
        return "", set()

    def _end(self, about: tuple[str, set[str]], rest: str) -> None:
        what, ids = about
        result = int(rest.rsplit("= ", 1)[1].split()[0])
        if what.startswith("write ") and result >= 0:
            self.written[what.removeprefix("write ")] |= ids
        elif what == "sync" and result == 0:
            self.durable |= ids
            self.syncs += 1


def test_every_acknowledgement_comes_after_the_sync_of_its_bytes(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("no strace (`make strace` installs it on Debian)")
    inbox, out = tmp_path / "inbox", tmp_path / "trace"
    # -y: paths of descriptors; -s: whole buffers
    follow = [strace, "-f", "-y", "-s", "1000000", "-e", "trace=write,fdatasync,fsync", "-o", str(out)]
    run = subprocess.run(
        [*follow, sys.executable, "-c", WRITER, str(inbox)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    if "Operation not permitted" in run.stderr:
        pytest.skip("tracing processes is not permitted here")
    assert run.returncode == 0, run.stderr
    trace = Trace()
    for line in out.read_text(encoding="utf-8", errors="replace").splitlines():
        trace.line(line)
    assert len(trace.acknowledged) == len(set(trace.acknowledged)) == 400
    assert trace.too_early == []
    assert 0 < trace.syncs < 200  # threads share them


def test_the_reader_of_traces_sees_an_acknowledgement_that_comes_too_early() -> None:
    path = "/inbox/20250131T101500123456-traced-5f0c.open"
    write = f'7 write(3<{path}>, "{{\\"event_id\\": \\"a\\"}}\\n", 16) = 16'
    acknowledge = '8 write(1<pipe:[1]>, "ACK a\\n", 6) = 6'
    begins, ends = f"7 fdatasync(3<{path}> <unfinished ...>", "7 <... fdatasync resumed>) = 0"
    cases = {
        "after": [write, f"7 fdatasync(3<{path}>) = 0", acknowledge],
        "without": [write, acknowledge],
        "during": [write, begins, acknowledge, ends],
        "failed": [write, f"7 fdatasync(3<{path}>) = -1 EIO (Input/output error)", acknowledge],
        "written later": [begins, write.replace("7 ", "9 ", 1), ends, acknowledge],
    }
    for name, lines in cases.items():
        trace = Trace()
        for line in lines:
            trace.line(line)
        assert trace.too_early == ([] if name == "after" else ["a"]), name
