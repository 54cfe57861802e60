"""Numbers of a run: always as JSON lines, and mirrored to W&B. The only file that imports wandb.

Takes floats only: people's text never gets here (law 10).
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bb3x_ray.config import MetricsConfig


class Metrics:
    """Append-only `metrics.jsonl` in `folder`; W&B offline by default, beside it."""

    def __init__(self, folder: Path, config: MetricsConfig, run_name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        self._folder, self._config, self._name = folder, config, run_name
        self._run: Any = None

    def log(self, room: str, values: Mapping[str, float], **at: int) -> None:
        """One line: {"time", "room", **at, **values}; `at` places it, for instance round=1, step=7."""
        numbers = {key: float(value) for key, value in values.items()}
        line = json.dumps({"time": round(time.time(), 3), "room": room, **at, **numbers})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if run := self._wandb():
            run.log({f"{room}/{key}": value for key, value in numbers.items()} | at)

    def picture(self, name: str, path: Path) -> None:
        if run := self._wandb():
            import wandb

            run.log({name: wandb.Image(str(path))})

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _wandb(self) -> Any:
        if self._config.wandb == "disabled":
            return None
        if self._run is None:
            import wandb

            self._run = wandb.init(
                project=self._config.project,
                name=self._name,
                mode=self._config.wandb,
                dir=str(self._folder),
                settings=wandb.Settings(console="off", silent=True, disable_git=True),
            )
        return self._run


def floats(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in `values`, those of a mapping within under `key/name`; what is no number is left out."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{name}": number for name, number in floats(value).items()}
        elif isinstance(value, int | float):
            flat[key] = float(value)
    return flat
