"""How well a model foretells what people write: the sign by which collapse is seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bb3x_ray.language.chat_template import Turn, plain_ids, render
from bb3x_ray.language.loading import ChatModel
from bb3x_ray.language.logits import finished

# Tokens read at once, padding included, and rows of the vocabulary's width held at once.
_BATCH_TOKENS = 4096
_LOGIT_ROWS = 512


@dataclass(frozen=True, slots=True)
class Perplexity:
    """per_text: negative log-likelihood in nats, and number of tokens, of each text, in order."""

    per_text: list[tuple[float, int]]

    @property
    def nll_sum(self) -> float:
        """Nats, over all tokens."""
        return math.fsum(nll for nll, _ in self.per_text)

    @property
    def tokens(self) -> int:
        return sum(tokens for _, tokens in self.per_text)

    @property
    def value(self) -> float:
        """Per token; NaN when there is no token."""
        return math.exp(self.nll_sum / self.tokens) if self.tokens else math.nan


@torch.inference_mode()
def perplexity(chat_model: ChatModel, texts: Sequence[str], system_prompt: str = "") -> Perplexity:
    """Perplexity of human `texts`, each as the words of an assistant who speaks first.

    What comes before the words (the template's opening, a system prompt) is context and not counted,
    nor is the end of the turn. Texts longer than the model reads lose their end.
    """
    tokenizer = chat_model.tokenizer
    system = [Turn("system", system_prompt)] if system_prompt.strip() else []
    empty = render(tokenizer, [*system, Turn("assistant", "")])
    opening = empty.input_ids[: empty.spans[-1].start]
    room = chat_model.max_tokens - len(opening)
    words = [plain_ids(tokenizer, text.strip())[:room] for text in texts]
    per_text: list[tuple[float, int]] = [(0.0, 0)] * len(words)
    for batch in _batches([len(opening) + len(ids) for ids in words]):
        sums = _nll(chat_model, opening, [words[i] for i in batch])
        for i, nll in zip(batch, sums, strict=True):
            per_text[i] = (nll, len(words[i]))
    return Perplexity(per_text)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices, longest first, in batches of at most `_BATCH_TOKENS` with padding (or of one)."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= _BATCH_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _nll(chat_model: ChatModel, opening: list[int], words: list[list[int]]) -> list[float]:
    """Sum over each text's own tokens."""
    width = len(opening) + max(len(ids) for ids in words)
    pad = [width - len(opening) - len(ids) for ids in words]

    def tensor(rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=chat_model.device)

    input_ids = tensor([opening + ids + [0] * p for ids, p in zip(words, pad, strict=True)])
    mask = tensor([[1] * (width - p) + [0] * p for p in pad])
    hidden = chat_model.model.base_model(input_ids=input_ids, attention_mask=mask, use_cache=False)[0]
    # The token at column c is foretold by the hidden state at c - 1.
    ours = mask.bool()
    ours[:, : len(opening)] = False
    rows, columns = ours.nonzero(as_tuple=True)
    targets = input_ids[rows, columns]
    sums = torch.zeros(len(words), dtype=torch.float64)
    head = chat_model.model.get_output_embeddings()
    for part in torch.arange(len(rows), device=rows.device).split(_LOGIT_ROWS):
        logits = finished(head(hidden[rows[part], columns[part] - 1]).float(), chat_model.model.config)
        nll = torch.nn.functional.cross_entropy(logits, targets[part], reduction="none")
        sums.index_add_(0, rows[part].cpu(), nll.double().cpu())
    return [float(x) for x in sums]
