"""The secret that signs completion ids and makes pseudonyms, the same on all replicas."""

import os
import secrets

from bb3x_ray.storage import Storage

KEY = "server.key"


def server_key(storage: Storage) -> bytes:
    """The secret that signs completion ids: made once per storage root, readable by its owner only."""
    path = storage.path(KEY)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes()
        with os.fdopen(fd, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    return path.read_bytes()
