"""What is published is whole and unaltered, or it is not there."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import MANIFEST, Storage, read_json, write_atomic, write_json


def publish(storage: Storage, name: str = "rounds/0001/collect", text: str = "hello") -> Path:
    with storage.publish(name, step="collect") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "rows.txt").write_text(text)
    return storage.path(name)


def everything(storage: Storage) -> list[str]:
    """Every file under the root."""
    return sorted(p.relative_to(storage.root).as_posix() for p in storage.root.rglob("*") if p.is_file())


def test_what_was_published_is_found_verified(storage: Storage) -> None:
    folder = publish(storage)
    assert storage.is_published("rounds/0001/collect")
    assert storage.verify("rounds/0001/collect") == folder
    manifest = storage.manifest("rounds/0001/collect")
    assert manifest["step"] == "collect"
    assert manifest["files"]["sub/rows.txt"]["bytes"] == 5


def test_nothing_is_seen_before_the_block_ends(storage: Storage) -> None:
    with storage.publish("a/b") as folder:
        (folder / "x").write_text("x")
        assert not storage.path("a/b").exists()
        assert not storage.is_published("a/b")
    assert storage.is_published("a/b")


def test_an_error_in_the_middle_leaves_nothing(storage: Storage) -> None:
    with pytest.raises(RuntimeError), storage.publish("a/b") as folder:
        (folder / "x").write_text("x")
        raise RuntimeError
    assert everything(storage) == []


def test_what_is_published_is_never_replaced(storage: Storage) -> None:
    publish(storage)
    with pytest.raises(FileExistsError):
        publish(storage, text="other")
    assert (storage.verify("rounds/0001/collect") / "sub" / "rows.txt").read_text() == "hello"


def test_a_folder_without_a_manifest_is_replaced(storage: Storage) -> None:
    storage.path("a/b").mkdir(parents=True)
    (storage.path("a/b") / "half").write_text("copied by hand")
    publish(storage, "a/b")
    assert not (storage.path("a/b") / "half").exists()
    storage.verify("a/b")


def test_a_process_killed_in_the_middle_leaves_nothing_published(storage: Storage) -> None:
    code = (
        "import sys, time; from bb3x_ray.storage import Storage\n"
        "with Storage(sys.argv[1]).publish('a/b') as folder:\n"
        "    (folder / 'x').write_text('x')\n"
        "    sys.stdout.write('writing'); sys.stdout.flush(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(storage.root)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.read(7) == b"writing"
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert not storage.is_published("a/b") and not storage.path("a/b").exists()
    storage.clear_aside()
    assert everything(storage) == []
    publish(storage, "a/b")


def test_one_altered_byte_is_found_and_the_file_named(storage: Storage) -> None:
    rows = publish(storage) / "sub" / "rows.txt"
    rows.write_text("hellO")
    with pytest.raises(UserError, match=r"sub/rows\.txt was altered"):
        storage.verify("rounds/0001/collect")


def test_a_file_cut_short_is_found(storage: Storage) -> None:
    rows = publish(storage) / "sub" / "rows.txt"
    rows.write_text("hell")
    with pytest.raises(UserError, match=r"sub/rows\.txt was altered"):
        storage.verify("rounds/0001/collect")


def test_a_missing_file_is_named(storage: Storage) -> None:
    (publish(storage) / "sub" / "rows.txt").unlink()
    with pytest.raises(UserError, match=r"sub/rows\.txt is missing"):
        storage.verify("rounds/0001/collect")


def test_what_was_never_finished_is_said_so(storage: Storage) -> None:
    with pytest.raises(UserError, match="never finished"):
        storage.verify("rounds/0009/collect")


def test_a_broken_manifest_is_named_with_its_line(storage: Storage) -> None:
    (publish(storage) / MANIFEST).write_text('{\n"files": oops')
    with pytest.raises(UserError, match=rf"{MANIFEST} is not valid JSON \(line 2\)"):
        storage.verify("rounds/0001/collect")


@pytest.mark.parametrize("parts", [("..", "x"), ("a", "..", "..", "x"), ("/etc/passwd",)])
def test_no_path_leaves_the_root(storage: Storage, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="under the root"):
        storage.path(*parts)


def test_no_path_leaves_the_root_by_a_link(storage: Storage, tmp_path: Path) -> None:
    storage.root.mkdir()
    (storage.root / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="under the root"):
        storage.path("link", "x")


def test_object_stores_are_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="s3:// is not supported yet"):
        Storage("s3://bucket/prefix")


def test_a_reader_sees_the_old_text_or_the_new_one(tmp_path: Path) -> None:
    """While one process replaces a file again and again, it is never half there."""
    path = tmp_path / "alias.json"
    write_json(path, {"value": "a" * 50_000})
    code = (
        "import sys; from pathlib import Path; from bb3x_ray.storage import write_json\n"
        "for i in range(150): write_json(Path(sys.argv[1]), {'value': 'ab'[i % 2] * 50_000})"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        assert len(set(read_json(path)["value"])) == 1
    assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_text(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# a full disk


def test_a_full_disk_ends_in_a_sentence_and_nothing_half_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0 or not mounted(disk):
        pytest.skip("needs to mount a small tmpfs")
    try:
        storage = Storage(disk / "store")
        publish(storage, "a/small")
        with pytest.raises(UserError, match=r"no space left under .* while writing a/large"):
            publish(storage, "a/large", "x" * 3_000_000)
        assert not storage.is_published("a/large")
        assert everything(storage) == [f"a/small/{MANIFEST}", "a/small/sub/rows.txt"]
        storage.verify("a/small")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_and_no_quota_are_told_alike(storage: Storage, code: int) -> None:
    with pytest.raises(UserError, match="nothing half-written"), storage.publish("a/b"):
        raise OSError(code, os.strerror(code))
    assert everything(storage) == []


def test_other_errors_of_the_disk_are_not_mistaken_for_it(storage: Storage) -> None:
    with pytest.raises(PermissionError), storage.publish("a/b"):
        raise PermissionError(errno.EACCES, "no")
    assert everything(storage) == []


def test_the_manifest_holds_what_is_told_about_it(storage: Storage) -> None:
    with storage.publish("a/b", kind="models", version="v0001"):
        pass
    manifest = json.loads((storage.path("a/b") / MANIFEST).read_text())
    assert manifest == {"kind": "models", "version": "v0001", "files": {}}


def test_what_is_discarded_is_gone_and_may_be_published_again(storage: Storage) -> None:
    for text in ("old", "new"):
        with storage.publish("a/b") as folder:
            (folder / "rows.txt").write_text(text)
        assert (storage.verify("a/b") / "rows.txt").read_text() == text
        storage.discard("a/b")
        assert not storage.is_published("a/b") and everything(storage) == []
    storage.discard("a/b")
