"""A block of a file becomes a table of events. Pure: runs in this process, or as a task of Ray Data."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.file_blocks import (
    BLOCK_BYTES,
    LINE_BYTES,
    WHOLE_BYTES,
    Block,
    find_files,
    first_byte,
    is_gzip,
    lines_of,
)
from bb3x_ray.data.formats import AddRecord, Format, readable
from bb3x_ray.data.parsed_rows import Row, about_row, row_of, to_columns
from bb3x_ray.data.readers import parquet
from bb3x_ray.data.readers.bb3 import chunk_of
from bb3x_ray.data.readers.json_line import normal, parse
from bb3x_ray.data.readers.json_records import records
from bb3x_ray.schemas.errors import UserError

_TABLE_ROWS = 20_000  # of readers that give one event after the other


@dataclass(slots=True)
class About:
    """What the events before it were read from: goes with them, since tasks share no memory.

    lines      lines read: those of a block are numbered from 1, and the next block of the file goes on
    bytes      bytes of the file that are done
    rejects    (line, reason, raw text); line 0 is about the file
    """

    file: int
    lines: int = 0
    bytes: int = 0
    conversations: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    rejects: list[tuple[int, str, str]] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> "About":
        return cls(**json.loads(text))


def cut(path: Path, format: str) -> tuple[list[Path], list[Block]]:
    """Files of `path` in order, and their blocks. Raises UserError when there is nothing to read."""
    its = readable(format)
    files = find_files(path, its.endings)
    blocks = [block for number, file in enumerate(files) for block in _blocks(its, number, file, path)]
    if not blocks:
        raise UserError(f"{path} is empty: there is nothing to ingest.")
    return files, blocks


def _blocks(its: Format, number: int, file: Path, root: Path) -> list[Block]:
    size = file.stat().st_size
    if its.name == "parquet":
        return parquet.blocks(number, file)
    begin = first_byte(file)
    if not begin:
        return []
    chunk = _chunk(file, root) if its.name == "bb3" else None
    if its.add is None or begin == b"[":
        if size > WHOLE_BYTES:
            raise UserError(
                f"{file} is one JSON value of more than {WHOLE_BYTES // 1_000_000} MB, which must be read "
                "whole: write it as one object a line."
            )
        return [Block(its.name, number, str(file), "whole", 0, size, size, chunk)]
    if is_gzip(file):
        return [Block(its.name, number, str(file), "gzip", 0, size, size, chunk)]
    count = max(1, round(size / BLOCK_BYTES))
    ends = [size * (i + 1) // count for i in range(count)]
    return [
        Block(its.name, number, str(file), "lines", start, end, end - start, chunk)
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def _chunk(file: Path, root: Path) -> int | None:
    """Of the file's name, else of a folder on the way to it."""
    folders = file.relative_to(root).parts[:-1] if file != root else ()
    found = [chunk_of(name) for name in (file.name, *reversed(folders))]
    return next((chunk for chunk in found if chunk is not None), None)


def parse_block(block: Block) -> Iterator[pa.Table]:
    """Tables of PARSED_SCHEMA: the block's events in order, each conversation within one table.

    The last row of a table is its `About`.
    """
    its = readable(block.format)
    if block.kind == "row_groups":
        events, rejects = parquet.read(block)
        yield _told(events, rejects, About(block.file, len(events) + len(rejects), block.size))
    elif block.kind == "whole":
        yield from _whole(block, its)
    else:
        assert its.add is not None
        yield from _lines(block, its.add, its.keys)


def _lines(block: Block, add: AddRecord, keys: tuple[str, ...]) -> Iterator[pa.Table]:
    first = True
    for read in lines_of(block):
        about, rows = About(block.file, lines=len(read.lines)), list[Row]()
        with _no_collector():
            for number, line in enumerate(read.lines, start=1):
                if first and block.start == 0 and line is not None:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                first = False
                if line is None:
                    reason = f"longer than {LINE_BYTES // 1_000_000} MB: no conversation"
                    about.rejects.append((number, reason, ""))
                    continue
                if not line or line.isspace():
                    continue
                before = len(rows)
                try:
                    add(_with_key(parse(line), keys), rows, block.chunk)
                except ValueError as error:
                    del rows[before:]
                    about.rejects.append((number, str(error), line.decode("utf-8", "surrogateescape")))
            events = to_columns(rows)
        if read.broken:
            about.rejects.append((len(read.lines), f"{read.broken}: what follows is lost", ""))
        yield _told(events, [], about)
    yield about_row(_json(About(block.file, bytes=block.size)))


def _with_key(record: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    if not any(key in record for key in keys):
        raise ValueError(f"not an object with the field {keys[0]!r}")
    return record


def _whole(block: Block, its: Format) -> Iterator[pa.Table]:
    rejects: list[tuple[int, str, str]] = []
    rows: list[Row] = []
    for conversation in _conversations(block, its, rejects):
        if rows and len(rows) + len(conversation) > _TABLE_ROWS:
            yield _told(to_columns(rows), rejects, About(block.file))
            rows, rejects[:] = [], []
        rows += conversation
    yield _told(to_columns(rows), rejects, About(block.file, bytes=block.size))


def _conversations(block: Block, its: Format, rejects: list[tuple[int, str, str]]) -> Iterator[list[Row]]:
    """The rows of one conversation after the other."""

    def on_reject(line: int, reason: str, raw: str) -> None:
        rejects.append((line, reason, raw))

    if its.add is not None:
        for line, record in records(Path(block.path), its.keys, on_reject):
            rows: list[Row] = []
            try:
                its.add(normal(record), rows, block.chunk)
            except ValueError as error:
                on_reject(line, str(error), json.dumps(record))
            else:
                yield rows
        return
    assert its.read is not None
    rows, conversation = [], None
    for event in its.read(Path(block.path), on_reject):
        if event.conversation_id != conversation and rows:
            yield rows
            rows = []
        conversation = event.conversation_id
        rows.append(row_of(event))
    if rows:
        yield rows


def _told(events: pa.Table, rejects: list[tuple[int, str, str]], about: About) -> pa.Table:
    """The events, and behind them what they were read from."""
    thumbs = pc.filter(events["rating"], pc.equal(events["kind"], "feedback"))
    about.thumbs_up = pc.sum(pc.equal(thumbs, 1)).as_py() or 0
    about.thumbs_down = pc.sum(pc.equal(thumbs, -1)).as_py() or 0
    about.conversations = pc.count_distinct(events["conversation_id"]).as_py()
    about.rejects += rejects
    return pa.concat_tables([events, about_row(_json(about))])


def _json(about: About) -> str:
    return json.dumps({name: getattr(about, name) for name in About.__slots__})


@contextmanager
def _no_collector() -> Iterator[None]:
    """Parsed JSON holds no cycles; looking for them while a block's objects pile up would double the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
