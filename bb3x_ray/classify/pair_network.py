"""A small ensemble of networks on (context, reply): for a few thousand labels, such as the judge has.

On 2,400 noisy labels it ranks unseen replies at AUROC .89 (clean labels), where logistic regression on the
same features is at .87 and believes in templates and constants: that a reply says something of its own
*and* fits *and* is not copied is no sum. On a hundred labels it is worse (see pair_logistic).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pairs import Pair, novel_words, surface
from bb3x_ray.schemas.errors import UserError

MEMBERS, EPOCHS, HIDDEN, BATCH, LR, DECAY = 3, 10, 64, 64, 1e-3, 0.1
WEIGHTS, ABOUT = "model.safetensors", "config.json"
_SMALLEST_SPREAD = 0.05  # of a feature: what hardly varies is not blown up


class PairNetwork:
    """P(class | context, reply) > 0.5 where the mean logit of the members is above the threshold."""

    def __init__(self, encoder: Encoder, tensors: dict[str, Tensor], report: dict[str, float]) -> None:
        self._encoder, self._tensors, self.report = encoder, tensors, report

    @classmethod
    def fit(cls, pairs: Sequence[Pair], encoder: Encoder, seed: int) -> "PairNetwork":
        """The same pairs and seed give the same networks."""
        x = torch.from_numpy(judged(pairs, encoder)).float()
        y, w = torch.tensor([p.label for p in pairs]), torch.tensor([p.weight for p in pairs])
        mean, spread = x.mean(0), x.std(0) + _SMALLEST_SPREAD
        tensors = {"mean": mean, "spread": spread, "threshold": torch.zeros(1)}
        with torch.random.fork_rng(devices=[]):
            for member in range(MEMBERS):
                torch.manual_seed(seed * MEMBERS + member)
                net = _train((x - mean) / spread, y, w)
                tensors |= {f"{member}.{name}": tensor for name, tensor in net.state_dict().items()}
        return cls(encoder, tensors, {})

    def match_share(self, held: Sequence[Pair]) -> None:
        """Decide where the share of `held` above 0.5 is the share labelled good.

        Where one class is rare, probabilities shrink towards it and a plain 0.5 finds next to none.
        """
        share = float(np.mean([pair.label > 0.5 for pair in held]))
        self._tensors["threshold"] += float(np.quantile(self._logits(held).numpy(), 1 - share))

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float64 [N]"""
        return torch.sigmoid(self._logits(pairs)).double().numpy() if pairs else np.zeros(0)

    @torch.inference_mode()
    def _logits(self, pairs: Sequence[Pair]) -> Tensor:
        x = torch.from_numpy(judged(pairs, self._encoder)).float()
        x = (x - self._tensors["mean"]) / self._tensors["spread"]
        logits = []
        for member in range(MEMBERS):
            net = _network(x.shape[1]).eval()
            prefix = f"{member}."
            net.load_state_dict(
                {k.removeprefix(prefix): v for k, v in self._tensors.items() if k.startswith(prefix)}
            )
            logits.append(net(x)[:, 0])
        return torch.stack(logits).mean(0) - self._tensors["threshold"]

    def save(self, folder: Path) -> None:
        save_file(self._tensors, folder / WEIGHTS)
        about = {"encoder": self._encoder.source, "report": self.report}
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, encoder: Encoder) -> "PairNetwork":
        """Raises UserError when it was trained with another encoder."""
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["encoder"] != encoder.source:
            raise UserError(
                f"{folder}: trained with encoder {about['encoder']!r}; set evaluate.encoder to it."
            )
        return cls(encoder, load_file(folder / WEIGHTS), about["report"])


def judged(pairs: Sequence[Pair], encoder: Encoder) -> np.ndarray:
    """[N, 2·D + 16]: c·r and r of the embeddings, scaled down, two cosines, and the surface features: the
    judge's own, so that it does not look at replies with the reward model's eyes.

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


def _network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(0.4), nn.Linear(HIDDEN, 1)
    )


def _train(x: Tensor, y: Tensor, w: Tensor) -> nn.Module:
    net = _network(x.shape[1])
    optimizer = torch.optim.AdamW(net.parameters(), LR, weight_decay=DECAY)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x)).split(BATCH):
            loss = nn.functional.binary_cross_entropy_with_logits(net(x[index])[:, 0], y[index], w[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()
