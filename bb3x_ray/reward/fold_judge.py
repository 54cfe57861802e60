"""The models that judge thumbs in trust's folds."""

from collections.abc import Sequence

import numpy as np

from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.newton import NewtonLogistic
from bb3x_ray.classify.pair_logistic import features
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.reward.signals import Signal

# Of 0.1 to 10, the best at telling helpers from trolls who gave 3 to 10 thumbs each.
L2 = 0.1
MOST = 20_000  # thumbs that a fold model learns from: it need not be the best, and there are dozens of them


class RowJudge:
    """Logistic regression on rows of features [N, D]: trust's Judge for anything that has features."""

    def __init__(self, x: np.ndarray, l2: float) -> None:
        self._x, self._l2 = x, l2

    def __call__(
        self, train: np.ndarray, labels: np.ndarray, weights: np.ndarray, test: np.ndarray
    ) -> np.ndarray:
        """P(label = 1) of the rows `test`, float64 [M], learned from the rows `train`."""
        return NewtonLogistic.fit(self._x[train], labels, weights, self._l2).predict(self._x[test])


class EncoderFoldJudge:
    """Call it as trust's FoldJudge, on signals out of those that it was made with: every text is embedded
    once, not once a fold."""

    def __init__(self, encoder: Encoder, signals: Sequence[Signal], l2: float = L2) -> None:
        self._l2 = l2
        self._features = features([Pair(s.context, s.reply) for s in signals], encoder)
        self._row = {(s.context, s.reply): row for row, s in enumerate(signals)}

    def __call__(
        self, train: Sequence[Signal], labels: np.ndarray, weights: np.ndarray, test: Sequence[Signal]
    ) -> np.ndarray:
        """P(label = 1) of `test`, float64 [N], learned from `train` with these labels and weights."""
        every = -(-len(train) // MOST)
        x = self._of(train[::every])
        return NewtonLogistic.fit(x, labels[::every], weights[::every], self._l2).predict(self._of(test))

    def _of(self, signals: Sequence[Signal]) -> np.ndarray:
        return self._features[[self._row[s.context, s.reply] for s in signals]]
