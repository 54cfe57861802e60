"""Batched generation in which requests join and leave a running batch (continuous batching)."""

import random
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache, DynamicLayer

from bb3x_ray.language.kv_cache import BatchCache, States
from bb3x_ray.language.loading import ChatModel
from bb3x_ray.language.sampling import sample
from bb3x_ray.schemas.errors import UserError

# Padded prompt tokens read in one step: running requests wait for newcomers no longer than this takes.
_PREFILL_TOKENS = 2048
# Colder than this is the best token each time: scores divided by next to nothing are no numbers any more, on
# which a GPU's generation dies. vLLM draws its line here, too.
COLDEST = 0.01


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a reply is drawn. Temperature 0, which is all below COLDEST, takes the best token each time."""

    max_new_tokens: int
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or not self.temperature >= 0 or not 0 < self.top_p <= 1:
            raise ValueError("decoding needs max_new_tokens >= 1, temperature >= 0 and 0 < top_p <= 1")
        if self.temperature < COLDEST:
            object.__setattr__(self, "temperature", 0.0)


@dataclass(frozen=True, slots=True)
class Emitted:
    """What one request got in one step.

    finish_reason   None while it runs on; "length" with its last token; "stop" when the model ended
                    its turn: then `token_id` is None, as the token that ends a turn is no text
    """

    request_id: Hashable
    token_id: int | None
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished reply. `token_ids` are without the token that ended the turn."""

    text: str
    token_ids: list[int]
    finish_reason: str


@dataclass(slots=True)
class _Request:
    request_id: Hashable
    prompt: list[int]
    decoding: Decoding
    random: random.Random
    last_token: int
    length: int = 0  # tokens in the cache
    emitted: int = 0


