"""Two versions in memory, as during a canary: a real engine for each."""

from collections.abc import Sequence
from pathlib import Path

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.serve.engine import Engine, Stream
from tests.serve.room import tiny


class TwoEngines:
    """`folders`: version -> its model, the newest first. `forget` lets a version leave memory."""

    def __init__(self, folders: dict[str, Path], max_queued: int = 50) -> None:
        self._engines = {
            version: Engine(version, tiny(folder), max_batch=8, max_queued=max_queued, max_context_tokens=512)
            for version, folder in folders.items()
        }
        self._gone: list[Engine] = []

    @property
    def version(self) -> str:
        return self.versions[0]

    @property
    def versions(self) -> list[str]:
        return list(self._engines)

    @property
    def alive(self) -> bool:
        return all(engine.alive for engine in self._engines.values())

    def submit(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        stops: Sequence[str] = (),
        version: str | None = None,
    ) -> Stream:
        return self._engines[version or self.version].submit(turns, decoding, stops)

    def forget(self, version: str) -> None:
        self._gone.append(self._engines.pop(version))

    def close(self) -> None:
        for engine in (*self._engines.values(), *self._gone):
            engine.close()
