"""A whole transformer that learns P(good | context, reply, what came next): for many labels and a GPU.

Any Hugging Face backbone with a sequence classification head, encoder or causal. On a few hundred labels the
logistic regression on frozen embeddings (pair_logistic) is the better one, and much the faster.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bb3x_ray.classify.calibration import Calibrations
from bb3x_ray.classify.encoder import encoder_folder
from bb3x_ray.classify.pairs import Pair, without_hindsight
from bb3x_ray.schemas.errors import UserError

ABOUT = "classifier.json"
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Schedule:
    """`batch` counts pairs of one optimizer step over all workers; the rate warms up over a tenth of the
    steps and then falls to zero."""

    epochs: int = 3
    lr: float = 3e-5
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """This worker's place among those that learn together; `wrap` makes their gradients one mean."""

    rank: int = 0
    workers: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module


class PairTransformer:
    """P(good), calibrated for each of its two inputs: with hindsight and without."""

    def __init__(
        self, model: Any, tokenizer: Any, source: str, max_tokens: int, about: dict[str, Any] | None = None
    ) -> None:
        self._model, self._tokenizer, self.source, self._max_tokens = model, tokenizer, source, max_tokens
        about = about or {}
        self.base_rate: float = about.get("base_rate", 0.5)
        self.calibrations = Calibrations.from_dict(about.get("calibrations", {}))
        self.report: dict[str, Any] = about.get("report", {})
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)

    @classmethod
    def start(cls, source: str, max_tokens: int, seed: int) -> "PairTransformer":
        """The backbone at `source` with a new head, which `seed` draws.

        Raises UserError when there is no model at `source`.
        """
        folder = encoder_folder(source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder)
                model = AutoModelForSequenceClassification.from_pretrained(
                    folder, num_labels=1, use_safetensors=True, dtype=torch.float32
                )
            except OSError:
                raise UserError(
                    f"reward.encoder: no model at {source!r}: give `minilm`, a folder or a hub name."
                ) from None
        if tokenizer.pad_token is None:  # as causal models have it
            tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
        return cls(model, tokenizer, source, max_tokens)

    def learn(
        self,
        pairs: Sequence[Pair],
        schedule: Schedule,
        share: Share | None = None,
        on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    ) -> None:
        """Learn labels 0..1 with weights. A pair that has hindsight is shown with it in every other epoch.

        share     this worker's; all of them hold all pairs and end with the same weights
        on_step   called with step (from 1), steps, and the loss of this worker's part
        """
        share = share or Share()
        self.base_rate = float(
            sum(p.label * p.weight for p in pairs) / max(sum(p.weight for p in pairs), 1e-9)
        )
        module = share.wrap(self._model.train())
        optimizer = torch.optim.AdamW(module.parameters(), schedule.lr, weight_decay=0.01)
        batches = list(_batches(pairs, schedule))
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, _rise_and_fall(len(batches)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(schedule.seed * share.workers + share.rank)  # dropout's
            for step, batch in enumerate(batches, 1):
                # Gradients are averaged over workers, so each sum is over the whole batch's weight.
                whole = sum(pair.weight for pair in batch) / share.workers
                own = batch[share.rank :: share.workers] or [Pair("", ".", 0.5, 0.0)]
                loss = self._loss(module, own) / max(whole, 1e-9)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimizer.step()
                rate.step()
                on_step(step, len(batches), float(loss.detach()) / share.workers)
        self._model.eval()

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray:
        """P(good), float64 [N]: with hindsight where a pair has it."""
        return self.calibrations(self.logits(pairs), np.array([p.after is not None for p in pairs], bool))

    @torch.inference_mode()
    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Before calibration, float64 [N]."""
        found = np.zeros(len(pairs))
        order = np.argsort([len(text_of(pair)) for pair in pairs], kind="stable")
        self._model.eval()
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            found[rows] = self._forward(self._model, [pairs[i] for i in rows.tolist()]).double().cpu().numpy()
        return found

    def save(self, folder: Path) -> None:
        self._model.save_pretrained(folder, safe_serialization=True)
        self._tokenizer.save_pretrained(folder)
        about = {
            "encoder": self.source,
            "max_tokens": self._max_tokens,
            "base_rate": self.base_rate,
            "calibrations": asdict(self.calibrations),
            "report": self.report,
        }
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "PairTransformer":
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(model, tokenizer, about["encoder"], about["max_tokens"], about)

    def _loss(self, module: nn.Module, pairs: Sequence[Pair]) -> Tensor:
        labels = torch.tensor([pair.label for pair in pairs], device=self._device)
        weights = torch.tensor([pair.weight for pair in pairs], device=self._device)
        return nn.functional.binary_cross_entropy_with_logits(
            self._forward(module, pairs), labels, weights, reduction="sum"
        )

    def _forward(self, module: nn.Module, pairs: Sequence[Pair]) -> Tensor:
        inputs = self._tokenizer(
            [text_of(pair) for pair in pairs],
            padding=True,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
            split_special_tokens=True,  # what people write is words, never a control token
        ).to(self._device)
        logits: Tensor = module(**inputs).logits
        return logits[:, 0].float()


def text_of(pair: Pair) -> str:
    """What the model reads: the reply, what came next where that is known, and the context, newest first, so
    that what is cut off is the oldest.

    >>> text_of(Pair("Hi!", "Hello there.", after="How are you?"))
    'Reply: Hello there.\\nNext: How are you?\\nBefore: Hi!'
    """
    lines = [f"Reply: {_one_line(pair.reply)}"]
    if pair.after is not None:
        lines.append(f"Next: {_one_line(pair.after)}")
    return "\n".join([*lines, *(f"Before: {_one_line(turn)}" for turn in pair.context.split("\n"))])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _batches(pairs: Sequence[Pair], schedule: Schedule) -> Iterator[list[Pair]]:
    random = np.random.default_rng(schedule.seed)
    for epoch in range(schedule.epochs):
        order = random.permutation(len(pairs))
        for start in range(0, len(order), schedule.batch):
            yield [
                _shown(pairs[i], (i + epoch) % 2 == 0) for i in order[start : start + schedule.batch].tolist()
            ]


def _shown(pair: Pair, with_hindsight: bool) -> Pair:
    return pair if with_hindsight else without_hindsight(pair)


def _rise_and_fall(steps: int) -> Callable[[int], float]:
    warm = max(1, steps // 10)
    return lambda step: min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))
