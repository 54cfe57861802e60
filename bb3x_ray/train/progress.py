"""A run's progress: rank 0 writes JSON lines, the driver follows them live, and adds them up at the end."""

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

POLL_SECONDS = 0.5

_TOKENS = ("tokens", "labelled_tokens", "labelled_turns", "ce_target_tokens", "ct_target_tokens")
_PHASES = ("data", "forward", "backward", "update")
# What each mean over steps is weighed by.
_WEIGHED_BY = {
    "loss": "labelled_tokens",
    "ce_loss": "ce_target_tokens",
    "token_acc_pos": "ce_target_tokens",
    "ct_loss": "ct_target_tokens",
    "token_acc_neg": "ct_target_tokens",
    "ct_margin": "ct_target_tokens",
}


def report(path: Path, line: dict[str, Any]) -> None:
    """Append one line and close the file, so that a reader on a shared volume sees it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


class Follower:
    """Calls `on_step` with every line of the file, in a thread of its own, until the block ends.

    What an earlier driver was told is not told again, nor a step that restarted workers write a second time.
    An error of `on_step` is raised at the end of the block, unless the block itself failed.
    """

    def __init__(self, path: Path, on_step: Callable[[dict[str, Any]], None]) -> None:
        self._path, self._on_step = path, on_step
        self._offset, self._last_step = _close_last_line(path), 0
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="train-progress", daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _follow(self) -> None:
        try:
            while not self._stop.wait(POLL_SECONDS):
                self._read()
            self._read()
        except BaseException as error:  # handed over to the thread that waits in __exit__
            self._error = error

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            written = file.read()
        whole = written[: written.rfind(b"\n") + 1]  # a line that is still being written waits
        self._offset += len(whole)
        for line in whole.splitlines():
            step = json.loads(line)
            if step["step"] > self._last_step:
                self._last_step = step["step"]
                self._on_step(step)


def _close_last_line(path: Path) -> int:
    """Bytes of the file, after a line that a killed writer left unfinished was ended."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        size = file.seek(0, 2)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                size += file.write(b"\n")
    return size


def total(history: list[dict[str, float]]) -> dict[str, float]:
    """One number per metric of all steps: sums of tokens and turns, means weighed by the tokens they are of,
    each phase's share of the time (rank 0's), rates over all of it."""
    labelled = [line for line in history if line["labelled_tokens"]]
    result = {name: sum(line.get(name, 0.0) for line in history) for name in _TOKENS}
    for name, weight in _WEIGHED_BY.items():
        lines = [line for line in labelled if name in line]
        if lines:
            result[name] = sum(line[name] * line[weight] for line in lines) / sum(
                line[weight] for line in lines
            )
    for name, of in (("ppl_pos", "ce_loss"), ("ppl_ct", "ct_loss")):
        if of in result:
            result[name] = math.exp(min(result[of], 700.0))
    seconds = sum(line["seconds"] for line in history)
    for name in ("tflops_per_second", "mfu"):
        lines = [line for line in history if name in line]
        if lines:
            result[name] = sum(line[name] * line["seconds"] for line in lines) / sum(
                line["seconds"] for line in lines
            )
    for phase in _PHASES:
        spent = sum(line.get(f"{phase}_seconds", 0.0) for line in history)
        result[f"{phase}_share"] = spent / max(1e-9, seconds)
    return result | {
        "loss_first": labelled[0]["loss"],
        "loss_last": labelled[-1]["loss"],
        "grad_norm": sum(line["grad_norm"] for line in labelled) / len(labelled),
        "steps": float(len(history)),
        "seconds_per_step": seconds / len(history),
        "tokens_per_second": result["tokens"] / max(1e-9, seconds),
        "labelled_turns_per_second": result["labelled_turns"] / max(1e-9, seconds),
    }
