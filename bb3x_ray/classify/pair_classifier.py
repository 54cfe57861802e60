"""Is this reply, in this context, of one class? A small head on a frozen encoder, calibrated.

Features of a pair: embeddings c and r of context and reply, their product and distance, and surface
features that a sentence embedding does not hold (length, copied words, how the reply ends).
Serves as reward model, as judge and as unsafe detector, each trained on data of its own.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bb3x_ray.classify.encoder import Encoder

HIDDEN = 64
_WORD = re.compile(r"[a-z']+")
_FIRST_PERSON = frozenset("i i'm im i've i'd i'll my me mine we our us".split())
_SECOND_PERSON = frozenset("you your you're youre yours u".split())


@dataclass(frozen=True, slots=True)
class Pair:
    """A reply in its context; `label` 1.0 for the class, 0.0 against, anything between for doubt."""

    context: str
    reply: str
    label: float = 0.0
    weight: float = 1.0


def surface(context: str, reply: str) -> list[float]:
    """Nine numbers, each about 0 to 1, that are plain to see in the text."""
    said, heard = _WORD.findall(reply.lower()), set(_WORD.findall(context.lower()))
    n = max(1, len(said))
    triples = list(zip(said, said[1:], said[2:], strict=False))
    return [
        min(len(said), 40) / 40,
        float(len(said) < 3),
        sum(w in heard for w in said) / n,
        float(reply.rstrip()[-1:] in set(".!?")),
        float("?" in reply),
        float("?" in context),
        sum(w in _FIRST_PERSON for w in said) / n * 4,
        sum(w in _SECOND_PERSON for w in said) / n * 4,
        1 - len(set(triples)) / max(1, len(triples)),
    ]


def features(pairs: Sequence[Pair], encoder: Encoder) -> Tensor:
    """[N, 4·D + 9] float32."""
    c = torch.from_numpy(encoder.embed([p.context for p in pairs]))
    r = torch.from_numpy(encoder.embed([p.reply for p in pairs]))
    plain = torch.tensor([surface(p.context, p.reply) for p in pairs], dtype=torch.float32)
    scale = c.shape[-1] ** 0.5  # entries of a unit vector are about 1/sqrt(D)
    return torch.cat([c * scale, r * scale, c * r * scale**2, (c - r).abs() * scale, plain * 3], dim=1)


class PairClassifier:
    """P(class | context, reply), calibrated by a temperature."""

    def __init__(
        self, encoder: Encoder, net: nn.Module, temperature: float, report: dict[str, float]
    ) -> None:
        self._encoder, self._net = encoder, net
        self.temperature, self.report = temperature, report

    @classmethod
    def fit(
        cls,
        pairs: Sequence[Pair],
        encoder: Encoder,
        *,
        epochs: int,
        lr: float,
        batch_size: int,
        seed: int,
        calibrate: Sequence[Pair] = (),
    ) -> "PairClassifier":
        """Train the head on `pairs`; fit the temperature on `calibrate`, which it never trains on."""
        generator = torch.Generator().manual_seed(seed)
        x, y, w = features(pairs, encoder), *_targets(pairs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = _head(x.shape[1])
            optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.1)
            net.train()
            for _ in range(epochs):
                for index in torch.randperm(len(x), generator=generator).split(batch_size):
                    loss = nn.functional.binary_cross_entropy_with_logits(
                        net(x[index])[:, 0], y[index], weight=w[index]
                    )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        net.eval()
        classifier = cls(encoder, net, 1.0, {})
        if len(calibrate) >= 8:
            classifier.temperature = _fit_temperature(classifier._logits(calibrate), _targets(calibrate)[0])
        return classifier

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Calibrated probabilities, float64 [N]."""
        if not pairs:
            return np.zeros(0)
        return torch.sigmoid(self._logits(pairs) / self.temperature).double().numpy()

    @torch.inference_mode()
    def _logits(self, pairs: Sequence[Pair]) -> Tensor:
        return self._net(features(pairs, self._encoder))[:, 0]

    def save(self, folder: Path) -> None:
        save_file(self._net.state_dict(), folder / "model.safetensors")
        about = {"encoder": self._encoder.source, "temperature": self.temperature, "report": self.report}
        (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, encoder: Encoder) -> "PairClassifier":
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        net = _head(4 * encoder.width + len(surface("", "")))
        net.load_state_dict(load_file(folder / "model.safetensors"))
        return cls(encoder, net.eval(), about["temperature"], about["report"])


def _head(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(0.3), nn.Linear(HIDDEN, 1)
    )


def _targets(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    return torch.tensor([p.label for p in pairs]), torch.tensor([p.weight for p in pairs])


def _fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the lowest cross-entropy: one number, so a grid is exact enough."""
    grid = torch.logspace(-1, 1, 81)
    losses = [nn.functional.binary_cross_entropy_with_logits(logits / t, labels) for t in grid]
    return float(grid[int(torch.stack(losses).argmin())])


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a positive scores above a negative; 0.5 where one of them is missing."""
    positive, negative = scores[labels > 0.5], scores[labels <= 0.5]
    if not len(positive) or not len(negative):
        return 0.5
    above = (positive[:, None] > negative[None, :]).mean()
    return float(above + (positive[:, None] == negative[None, :]).mean() / 2)


def balanced_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the accuracies on both classes, deciding at 0.5."""
    sides = [(scores[labels > 0.5] > 0.5), (scores[labels <= 0.5] <= 0.5)]
    return float(np.mean([side.mean() for side in sides if len(side)]))
