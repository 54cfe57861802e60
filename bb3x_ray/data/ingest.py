"""Recorded talk into the interaction log, past the segments: few Delta commits for many events.

Files are cut into blocks; each is parsed into a table of events, here or by tasks of Ray Data; this process
takes the tables in the order of the files, drops what the log holds already, and commits. Each commit takes
the committer's lease for itself, so replicas' events go on coming in between. Killed anywhere and run again,
it goes through the same events in the same order, and adds those that are missing.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.committer import committing
from bb3x_ray.data.file_blocks import Block
from bb3x_ray.data.parse import About, cut, parse_block
from bb3x_ray.data.reject_file import RejectFile
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage

# One process takes in about 70 MB/s; Ray needs 10 seconds and twice as many of the processor to start, and
# moving tables between processes costs half as much again as parsing them. So it pays for large inputs on
# more cores than the parser and the writer of commits keep busy by themselves.
SMALL_BYTES = 1_000_000_000
_FEW_CORES = 2
_PACKED = 6  # how much larger a .gz is unpacked, about
_COMMIT_BYTES = 128_000_000
_SHOWN = 1000  # rejected entries that a report holds; the file under rejects/ holds all


@dataclass(frozen=True, slots=True)
class IngestReport:
    """`conversations` and thumbs are those of the files; `rejected` holds the first (line, reason), of
    `left_out` in all. Of several files, the reason begins with the file's name."""

    events_new: int
    duplicates: int
    conversations: int
    thumbs_up: int
    thumbs_down: int
    rejected: list[tuple[int, str]]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is: bytes of the files, events read, entries left out."""

    done: int
    total: int
    events: int
    left_out: int


OnProgress = Callable[[Progress], None]


def is_large(path: str | Path, format: str) -> bool:
    """Whether reading it here is worth the start of Ray. Raises UserError when there is nothing to read."""
    return _is_large(cut(Path(path), format)[1])


def ingest(
    storage: Storage,
    path: str | Path,
    format: str,
    *,
    strict: bool = False,
    on_progress: OnProgress | None = None,
    by_tasks: bool | None = None,
) -> IngestReport:
    """Take a file, or all files of a folder, into the log; what the log already holds is not added again.

    Damaged entries are reported with line and reason and kept under rejects/; the good ones count. With
    `strict`, the first one ends it. `by_tasks` has it parsed by the Ray that is running, or by one that is
    started for it; None leaves that to the input's size and the machine. Raises UserError for an unknown
    format, for a file that is missing, empty, or without one good entry, and with `strict` for the first bad
    one.
    """
    path = Path(path)
    files, blocks = cut(path, format)
    with RejectFile(storage, path, format) as rejects:
        run = _Run(storage, files, sum(block.size for block in blocks), rejects, strict, on_progress)
        try:
            with run:
                for table in _tables(blocks, _is_large(blocks) if by_tasks is None else by_tasks):
                    run.take(table)
                run.commit()
        except UserError:
            rejects.keep()
            raise
        rejects.keep()
    if not run.events:
        raise UserError(
            f"{path}: not one entry could be read as {format} "
            f"({_first_reasons(run.rejected)}): check the format and the file."
        )
    return IngestReport(
        events_new=run.new,
        duplicates=run.events - run.new,
        conversations=run.conversations,
        thumbs_up=run.thumbs_up,
        thumbs_down=run.thumbs_down,
        rejected=run.rejected,
        left_out=run.left_out,
    )


def _tables(blocks: Sequence[Block], by_tasks: bool) -> Iterator[pa.Table]:
    if not by_tasks:
        return (table for block in blocks for table in parse_block(block))
    from bb3x_ray.data import on_ray  # only where it is needed: importing Ray takes seconds

    return on_ray.parse_blocks(blocks)


def _is_large(blocks: Iterable[Block]) -> bool:
    size = sum(block.size * (_PACKED if block.path.endswith(".gz") else 1) for block in blocks)
    return size >= SMALL_BYTES and (os.cpu_count() or 1) > _FEW_CORES


@dataclass(slots=True)
class _Run:
    """The tables of one ingest, on their way into the log; a commit is written while more are read."""

    storage: Storage
    files: list[Path]
    total: int
    reject_file: RejectFile
    strict: bool
    on_progress: OnProgress | None
    new: int = 0
    events: int = 0
    conversations: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    done: int = 0
    left_out: int = 0
    rejected: list[tuple[int, str]] = field(default_factory=list)
    _waiting: list[pa.Table] = field(default_factory=list)
    _waiting_bytes: int = 0
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _written: Future[int] | None = None
    _lines: tuple[int, int] = (0, 0)  # file, and how many of its lines earlier blocks held

    def take(self, table: pa.Table) -> None:
        """The next table, in the order of the files."""
        begin = 0
        for end in [*pc.indices_nonzero(pc.is_valid(table["about"])).to_pylist(), len(table)]:
            if end > begin:
                events = table.slice(begin, end - begin)  # no copy: it stays where Ray or the parser put it
                self.events += len(events)
                self._waiting.append(events)
                self._waiting_bytes += events.nbytes
            begin = end + 1
        for text in table["about"].drop_null().to_pylist():
            self._tell(About.from_json(text))
        if self._waiting_bytes >= _COMMIT_BYTES:
            self.commit()
        if self.on_progress:
            self.on_progress(Progress(self.done, self.total, self.events, self.left_out))

    def commit(self) -> None:
        """Everything that was taken and is new goes into the log, as one commit, after the one before it."""
        self._wait()
        if self._waiting:
            self._written = self._writer.submit(self._append, self._waiting)
            self._waiting, self._waiting_bytes = [], 0

    def _append(self, tables: list[pa.Table]) -> int:
        with committing(self.storage) as log:
            return log.append_rows(pa.concat_tables(tables).drop_columns("about"))

    def _wait(self) -> None:
        """Until the commit under way is written. Raises what it raised."""
        if self._written is not None:
            written, self._written = self._written, None
            self.new += written.result()

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wait()
        finally:
            self._writer.shutdown()

    def _tell(self, about: About) -> None:
        self.done += about.bytes
        self.conversations += about.conversations
        self.thumbs_up += about.thumbs_up
        self.thumbs_down += about.thumbs_down
        before = self._lines[1] if self._lines[0] == about.file else 0
        self._lines = about.file, before + about.lines
        for line, reason, raw in about.rejects:
            self._reject(self.files[about.file], before + line, reason, raw)

    def _reject(self, file: Path, line: int, reason: str, raw: str) -> None:
        self.left_out += 1
        self.reject_file.add(str(file), line, reason, raw)
        if len(self.rejected) < _SHOWN:
            self.rejected.append((line, reason if len(self.files) == 1 else f"{file.name}: {reason}"))
        if self.strict:
            raise UserError(
                f"{file}, line {line}: {reason}. Nothing after it was taken in; mend the line, or leave "
                "--strict away to go past it. Running it again adds nothing twice."
            )


def _first_reasons(rejected: list[tuple[int, str]]) -> str:
    return "; ".join(f"line {line}: {reason}" for line, reason in rejected[:3]) or "it holds no entries"
