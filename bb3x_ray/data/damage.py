"""Files of the log that cannot be read are told in a sentence, with what helps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from deltalake.exceptions import DeltaError

from bb3x_ray.schemas.errors import UserError


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """For the block that reads `path`. Raises UserError where that is missing or damaged."""
    try:
        yield
    except (pa.ArrowException, DeltaError, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path} is missing or damaged ({type(error).__name__}): `bb3x log verify` lists what is; "
            "restore the folder from a copy. What replicas wrote is in the archive too: move interactions/ "
            "and interactions_ids/ away and run `bb3x log restore`."
        ) from error
