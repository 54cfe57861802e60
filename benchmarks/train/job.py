"""What an arm is asked to do and what it found, as JSON between processes; and the clock all arms share."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.train.layouts import Pair, Row, length_of, turns_in


@dataclass(frozen=True, slots=True)
class Job:
    """
    steps   of rows: what the arms over packed conversations take
    pairs   steps of pairs: what the arms with one row a turn take
    """

    arm: str
    model: str
    threads: int
    steps: list[list[Row]] = field(default_factory=list)
    pairs: list[list[Pair]] = field(default_factory=list)
    window: int = 1024
    micro_rows: int = 4  # of pairs
    lr: float = 1e-6  # so small that all repeats do the same work

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "Job":
        return cls(**json.loads(path.read_text()))


@dataclass(slots=True)
class Measured:
    """
    seconds    wall clock of all steps
    parts      of these: seconds in the model's forward and backward with its loss, and in the optimizer
    positions  tokens that went through the model, padding among them
    loss       of the last step: a number that is not finite makes the run worthless
    luck       tokens a labelled turn in the sample ÷ in the whole file, both without padding
    peak_mib   most memory the process ever had resident, start-up among it
    """

    seconds: float = 0.0
    steps: int = 0
    turns: int = 0
    positions: int = 0
    loss: float = float("nan")
    parts: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    luck: float = 1.0
    peak_mib: float = 0.0

    @contextmanager
    def part(self, name: str) -> Any:
        began = time.perf_counter()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - began

    @property
    def rate(self) -> float:
        """Labelled turns a second, as the whole file has them: a lucky sample has shorter turns."""
        return self.luck * self.turns / self.seconds


def run_steps(
    steps: Sequence[list[Any]], one_step: Callable[[list[Any], Measured], tuple[float, int]]
) -> Measured:
    """Time `one_step` on each step; it returns (loss, positions). A small step before is not counted."""
    one_step([min((item for step in steps for item in step), key=length_of)], Measured())
    measured = Measured()
    began = time.perf_counter()
    for step in steps:
        measured.loss, positions = one_step(step, measured)
        measured.positions += positions
        measured.turns += sum(map(turns_in, step))
    measured.seconds = time.perf_counter() - began
    measured.steps = len(steps)
    return measured
