"""An encoder whose work several workers share: each embeds a part of the texts, and all get all of it."""

from collections.abc import Callable, Sequence

import numpy as np

from bb3x_ray.classify.encoder import Encoder

# One worker's array -> those of all workers, in the order of their ranks.
Gather = Callable[[np.ndarray], list[np.ndarray]]


class SharedEncoder(Encoder):
    """Stands for `encoder` in a worker. All of them must ask for the same texts in the same order."""

    def __init__(self, encoder: Encoder, rank: int, workers: int, gather: Gather) -> None:
        self._encoder, self._rank, self._workers, self._gather = encoder, rank, workers, gather
        self.source = encoder.source

    @property
    def width(self) -> int:
        return self._encoder.width

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As Encoder.embed: float32 [N, width]. A text's last digits depend on the number of workers."""
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        parts = self._gather(self._encoder.embed(distinct[self._rank :: self._workers]))
        place = {text: (i % self._workers, i // self._workers) for i, text in enumerate(distinct)}
        rows = [parts[rank][row] for rank, row in (place[text] for text in texts)]
        return np.stack(rows) if rows else np.zeros((0, self.width), np.float32)
