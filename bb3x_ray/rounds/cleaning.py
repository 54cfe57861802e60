"""What a text goes through before it leaves the log: the same replacements in every round and export."""

from collections.abc import Callable

from bb3x_ray.config import LogConfig
from bb3x_ray.data.deidentify import Deidentifier
from bb3x_ray.rounds.server_key import server_key
from bb3x_ray.storage import Storage


def cleaner(storage: Storage, config: LogConfig) -> Callable[[str, str], str] | None:
    """(text, person) -> text without what identifies somebody; None where the config wants none of it.

    Raises UserError when names are asked for and their packages are missing.
    """
    if config.deidentify == "none":
        return None
    deidentifier = Deidentifier(server_key(storage), names=config.deidentify == "names")
    return lambda text, person: deidentifier.clean(text, person).text
