"""`bb3x compare report`: a table for people, JSON for programs, a sentence where nobody compared yet."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bb3x_ray import cli
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.storage import Storage
from tests.data.make import talk
from tests.data.test_comparisons import compared

LOCAL = str(Path(__file__).parents[1] / "configs" / "local.yaml")
Report = Callable[..., tuple[str, str]]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], storage: Storage) -> Report:
    """arguments -> what it printed on standard output and on standard error."""
    with SegmentWriter(storage.path("inbox"), "r", 60, 1_000_000) as writer:
        writer.append(talk("c1", 4))

    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: str) -> tuple[str, str]:
        root = f"storage.root={storage.root}"
        monkeypatch.setattr(sys, "argv", ["bb3x", "compare", "report", "-c", LOCAL, *arguments, root])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        printed = capsys.readouterr()
        return printed.out, printed.err

    return command


def test_it_counts_real_people_or_simulated_ones(report: Report, storage: Storage) -> None:
    said, told = report()
    assert said == "" and "nobody has compared two versions yet" in told
    with SegmentWriter(storage.path("inbox"), "r2", 60, 1_000_000) as writer:
        writer.append([compared(1, None), compared(1, "a"), compared(2, "b", person="bob", simulated=True)])
    said, _ = report()
    assert "v0002" in said and "too few people" in said
    (real,) = json.loads(report("--json")[0])
    assert (real["newer"], real["for_newer"], real["for_older"], real["clear"]) == ("v0002", 1, 0, False)
    (simulated,) = json.loads(report("--json", "--simulated")[0])
    assert (simulated["for_newer"], simulated["for_older"]) == (0, 1)
