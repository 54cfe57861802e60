"""A canary from its beginning to its end: some people talk to the candidate, and what they think decides.

    begin ─► challenger ─► look, look, … ─► promote: champion
                                        └─► roll back: quarantine, with the slice it learned from

A look's decision follows from what the log says then, not from looks before it, nor from who looked: two who
look at the same log decide the same. A thumb that was changed since counts as it is now, in its old place; so
a look that went on then may end the canary now. What ends it is written before any alias moves, and stands.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bb3x_ray.config import Config
from bb3x_ray.data import table
from bb3x_ray.data.committer import commit_inbox
from bb3x_ray.data.inbox import open_inbox
from bb3x_ray.registry import Promotion, Registry, Rollback, Trial
from bb3x_ray.rounds.canary_evidence import SCORES, Began, LogEvidence
from bb3x_ray.rounds.verdicts import verdict_of
from bb3x_ray.schemas.canary import Canary
from bb3x_ray.schemas.errors import UserError, kind_and_place
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.serve.canary.judgement import Row, judge
from bb3x_ray.serve.canary.plot import draw
from bb3x_ray.storage import Storage, read_json, write_json

log = logging.getLogger(__name__)
BEGAN, STATE, LOOKS, END, PLOT = "began.json", "state.json", "looks.json", "end.json", "plot.png"


class Canaries:
    """The canary of a storage root; there is one at a time."""

    def __init__(self, storage: Storage, config: Config, say: Callable[[str], None]) -> None:
        self._storage, self._config, self._say = storage, config, say
        self._models = Registry(storage, "models")
        self._evidence: LogEvidence | None = None

    def begin(self, verdict: Verdict) -> str:
        """Let people talk to the verdict's candidate; returns what to say. Begun twice is begun once.

        Raises UserError while a canary of another candidate is under way.
        """
        candidate, other = verdict.candidate, self._models.challenger
        if other is not None and other != candidate:
            raise UserError(
                f"{candidate} waits: a canary of {other} is under way; `bb3x canary watch` ends it when "
                "people have said enough, `bb3x models rollback --reason …` at once. Then run this again."
            )
        path = self._folder(candidate) / BEGAN
        if not path.is_file():
            number = self._models.lineage(candidate).get("round")
            after = table.head(self._storage)
            write_json(path, asdict(Began(candidate, verdict.champion, after, number, time.time())))
        self._models.move_challenger(Trial(verdict), expected=None)
        return f"{self._config.canary.share:g} % of people talk to {candidate} from now on, as a canary"

    def look(self) -> Canary | None:
        """One look at the log; carries out what it decides. None where no canary is under way."""
        candidate = self._models.challenger
        if candidate is None:
            return None
        folder = self._folder(candidate)
        if (folder / END).is_file():  # decided, and killed before the aliases had moved
            canary = Canary.from_dict(read_json(folder / END))
        else:
            canary = self._judge(candidate)
        if canary.decision != "go on":
            self._carry_out(canary)
        return canary

    def watch(self, stopped: threading.Event) -> None:
        """Look every `canary.every_seconds` until it is stopped; says what changes."""
        before = ""
        while not stopped.is_set():
            try:
                canary = self.look()
                words = "" if canary is None else f"canary of {canary.candidate}: {canary.words}"
            # People are served all the same, and the next look may find it mended: a watch that died of it
            # would leave the canary as it is for ever.
            except UserError as error:
                words = str(error)
            except Exception as error:  # its words may hold what people wrote
                words = f"the canary was not looked at ({type(error).__name__}); the watch looks again"
                log.warning("a look at the canary failed: %s", kind_and_place(error))
            if words not in ("", before):
                self._say(words)
            before = words or before
            stopped.wait(self._config.canary.every_seconds)

    @property
    def under_way(self) -> str | None:
        return self._models.challenger

    def seen(self) -> Canary | None:
        """What a look would see, without carrying anything out."""
        candidate = self.under_way
        return None if candidate is None else self._look_at(candidate)[0]

    def _judge(self, candidate: str) -> Canary:
        canary, rows = self._look_at(candidate)
        self._write(canary, rows)
        return canary

    def _look_at(self, candidate: str) -> tuple[Canary, list[Row]]:
        began, inbox = self._began(candidate), open_inbox(self._config.log.root or str(self._storage.root))
        commit_inbox(self._storage, inbox)
        if self._evidence is None or self._evidence.candidate != candidate:
            self._evidence = LogEvidence(self._storage, self._config, began)
        return judge(self._evidence.gather(), self._config.canary)

    def _write(self, canary: Canary, rows: list[Row]) -> None:
        folder = self._folder(canary.candidate)
        write_json(folder / STATE, canary.to_dict())
        write_json(folder / LOOKS, [_finite(asdict(row)) for row in rows])
        if rows:
            draw(canary, rows, folder / PLOT)
        if canary.decision != "go on":
            write_json(folder / END, canary.to_dict())

    def _carry_out(self, canary: Canary) -> None:
        if canary.decision == "promote":
            verdict = verdict_of(self._storage, canary.candidate)
            self._models.move_champion(Promotion(verdict, canary), expected=canary.champion)
        else:
            move = Rollback(f"canary: {canary.words}", canary.numbers)
            self._models.move_challenger(move, expected=canary.candidate)
        (self._folder(canary.candidate) / SCORES).unlink(missing_ok=True)

    def _began(self, candidate: str) -> Began:
        path = self._folder(candidate) / BEGAN
        if not path.is_file():
            raise UserError(f"{path} is missing, which says when the canary began: restore it from a copy.")
        return Began(**read_json(path))

    def _folder(self, candidate: str) -> Path:
        folder = self._storage.path("canaries", candidate)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity."""
    return {name: value if abs(value) != float("inf") else None for name, value in row.items()}
