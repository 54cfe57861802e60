"""What a chat turn has beside engine and log, opened from a storage root: safety, memories, modules."""

from collections.abc import Callable
from pathlib import Path

from bb3x_ray.classify.safety import Safety
from bb3x_ray.config import Config, ModulesConfig
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.safety import KIND, ensure_safety
from bb3x_ray.serve.local_search import OWN, LocalSearch
from bb3x_ray.serve.memory import MEMORY, Memories
from bb3x_ray.serve.modules.bb3 import BB3
from bb3x_ray.serve.reply import Parts
from bb3x_ray.serve.safety_replies import SafetyReplies
from bb3x_ray.serve.search import Search, SearchServer
from bb3x_ray.storage import Storage


class OpenParts:
    """Call it in a replica for the parts; it travels there, and holds no model itself.

    Made by `prepare_parts`, which finds out beforehand what a person can mend.
    """

    def __init__(self, root: Path, modules: ModulesConfig, safety_version: str | None) -> None:
        self._root, self._modules, self._safety_version = root, modules, safety_version

    def __call__(self) -> Parts:
        storage = Storage(self._root)
        # Also where modules are off: what was remembered before can be seen and forgotten.
        memories = Memories(storage.path(MEMORY), self._modules.max_memories)
        return Parts(
            safety=self._safety(storage),
            memories=memories,
            modules=BB3(self._modules, memories, search_of(self._modules)) if self._modules.enabled else None,
        )

    def _safety(self, storage: Storage) -> SafetyReplies | None:
        if self._safety_version is None:
            return None
        return SafetyReplies(Safety.load(Registry(storage, KIND).folder(self._safety_version)))


def prepare_parts(storage: Storage, config: Config, say: Callable[[str], None]) -> OpenParts:
    """Trains the safety classifier where one is needed and missing. Raises UserError, as for a folder of
    documents that is not there."""
    version = None
    if config.safety_replies.check == "both":
        version = ensure_safety(storage, config.safety, config.seed, say)
    if config.modules.enabled:
        search_of(config.modules)
    return OpenParts(storage.root, config.modules, version)


def search_of(config: ModulesConfig) -> Search | None:
    """The search that the config names; None where nothing is to be searched."""
    if config.search == "never":
        return None
    if config.search_server:
        return SearchServer(
            config.search_server, tries=config.search_tries, timeout_s=config.search_timeout_s
        )
    return LocalSearch(Path(config.documents).expanduser() if config.documents else OWN)
