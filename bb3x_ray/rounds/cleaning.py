"""What a text goes through before it leaves the log: the same replacements in every round and export."""

from bb3x_ray.config import LogConfig
from bb3x_ray.data.deidentify import Deidentifier
from bb3x_ray.rounds.server_key import server_key
from bb3x_ray.storage import Storage


def deidentifier(storage: Storage, config: LogConfig) -> Deidentifier | None:
    """None where the config wants nothing replaced.

    Raises UserError when names are asked for and their packages are missing.
    """
    if config.deidentify == "none":
        return None
    return Deidentifier(server_key(storage), names=config.deidentify == "names")
