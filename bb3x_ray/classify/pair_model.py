"""What is asked of every classifier of replies, and how one of them is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from bb3x_ray.classify.calibration import Calibrations
from bb3x_ray.classify.pair_logistic import PairLogistic
from bb3x_ray.classify.pair_transformer import ABOUT, PairTransformer
from bb3x_ray.classify.pairs import Pair


class PairModel(Protocol):
    """P(good) of replies, with hindsight where `after` is known, each kind with its own calibration.

    base_rate   share of good labels among what it learned from
    """

    base_rate: float
    calibrations: Calibrations
    report: dict[str, float]

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float64 [N]"""

    def save(self, folder: Path) -> None: ...


def load_pair_model(folder: Path) -> PairModel:
    """The classifier that was saved in `folder`, on the backbone that it was trained with.

    Raises UserError when there is none, or when the backbone is not to be had.
    """
    if (folder / ABOUT).is_file():
        return PairTransformer.load(folder)
    return PairLogistic.load(folder)
