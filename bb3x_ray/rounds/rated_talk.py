"""Everything that was rated, without a round: of a whole log, or of a recorded file on its own."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bb3x_ray.config import LogConfig
from bb3x_ray.data import slices, table
from bb3x_ray.data.ingest import ingest
from bb3x_ray.data.late_words import annotations_upto, feedback_upto
from bb3x_ray.data.slices import Slice
from bb3x_ray.reward.evidence import Evidence, evidence_of
from bb3x_ray.rounds.cleaning import deidentifier
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.storage import Storage


@dataclass(frozen=True, slots=True)
class RatedTalk:
    """Replies that something is known of, and talk that was rated as a whole, of people who teach."""

    evidence: list[Evidence]
    slice_: Slice
    learns: Callable[[str], bool]
    upto_seq: int

    def rated_as_a_whole(self) -> Iterator[tuple[Conversation, int]]:
        return ((c, rating) for c, rating in self.slice_.annotated() if self.learns(c.person))


@contextmanager
def rated_in_log(
    storage: Storage, config: LogConfig, learns: Callable[[str], bool] = lambda person: True
) -> Iterator[RatedTalk]:
    """Of all that the log holds, de-identified as a round would; a copy for the length of the block.

    learns   person -> whether their talk may teach

    Raises UserError when the log is empty.
    """
    with storage.scratch() as folder:
        name = (folder / "slice").relative_to(storage.root).as_posix()
        upto = table.head(storage)
        slices.pin(storage, name, 0, upto, clean=deidentifier(storage, config))
        slice_ = slices.open_slice(storage, name)
        rated = slice_.rated(feedback_upto(storage, upto), annotations_upto(storage, upto))
        evidence = evidence_of(c for c in rated if learns(c.person))
        yield RatedTalk(evidence, slice_, learns, upto)


@contextmanager
def rated_in_file(file: Path, format: str) -> Iterator[RatedTalk]:
    """Of a recorded file, which gets into no log. Raises UserError for one that cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(Path(folder))
        ingest(storage, file, format)
        with rated_in_log(storage, LogConfig(deidentify="none")) as talk:
            yield talk
