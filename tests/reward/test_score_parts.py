"""Parts are taken whole, of the same stamp, or not at all."""

from pathlib import Path

import pyarrow as pa
import pytest

from bb3x_ray.reward.score_parts import Parts, Resume, stamp_of

TABLE = pa.table({"good": [0.5, 0.25]})


@pytest.fixture
def resume(tmp_path: Path) -> Resume:
    return Resume(tmp_path / "parts", "slice 7")


def test_a_part_is_found_again_as_it_was(resume: Resume) -> None:
    parts = Parts.open(resume, "v1", pieces=3)
    assert parts.found == {}
    parts.publish(0, 2, TABLE)
    parts.publish(0, 2, TABLE.slice(1))  # a task that ran twice
    again = Parts.open(resume, "v1", pieces=8)
    assert set(again.found) == {(0, 2)} and again.read(0, 2) == TABLE
    assert again.pieces == 3  # as the first run cut them


@pytest.mark.parametrize("harm", ["cut", "flipped", "swapped"])
def test_a_damaged_part_is_not_taken(resume: Resume, harm: str) -> None:
    parts = Parts.open(resume, "v1", pieces=1)
    parts.publish(0, 0, TABLE)
    parts.publish(1, 0, TABLE.slice(1))
    first, second = sorted(parts.folder.glob("*.parquet"))
    content = bytearray(first.read_bytes())
    if harm == "flipped":
        content[20] ^= 1
    first.write_bytes(
        second.read_bytes() if harm == "swapped" else content[:-9] if harm == "cut" else content
    )
    (parts.folder / ".half-written.parquet").write_bytes(b"PAR1")
    again = Parts.open(resume, "v1", pieces=1)
    assert set(again.found) == {(1, 0)}
    assert sorted(p.name for p in parts.folder.iterdir()) == sorted([second.name, "parts.json"])


def test_parts_of_another_stamp_or_input_are_never_taken(resume: Resume) -> None:
    Parts.open(resume, "v1", 1).publish(0, 0, TABLE)
    assert Parts.open(Resume(resume.folder, "slice 8"), "v1", 1).found == {}
    assert Parts.open(resume, "v1", 1).found == {}  # removed by then: they held people's ids
    Parts.open(resume, "v1", 1).publish(0, 0, TABLE)
    (part,) = resume.folder.glob("*/*.parquet")
    other = Parts.open(resume, "v2", 1)
    assert other.found == {}
    # Not even one that somebody put there.
    part.parent.mkdir(exist_ok=True)
    (other.folder / part.name).write_bytes(b"")
    Parts.open(resume, "v1", 1).publish(0, 0, TABLE)
    (part,) = resume.folder.glob("*/*.parquet")
    content = part.read_bytes()
    other = Parts.open(resume, "v2", 1)
    (other.folder / part.name).write_bytes(content)
    assert Parts.open(resume, "v2", 1).found == {}


def test_a_stamp_is_of_every_file_and_setting(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("weights")
    first = stamp_of(tmp_path, version="v0001", max_chars=5)
    assert first == stamp_of(tmp_path, max_chars=5, version="v0001")
    assert first != stamp_of(tmp_path, version="v0002", max_chars=5)
    (tmp_path / "a").write_text("other weights")
    assert first != stamp_of(tmp_path, version="v0001", max_chars=5)
