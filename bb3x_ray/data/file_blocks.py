"""Files cut into blocks that can be read apart from each other, and the lines of a block.

A block of lines is a range of bytes: the lines that begin in it are its own, and it reads on to the end of
the last one. Compressed files and those that are one JSON value are one block each.
"""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal

from bb3x_ray.schemas.errors import UserError

BLOCK_BYTES = 32_000_000
# Lines that are parsed together: their JSON takes about eight times as much.
_STEP_BYTES = 16_000_000
# A longer line is no conversation. Nothing reads more than this at once.
LINE_BYTES = 64_000_000
# A JSON array is parsed whole, at about ten times its size.
WHOLE_BYTES = 500_000_000

OpenFile = BufferedReader | gzip.GzipFile
Kind = Literal["lines", "gzip", "whole", "row_groups"]


@dataclass(frozen=True, slots=True)
class Block:
    """[start, end) are bytes, or row groups of a Parquet file.

    file   the place of `path` in the ingest
    size   bytes, as progress counts them
    """

    format: str
    file: int
    path: str
    kind: Kind
    start: int
    end: int
    size: int
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """Neighbouring lines, without their ends. A line that is None was longer than LINE_BYTES.

    broken   why nothing more can be read of the file, or ""
    """

    lines: list[bytes | None]
    broken: str = ""


def find_files(path: Path, endings: Sequence[str]) -> list[Path]:
    """The file, or all files of the folder that end so, in the order of the numbers in their names.

    Raises UserError where there is nothing to read.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise UserError(f"{path}: no such file; give the path of a recorded data file.")
    found = [
        file
        for file in path.rglob("*")
        if file.name.endswith(tuple(endings)) and file.is_file() and not file.name.startswith(".")
    ]
    if not found:
        raise UserError(f"{path} is a folder without a file that ends in {', '.join(endings)}.")
    return sorted(found, key=lambda file: _natural(str(file.relative_to(path))))


def _natural(name: str) -> list[tuple[int, str]]:
    """chunk_9 before chunk_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def is_gzip(path: Path) -> bool:
    return path.name.endswith(".gz")


def first_byte(path: Path) -> bytes:
    """The first byte of the file that is no white space and no mark of byte order; b"" when there is none."""
    try:
        with open_binary(path) as file:
            for _ in range(16):
                if not (piece := file.read(65_536)):
                    return b""
                start = piece.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
                if start.strip(b"\x00 \t\r\n"):
                    return start[:1]
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return b"?"  # damaged: reading it says where
    return b""


def open_binary(path: Path) -> OpenFile:
    return gzip.open(path, "rb") if is_gzip(path) else path.open("rb")


def lines_of(block: Block, step: int = _STEP_BYTES) -> Iterator[Lines]:
    """The lines that begin in the block, some `step` bytes at a time."""
    if block.kind == "gzip":
        with gzip.open(block.path, "rb") as packed:
            yield from _split(packed, None, step)
        return
    with open(block.path, "rb") as file:
        at = _skip_line(file, block.start, block.end) if block.start else 0
        if at < block.end:
            yield from _split(file, block.end - at, step)


def _skip_line(file: OpenFile, start: int, end: int) -> int:
    """From `start` - 1 on to where the next line begins; that place, or `end` when none begins before."""
    at = file.seek(start - 1)
    while at < end:
        piece = file.readline(1 << 16)
        at += len(piece)
        if piece.endswith(b"\n") or not piece:
            return at if piece else end
    return end


def _split(file: OpenFile, length: int | None, step: int) -> Iterator[Lines]:
    """Lines that begin in the next `length` bytes of `file` (None: in all of it)."""
    left = length
    while left is None or left > 0:
        wanted = step if left is None else min(step, left)
        piece, broken = _read(file, wanted)
        rest, cut, length_of_rest = b"", False, 0
        if len(piece) == wanted and not piece.endswith(b"\n") and not broken:
            rest, cut, broken, length_of_rest = _line_end(file)
        if left is not None:
            left -= len(piece) + length_of_rest
        lines: list[bytes | None] = list((piece + rest).split(b"\n"))
        if lines and not lines[-1]:
            lines.pop()
        if cut:
            lines[-1] = None
        if lines or broken:
            yield Lines(lines, broken)
        if broken or len(piece) < wanted:
            return


def _read(file: OpenFile, wanted: int) -> tuple[bytes, str]:
    """Up to `wanted` bytes, and why there will be no more."""
    pieces: list[bytes] = []
    while wanted > 0:
        try:
            piece = file.read1(min(wanted, 1 << 20))  # `read` would lose what came before an error
        except EOFError:
            return b"".join(pieces), "the compressed file ends too early"
        except (gzip.BadGzipFile, zlib.error):
            return b"".join(pieces), "the compressed file is damaged"
        if not piece:
            break
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces), ""


def _line_end(file: OpenFile) -> tuple[bytes, bool, str, int]:
    """(the rest of the line under way, whether it was too long and dropped, why there is no more, length)."""
    pieces: list[bytes] = []
    length, cut, broken = 0, False, ""
    while True:
        try:
            piece = file.readline(1 << 20)
        except EOFError:
            piece, broken = b"", "the compressed file ends too early"
        except (gzip.BadGzipFile, zlib.error):
            piece, broken = b"", "the compressed file is damaged"
        length += len(piece)
        if length > LINE_BYTES:
            pieces, cut = [], True
        else:
            pieces.append(piece)
        if not piece or piece.endswith(b"\n"):
            return b"".join(pieces), cut, broken, length
