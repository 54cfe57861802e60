"""How replicas come by the arms of a canary: the aliases, read anew each time."""

from pathlib import Path

from bb3x_ray.registry import Registry
from bb3x_ray.storage import Storage


class FindArms:
    """() -> (champion, candidate of the canary or None, share in percent). It travels to the replicas.

    A challenger that is in quarantine, or was compared with another champion, is none, and a share of 0 turns
    a canary off without ending it.
    """

    def __init__(self, root: Path, share: float) -> None:
        self._root, self._share = root, share

    def __call__(self) -> tuple[str, str | None, float]:
        models = Registry(Storage(self._root), "models")
        return models.champion, models.challenger if self._share else None, self._share
