"""Blocks of a file: every line in exactly one, whatever is in it."""

import gzip
import random
from pathlib import Path

import pytest

from bb3x_ray.data import file_blocks
from bb3x_ray.data.file_blocks import Block, find_files, first_byte, lines_of
from bb3x_ray.schemas.errors import UserError


def block(path: Path, start: int, end: int, kind: str = "lines") -> Block:
    return Block("bb3", 0, str(path), kind, start, end, end - start)  # type: ignore[arg-type]


def lines(path: Path, start: int, end: int, step: int, kind: str = "lines") -> list[bytes | None]:
    return [line for read in lines_of(block(path, start, end, kind), step) for line in read.lines]


@pytest.mark.parametrize("seed", range(40))
def test_every_line_is_in_one_block(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "x.jsonl"
    texts = [
        bytes(rng.choices(b"abc \r\x00", k=rng.choice((0, 1, 5, 40)))) for _ in range(rng.randint(1, 60))
    ]
    content = b"\n".join(texts) + b"\n" * rng.randint(0, 2)
    path.write_bytes(content)
    expected = content.split(b"\n")
    if not expected[-1]:
        expected.pop()
    size, step = rng.randint(1, 50), rng.randint(1, 30)
    found: list[bytes | None] = []
    for start in range(0, len(content), size):
        found += lines(path, start, min(start + size, len(content)), step)
    assert found == expected
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(gzip.compress(content))
    assert lines(packed, 0, packed.stat().st_size, step, "gzip") == expected


def test_a_line_that_is_too_long_is_dropped_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_blocks, "LINE_BYTES", 2_000_000)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"first\n" + b"x" * 7_000_000 + b"\nlast")
    found = [
        line
        for start in range(0, 7_000_011, 1000)
        for line in lines(path, start, min(start + 1000, 7_000_011), 1000)
    ]
    assert found == [b"first", None, b"last"]
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert lines(packed, 0, packed.stat().st_size, 1000, "gzip") == [b"first", None, b"last"]


def test_a_damaged_compressed_file_gives_what_came_before(tmp_path: Path) -> None:
    rng = random.Random(0)
    content = b"\n".join(rng.randbytes(30).hex().encode() for _ in range(20_000))
    whole = gzip.compress(content)
    for name, damaged, words in (
        ("cut.gz", whole[: len(whole) // 2], "too early"),
        ("bytes.gz", whole[:200_000] + b"\xff" * 50 + whole[200_050:], "damaged"),
    ):
        path = tmp_path / name
        path.write_bytes(damaged)
        read = list(lines_of(block(path, 0, len(damaged), "gzip"), 50_000))
        assert words in read[-1].broken and not any(one.broken for one in read[:-1])
        found = [line for one in read for line in one.lines]
        assert len(found) > 1000 and found[:1000] == content.split(b"\n")[:1000]


def test_the_first_byte_tells_an_array_from_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content, begin in (
        (b"\xef\xbb\xbf \n[1]", b"["),
        (b'{"a": 1}', b"{"),
        (b" \n\x00", b""),
        (b"\x00\n[1]", b"\x00"),
        (b"", b""),
    ):
        path.write_bytes(content)
        assert first_byte(path) == begin
    packed = tmp_path / "x.json.gz"
    packed.write_bytes(b"no gzip")
    assert first_byte(packed) == b"?"


def test_files_of_a_folder_come_by_number(tmp_path: Path) -> None:
    for name in ("chunk_10.jsonl", "chunk_9.jsonl", "a/chunk_1.jsonl.gz", ".hidden.jsonl", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_files(tmp_path, (".jsonl", ".jsonl.gz"))
    assert [str(file.relative_to(tmp_path)) for file in found] == [
        "a/chunk_1.jsonl.gz",
        "chunk_9.jsonl",
        "chunk_10.jsonl",
    ]
    with pytest.raises(UserError, match="without a file"):
        find_files(tmp_path, (".parquet",))
    with pytest.raises(UserError, match="no such file"):
        find_files(tmp_path / "none", (".jsonl",))
