"""P(good | context, reply, what came next), from a hundred labels or a hundred thousand.

What is plain to see in the text says more than embeddings: with 1,100 thumbs of volunteers, regression on
embeddings ranks replies to unseen people at AUROC .67, on plain numbers at .72.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bb3x_ray.classify.calibration import Calibration, Calibrations
from bb3x_ray.classify.encoder import Encoder, load_encoder
from bb3x_ray.classify.pair_features import features
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.classify.two_views import TwoViews, has_hindsight, without_hindsight
from bb3x_ray.schemas.errors import UserError

__all__ = ["PairLogistic", "calibrate", "cross_fit", "features"]
WEIGHTS, ABOUT = "model.safetensors", "config.json"
LAYOUT = 2  # of the features: weights of another layout would be read as nonsense


class PairLogistic:
    """P(good) of pairs, with hindsight where `after` is known, each kind with its own calibration.

    base_rate   share of good labels among what it learned from
    """

    def __init__(
        self,
        encoder: Encoder,
        model: TwoViews,
        base_rate: float,
        calibrations: Calibrations,
        report: dict[str, float],
    ) -> None:
        self._encoder, self._model = encoder, model
        self.base_rate, self.calibrations, self.report = base_rate, calibrations, report

    @classmethod
    def fit(cls, pairs: Sequence[Pair], encoder: Encoder, l2: float) -> "PairLogistic":
        """Raises ValueError for pairs without any weight."""
        return cls.fit_rows(features(pairs, encoder), pairs, encoder, l2)

    @classmethod
    def fit_rows(cls, x: np.ndarray, pairs: Sequence[Pair], encoder: Encoder, l2: float) -> "PairLogistic":
        """The same, where x is `features(pairs, encoder)`."""
        labels, weights = np.array([p.label for p in pairs]), np.array([p.weight for p in pairs])
        model = TwoViews.fit(x, labels, weights, l2)
        return cls(encoder, model, float((labels * weights).sum() / weights.sum()), Calibrations(), {})

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float64 [N]"""
        if not pairs:
            return np.zeros(0)
        x = features(pairs, self._encoder)
        return self.calibrations(self._model.logits(x), has_hindsight(x))

    def save(self, folder: Path) -> None:
        save_file(self._model.tensors, folder / WEIGHTS)
        about = {
            "layout": LAYOUT,
            "encoder": self._encoder.source,
            "base_rate": self.base_rate,
            "calibrations": asdict(self.calibrations),
            "report": self.report,
        }
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, encoder: Encoder | None = None) -> "PairLogistic":
        """`encoder`: None loads the one that it was trained with.

        Raises UserError when the folder holds no classifier, an old one, or one of another encoder.
        """
        if not (folder / ABOUT).is_file() or not (folder / WEIGHTS).is_file():
            raise UserError(f"{folder} holds no classifier ({ABOUT} and {WEIGHTS}): restore it from a copy.")
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about.get("layout") != LAYOUT:
            raise UserError(
                f"{folder}: this classifier is of an earlier version of bb3x-ray: train a new one."
            )
        encoder = encoder or load_encoder(about["encoder"])
        if about["encoder"] != encoder.source:
            raise UserError(
                f"{folder}: this classifier was trained with encoder {about['encoder']!r}; "
                "set reward.encoder to it."
            )
        calibrations = Calibrations.from_dict(about["calibrations"])
        model = TwoViews(load_file(folder / WEIGHTS))
        return cls(encoder, model, about["base_rate"], calibrations, about["report"])


def cross_fit(
    x: np.ndarray, labels: np.ndarray, weights: np.ndarray, fold: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """(logits with hindsight, logits without) of every example by a model that saw nothing of its fold.

    x       rows of `features`, [N, D]; a row without hindsight has both logits the same
    fold    [N]; an example of fold −1 is learned from by all and stays without logits (nan)
    """
    late, fresh = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for held_out in np.unique(fold[fold >= 0]):
        test, rest = fold == held_out, fold != held_out
        if not (rest & (fold >= 0)).any():
            continue
        model = TwoViews.fit(x[rest], labels[rest], weights[rest], l2)
        late[test], fresh[test] = model.logits(x[test]), model.logits(without_hindsight(x[test]))
    return late, fresh


def calibrate(late: np.ndarray, fresh: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Calibrations:
    """From `cross_fit`'s logits of as many examples; those without logits (nan) are left out."""
    seen = ~np.isnan(late)
    fits = (Calibration.fit(logits[seen], labels[seen], weights[seen]) for logits in (late, fresh))
    return Calibrations(*fits)