class BatchGenerator:
    """Generates for many requests at once; not thread-safe, one thread owns it.

    A request's tokens depend on its prompt, its decoding and its seed, not on what else is in the
    batch (up to the float noise of batched matrix products).
    """

    def __init__(self, chat_model: ChatModel, max_batch: int) -> None:
        self._chat_model = chat_model
        self._max_batch = max_batch
        self._waiting: deque[_Request] = deque()
        self._rows: list[_Request | None] = []  # one for each row of the cache; None: free
        self._cache = BatchCache(chat_model.device)

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not any(self._rows)

    @property
    def running(self) -> int:
        return sum(row is not None for row in self._rows)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, request_id: Hashable, prompt_ids: Sequence[int], decoding: Decoding) -> None:
        """Queue a request; it joins the batch in one of the next steps.

        Raises ValueError for an empty prompt, UserError when prompt and reply exceed what the model reads.
        """
        if not prompt_ids:
            raise ValueError("a prompt needs at least one token")
        if len(prompt_ids) + decoding.max_new_tokens > self._chat_model.max_tokens:
            raise UserError(
                f"a prompt of {len(prompt_ids)} tokens and a reply of {decoding.max_new_tokens} exceed the "
                f"{self._chat_model.max_tokens} tokens that the model reads; lower chat.max_context_tokens."
            )
        prompt = [int(token) for token in prompt_ids]
        self._waiting.append(
            _Request(request_id, prompt, decoding, random.Random(decoding.seed), last_token=prompt[-1])
        )

    @torch.inference_mode()
    def cancel(self, request_id: Hashable) -> None:
        """Forget a request, waiting or running; one that is not there (any more) is no error."""
        self._waiting = deque(r for r in self._waiting if r.request_id != request_id)
        for row, request in enumerate(self._rows):
            if request is not None and request.request_id == request_id:
                self._free(row)

    @torch.inference_mode()
    def step(self) -> list[Emitted]:
        """One token for each running request; waiting ones join first, as far as there is room."""
        self._admit()
        live = [(row, request) for row, request in enumerate(self._rows) if request is not None]
        if not live:
            return []
        tokens = self._choose(self._logits(), live)
        emitted = [
            self._emit(row, request, token) for (row, request), token in zip(live, tokens, strict=True)
        ]
        self._shrink()
        return emitted

    def _admit(self) -> None:
        batch: list[_Request] = []
        longest = 0
        while self._waiting and self.running + len(batch) < self._max_batch:
            longest = max(longest, len(self._waiting[0].prompt))
            if batch and longest * (len(batch) + 1) > _PREFILL_TOKENS:
                break
            batch.append(self._waiting.popleft())
        if not batch:
            return
        free = [row for row, request in enumerate(self._rows) if request is None]
        rows = [*free, *range(len(self._rows), len(self._rows) + len(batch))][: len(batch)]
        self._rows += [None] * (max(rows) + 1 - len(self._rows))
        self._cache.join(rows, self._prefill(batch), [r.length for r in batch], len(self._rows))
        for row, request in zip(rows, batch, strict=True):
            self._rows[row] = request

    def _prefill(self, batch: list[_Request]) -> States:
        """Read all but the last token of each prompt: that one is read by the step that follows."""
        for request in batch:
            request.length = len(request.prompt) - 1
        # A batch of prompts of one token still reads a column, which nobody will see.
        width = max(1, *(request.length for request in batch))
        ids = [[0] * (width - r.length) + r.prompt[:-1] for r in batch]
        mask = [[0] * (width - r.length) + [1] * r.length for r in batch]
        cache = DynamicCache()
        attention = self._tensor(mask)
        self._chat_model.model.base_model(
            input_ids=self._tensor(ids),
            attention_mask=attention,
            position_ids=(attention.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        # Llama-like layers only: a state-space layer has no keys, and its models are not served.
        return [(layer.keys, layer.values) for layer in cast(list[DynamicLayer], cache.layers)]  # type: ignore[misc]

    def _logits(self) -> Tensor:
        """Read each row's last token. Returns [rows, vocabulary]."""
        cache, mask = self._cache.begin_step()
        out = self._chat_model.model(
            input_ids=self._tensor([[row.last_token if row else 0] for row in self._rows]),
            attention_mask=mask,
            position_ids=self._tensor([[row.length if row else 0] for row in self._rows]),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        for row in self._rows:
            if row is not None:
                row.length += 1
        self._cache.end_step([row.length for row in self._rows if row is not None])
        return out.logits[:, -1]

    def _choose(self, logits: Tensor, live: list[tuple[int, _Request]]) -> list[int]:
        decodings = [request.decoding for _, request in live]

        def per_row(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=logits.device)

        tokens = sample(
            logits[self._tensor([row for row, _ in live])].float(),
            per_row([d.temperature for d in decodings]),
            per_row([d.top_p for d in decodings]),
            per_row([request.random.random() for _, request in live]),
        )
        return [int(token) for token in tokens.tolist()]

    def _emit(self, row: int, request: _Request, token: int) -> Emitted:
        if token in self._chat_model.eos_ids:
            self._free(row)
            return Emitted(request.request_id, None, "stop")
        request.last_token = token
        request.emitted += 1
        if request.emitted == request.decoding.max_new_tokens:
            self._free(row)
            return Emitted(request.request_id, token, "length")
        return Emitted(request.request_id, token, None)

    def _free(self, row: int) -> None:
        self._rows[row] = None
        self._cache.free(row)

    def _shrink(self) -> None:
        """Give up free rows that nobody waits for, once they are a quarter: to move the others costs time."""
        kept = [row for row, request in enumerate(self._rows) if request is not None]
        if not kept:
            self._rows = []
            self._cache.clear()
        elif not self._waiting and len(kept) <= 0.75 * len(self._rows):
            self._rows = [self._rows[row] for row in kept]
            self._cache.keep(kept)

    def _tensor(self, values: list[int] | list[list[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._chat_model.device)


class StreamText:
    """Turns tokens into text as they come. A character of several tokens is held back until it is whole."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0  # first of the tokens that are decoded with the new ones, for their spaces
        self._given = 0  # tokens whose text was given out

    def push(self, token_id: int) -> str:
        """The text that is certain now and was not before, perhaps none."""
        self._ids.append(token_id)
        return self._more(hold=True)

    def finish(self) -> str:
        """What was held back to the end."""
        return self._more(hold=False)

    def _more(self, hold: bool) -> str:
        before = decode(self._tokenizer, self._ids[self._context : self._given])
        now = decode(self._tokenizer, self._ids[self._context :])
        if len(now) <= len(before) or (hold and now.endswith("\ufffd")):
            return ""
        self._context, self._given = self._given, len(self._ids)
        return now[len(before) :]


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The text of a reply's tokens, without special tokens."""
    text = tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def generate(
    chat_model: ChatModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    max_batch: int = 64,
    on_done: Callable[[int], None] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Reply]:
    """Reply to every prompt (token ids), in order; prompt i is drawn with seed `seeds[i]`.

    seeds     `decoding.seed + i` where none are given
    on_done   called with the number of replies finished so far, as each is finished
    """
    generator = BatchGenerator(chat_model, max_batch)
    seeds = range(decoding.seed, decoding.seed + len(prompts)) if seeds is None else seeds
    for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):  # alike lengths need little padding
        generator.add(i, prompts[i], replace(decoding, seed=seeds[i]))
    tokens: list[list[int]] = [[] for _ in prompts]
    replies: dict[int, Reply] = {}
    while not generator.is_idle:
        for got in generator.step():
            i = cast(int, got.request_id)
            if got.token_id is not None:
                tokens[i].append(got.token_id)
            if got.finish_reason is not None:
                replies[i] = Reply(decode(chat_model.tokenizer, tokens[i]), tokens[i], got.finish_reason)
                if on_done is not None:
                    on_done(len(replies))
    return [replies[i] for i in range(len(prompts))]
