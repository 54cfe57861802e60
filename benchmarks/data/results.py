"""What a measure found: goals for people, numbers for plots, which are kept as JSON lines."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bb3x_ray.schemas.errors import UserError
from benchmarks.data.goals import Goal


@dataclass(frozen=True, slots=True)
class Found:
    """
    seconds        our arm's, the median of the repeats
    start_seconds  of these, what does not depend on how much there is: imports, Ray's start
    cpu_seconds    of all its processes; `peak_bytes` the most that these held together
    ratio          to the peer beside it, as in the table of goals; None where there is no peer
    also           other numbers, by name
    """

    goals: list[Goal]
    utterances: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    start_seconds: float = 0.0
    ratio: float | None = None
    also: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the file; see `Found`. `date` is ISO 8601, in UTC."""

    measure: str
    conversations: int
    utterances: int
    seconds: float
    start_seconds: float
    cpu_seconds: float
    peak_bytes: int
    ratio: float | None
    also: dict[str, float]
    processor: str
    date: str


def result_of(measure: str, conversations: int, found: Found) -> Result:
    return Result(
        measure=measure,
        conversations=conversations,
        utterances=found.utterances,
        seconds=round(found.seconds, 3),
        start_seconds=round(found.start_seconds, 3),
        cpu_seconds=round(found.cpu_seconds, 2),
        peak_bytes=found.peak_bytes,
        ratio=found.ratio,
        also=found.also,
        processor=processor(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def append(path: Path, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def read(path: Path) -> list[Result]:
    """All of them, oldest first; nothing where there is no file. Raises UserError for a damaged line."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), 1):
        try:
            found.append(Result(**json.loads(line)))
        except (ValueError, TypeError):
            raise UserError(f"{path}, line {number} is no result: remove the line.") from None
    return found


def latest(results: Sequence[Result]) -> dict[tuple[str, int], Result]:
    """(measure, conversations) -> the last one."""
    return {(result.measure, result.conversations): result for result in results}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()
