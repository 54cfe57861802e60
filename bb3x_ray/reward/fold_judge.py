"""The models that judge thumbs in trust's folds."""

from collections.abc import Sequence

import numpy as np

from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pair_logistic import PairLogistic
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.reward.signals import Signal

# Of 0.1 to 10, the best at telling helpers from trolls who gave 3 to 10 thumbs each.
L2 = 0.1


class EncoderFoldJudge:
    """Call it as trust's FoldJudge."""

    def __init__(self, encoder: Encoder, l2: float = L2) -> None:
        self._encoder, self._l2 = encoder, l2

    def __call__(self, train: Sequence[Signal], weights: np.ndarray, test: Sequence[Signal]) -> np.ndarray:
        """P(label = 1) of `test`, float64 [N], learned from `train` with its weights."""
        pairs = [
            Pair(s.context, s.reply, float(s.label), float(weight))
            for s, weight in zip(train, weights, strict=True)
        ]
        model = PairLogistic.fit(pairs, self._encoder, self._l2)
        return model.predict([Pair(s.context, s.reply) for s in test])
