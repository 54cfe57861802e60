"""Logistic regression on (context, reply): what a hundred thumbs are enough for.

With about 90 noisy thumbs it ranks unseen replies at AUROC .76 where a small network on the same
encoder's embeddings is at .55: what is plain to see in the text has to weigh more than embeddings.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bb3x_ray.classify.bag_of_words import Logistic
from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pairs import Pair, novel_words, surface
from bb3x_ray.schemas.errors import UserError

WEIGHTS, ABOUT = "model.safetensors", "config.json"


def features(pairs: Sequence[Pair], encoder: Encoder) -> np.ndarray:
    """[N, 2·D + 16]: c·r and r of the embeddings, scaled down, two cosines, and the surface features.

    c is the first line of the context, which is the message that was answered. The second cosine is that
    of the reply's novel words alone: what is copied from a message is always near to it.
    """
    heard = [pair.context.partition("\n")[0] for pair in pairs]
    novel = [" ".join(novel_words(c, pair.reply)) or "." for c, pair in zip(heard, pairs, strict=True)]
    contexts, replies = encoder.embed(heard), encoder.embed([pair.reply for pair in pairs])
    product = contexts * replies
    near = [product.sum(1, keepdims=True), (contexts * encoder.embed(novel)).sum(1, keepdims=True)]
    plain = np.array([surface(context, pair.reply) for context, pair in zip(heard, pairs, strict=True)])
    return np.hstack([product * 2, replies * 0.5, *near, plain])


class PairLogistic:
    """P(good | context, reply), calibrated by a temperature.

    base_rate   share of good labels among what it learned from
    """

    def __init__(
        self,
        encoder: Encoder,
        model: Logistic,
        base_rate: float,
        temperature: float,
        report: dict[str, float],
    ) -> None:
        self._encoder, self._model = encoder, model
        self.base_rate, self.temperature, self.report = base_rate, temperature, report

    @classmethod
    def fit(cls, pairs: Sequence[Pair], encoder: Encoder, l2: float) -> "PairLogistic":
        """Raises ValueError for pairs without any weight."""
        labels, weights = np.array([p.label for p in pairs]), np.array([p.weight for p in pairs])
        model = Logistic.fit(features(pairs, encoder), labels, weights, l2)
        return cls(encoder, model, float((labels * weights).sum() / weights.sum()), 1.0, {})

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float64 [N]"""
        if not pairs:
            return np.zeros(0)
        logits = self._model.logits(features(pairs, self._encoder))
        return 1 / (1 + np.exp(-logits / self.temperature))

    def save(self, folder: Path) -> None:
        save_file({"weights": self._model.weights}, folder / WEIGHTS)
        about = {
            "encoder": self._encoder.source,
            "intercept": self._model.intercept,
            "base_rate": self.base_rate,
            "temperature": self.temperature,
            "report": self.report,
        }
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, encoder: Encoder) -> "PairLogistic":
        """Raises UserError when the folder holds no classifier, or one of another encoder."""
        if not (folder / ABOUT).is_file() or not (folder / WEIGHTS).is_file():
            raise UserError(f"{folder} holds no classifier ({ABOUT} and {WEIGHTS}): restore it from a copy.")
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["encoder"] != encoder.source:
            raise UserError(
                f"{folder}: this classifier was trained with encoder {about['encoder']!r}; "
                "set reward.encoder to it."
            )
        model = Logistic(load_file(folder / WEIGHTS)["weights"], about["intercept"])
        return cls(encoder, model, about["base_rate"], about["temperature"], about["report"])
