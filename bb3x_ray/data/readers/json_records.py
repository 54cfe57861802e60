"""JSON objects out of a file that may be damaged: an array, or one object a line. Good ones survive."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bb3x_ray.schemas.errors import UserError

# (line number from 1, reason without any text of the file, the raw piece)
OnReject = Callable[[int, str, str], None]

UNPACKED_BYTES = 500_000_000

_GAP = " \t\r\n,"


def records(path: Path, keys: tuple[str, ...], on_reject: OnReject) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of every readable object that holds one of `keys`, in order.

    After a damaged array element, reading goes on at the next such object: nested
    objects of the damaged one do not. A compressed file (.gz) is unpacked in memory.
    Raises UserError when the file is not there, is empty, or cannot be unpacked.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {what}; give the path of a recorded data file.")
    # Bytes that are no UTF-8 become lone surrogates, which the log refuses record by record.
    text = file_bytes(path).decode("utf-8-sig", errors="surrogateescape")
    start = text.lstrip(_GAP)
    if not start.strip("\x00"):
        raise UserError(f"{path} is empty: there is nothing to ingest.")
    if start.startswith("["):
        yield from _array(text, len(text) - len(start) + 1, keys, on_reject)
    else:
        yield from _lines(text, keys, on_reject)


def file_bytes(path: Path) -> bytes:
    """All of a file, unpacked. Raises UserError for a compressed one that is damaged or too large."""
    if path.suffix != ".gz":
        return path.read_bytes()
    pieces, length = [], 0
    try:
        with gzip.open(path, "rb") as packed:
            while piece := packed.read(1 << 20):
                pieces.append(piece)
                length += len(piece)
                if length > UNPACKED_BYTES:
                    raise UserError(
                        f"{path} unpacks to more than {UNPACKED_BYTES // 1_000_000} MB, which must be read "
                        "whole: write it as one object a line."
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise UserError(f"{path}: the compressed file is damaged: fetch it again.") from None
    return b"".join(pieces)


def _lines(text: str, keys: tuple[str, ...], on_reject: OnReject) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            on_reject(number, _reason(error), line)
            continue
        if _has(record, keys):
            yield number, record
        else:
            on_reject(number, f"not an object with the field {keys[0]!r}", line)


def _array(
    text: str, at: int, keys: tuple[str, ...], on_reject: OnReject
) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = json.JSONDecoder()
    line, counted = 1, 0  # line number of position `counted`
    element = 0
    while True:
        while at < len(text) and text[at] in _GAP:
            at += 1
        line, counted = line + text.count("\n", counted, at), at
        if at >= len(text):
            on_reject(line, "the file ends before the array is closed", "")
            return
        if text[at] == "]" and not text[at + 1 :].strip():
            return
        element += 1
        try:
            record, end = decoder.raw_decode(text, at)
            reason = "" if _has(record, keys) else f"no field {keys[0]!r}"
        except (ValueError, RecursionError) as error:
            reason, end = _reason(error), _resynchronise(decoder, text, at + 1, keys)
        if reason:
            on_reject(line, f"element {element}: {reason}", text[at:end].rstrip(_GAP))
        else:
            yield line, record
        at = end
        if reason and at >= len(text):
            return  # that the file ends here was just reported


def _resynchronise(decoder: json.JSONDecoder, text: str, at: int, keys: tuple[str, ...]) -> int:
    """Start of the next whole object that holds one of `keys`, or the end of the text."""
    while (at := text.find("{", at)) >= 0:
        try:
            record, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if _has(record, keys):
            return at
        at = end
    return len(text)


def _has(record: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(record, dict) and any(key in record for key in keys)


def _reason(error: Exception) -> str:
    """Says what is wrong without quoting the text."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg.lower()} at column {error.colno} of line {error.lineno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
