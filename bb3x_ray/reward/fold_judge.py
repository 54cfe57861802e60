"""The models that judge thumbs in trust's folds: logistic regression, as a fold holds few thumbs."""

from collections.abc import Sequence

import numpy as np

from bb3x_ray.classify.bag_of_words import Logistic
from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pair_classifier import surface
from bb3x_ray.reward.signals import Signal

L2 = 0.3  # of 0.1 to 10, the best at telling helpers from trolls with 3 to 10 thumbs a person


class EncoderFoldJudge:
    """Call it as trust's FoldJudge: P(label = 1) from embeddings and surface features of both texts."""

    def __init__(self, encoder: Encoder, l2: float = L2) -> None:
        self._encoder, self._l2 = encoder, l2

    def __call__(self, train: Sequence[Signal], weights: np.ndarray, test: Sequence[Signal]) -> np.ndarray:
        labels = np.array([s.label for s in train], np.float64)
        model = Logistic.fit(self.features(train), labels, weights, self._l2)
        return model.predict(self.features(test))

    def features(self, signals: Sequence[Signal]) -> np.ndarray:
        """[N, 2·D + 10]: c·r and r of the embeddings, their cosine, and nine surface features."""
        # The message that was answered, alone: with so few thumbs the turn before it is noise.
        heard = [s.context.partition("\n")[0] for s in signals]
        contexts = self._encoder.embed(heard)
        replies = self._encoder.embed([s.reply for s in signals])
        product = contexts * replies
        plain = np.array([surface(context, s.reply) for context, s in zip(heard, signals, strict=True)])
        cosine = product.sum(1, keepdims=True)
        return np.hstack([product * 4, replies, cosine, plain])
