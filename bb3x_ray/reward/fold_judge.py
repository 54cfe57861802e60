"""The models that judge thumbs in trust's folds."""

from collections.abc import Sequence

import numpy as np

from bb3x_ray.classify.bag_of_words import Logistic
from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pair_logistic import features
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.reward.signals import Signal

# Of 0.1 to 10, the best at telling helpers from trolls who gave 3 to 10 thumbs each.
L2 = 0.1


class EncoderFoldJudge:
    """Call it as trust's FoldJudge, on signals out of those that it was made with: every text is embedded
    once, not once a fold."""

    def __init__(self, encoder: Encoder, signals: Sequence[Signal], l2: float = L2) -> None:
        self._l2 = l2
        self._features = features([Pair(s.context, s.reply) for s in signals], encoder)
        self._row = {(s.context, s.reply): row for row, s in enumerate(signals)}

    def __call__(self, train: Sequence[Signal], weights: np.ndarray, test: Sequence[Signal]) -> np.ndarray:
        """P(label = 1) of `test`, float64 [N], learned from `train` with its weights."""
        labels = np.array([s.label for s in train], np.float64)
        return Logistic.fit(self._of(train), labels, weights, self._l2).predict(self._of(test))

    def _of(self, signals: Sequence[Signal]) -> np.ndarray:
        return self._features[[self._row[s.context, s.reply] for s in signals]]
