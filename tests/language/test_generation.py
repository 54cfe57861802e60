"""Continuous batching: a request's reply is its own, whatever else is in the batch."""

import random
from pathlib import Path

import pytest
import torch

from bb3x_ray.language.generation import BatchGenerator, Decoding, Emitted, StreamText, decode, generate
from bb3x_ray.language.loading import ChatModel, load_model
from bb3x_ray.language.sampling import sample
from bb3x_ray.schemas.errors import UserError


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> ChatModel:
    return load_model(tiny_model, dtype="float32", device="cpu")


def prompts(count: int, seed: int = 0, longest: int = 40) -> list[list[int]]:
    source = random.Random(seed)
    return [[source.randrange(3, 300) for _ in range(source.randint(1, longest))] for _ in range(count)]


def naive(chat: ChatModel, prompt: list[int], decoding: Decoding) -> list[int]:
    """No cache, no batch, the whole vocabulary sorted: what the tokens ought to be."""
    source, ids = random.Random(decoding.seed), list(prompt)
    while len(ids) < len(prompt) + decoding.max_new_tokens:
        with torch.inference_mode():
            logits = chat.model(torch.tensor([ids])).logits[0, -1].double()
        uniform = source.random()
        if decoding.temperature == 0:
            token = int(logits.argmax())
        else:
            probs, order = (logits / decoding.temperature).softmax(-1).sort(descending=True)
            kept = probs[: int((probs.cumsum(-1) < decoding.top_p).sum()) + 1]
            token = int(order[int((kept.cumsum(-1) <= uniform * kept.sum()).sum())])
        if token in chat.eos_ids:
            break
        ids.append(token)
    return ids[len(prompt) :]


def drain(generator: BatchGenerator, into: dict[object, list[Emitted]]) -> None:
    while not generator.is_idle:
        for emitted in generator.step():
            into.setdefault(emitted.request_id, []).append(emitted)


def tokens(emitted: list[Emitted]) -> list[int]:
    return [e.token_id for e in emitted if e.token_id is not None]


@pytest.mark.parametrize("temperature,top_p", [(0.0, 1.0), (1.0, 0.9), (0.7, 1.0)])
def test_a_batch_gives_what_a_plain_loop_gives(chat: ChatModel, temperature: float, top_p: float) -> None:
    asked = prompts(9)
    replies = generate(chat, asked, Decoding(12, temperature, top_p, seed=5), max_batch=4)
    for i, (prompt, reply) in enumerate(zip(asked, replies, strict=True)):
        assert reply.token_ids == naive(chat, prompt, Decoding(12, temperature, top_p, seed=5 + i))
        assert reply.text == decode(chat.tokenizer, reply.token_ids)


def test_joining_midway_changes_nobody(chat: ChatModel) -> None:
    asked = prompts(14, seed=1, longest=120)
    decodings = [Decoding(5 + 3 * i, 1.0, 0.95, seed=i) for i in range(14)]
    alone: dict[object, list[Emitted]] = {}
    for i in range(14):
        one = BatchGenerator(chat, 1)
        one.add(i, asked[i], decodings[i])
        drain(one, alone)
    together: dict[object, list[Emitted]] = {}
    generator = BatchGenerator(chat, 5)
    for i in range(14):  # short ones, long ones, one every second step
        generator.add(i, asked[i], decodings[i])
        for _ in range(2):
            for emitted in generator.step():
                together.setdefault(emitted.request_id, []).append(emitted)
    drain(generator, together)
    assert together == alone


def test_length_and_stop(chat: ChatModel) -> None:
    seen: dict[object, list[Emitted]] = {}
    generator = BatchGenerator(chat, 20)
    for i, prompt in enumerate(prompts(60, seed=2)):
        generator.add(i, prompt, Decoding(12, 2.0, 1.0, seed=i))
    drain(generator, seen)
    reasons = {emitted[-1].finish_reason for emitted in seen.values()}
    assert reasons == {"stop", "length"}
    for emitted in seen.values():
        assert [e.finish_reason for e in emitted[:-1]] == [None] * (len(emitted) - 1)
        assert not set(tokens(emitted)) & chat.eos_ids
        if emitted[-1].finish_reason == "length":
            assert len(tokens(emitted)) == 12
        else:
            assert emitted[-1].token_id is None and len(tokens(emitted)) < 12


def test_no_more_run_at_once_than_allowed(chat: ChatModel) -> None:
    generator = BatchGenerator(chat, 3)
    for i, prompt in enumerate(prompts(7)):
        generator.add(i, prompt, Decoding(4))
    assert (generator.running, generator.waiting) == (0, 7)
    while not generator.is_idle:
        assert len(generator.step()) <= 3
        assert generator.running <= 3


def test_cancel(chat: ChatModel) -> None:
    asked = prompts(3)
    generator = BatchGenerator(chat, 2)
    for i, prompt in enumerate(asked):
        generator.add(i, prompt, Decoding(30, 0.0))
    first = {e.request_id for e in generator.step()}
    generator.cancel(0)  # running
    second = {e.request_id for e in generator.step()}
    generator.add(3, asked[0], Decoding(30, 0.0))
    generator.cancel(3)  # waiting
    generator.cancel("nobody")
    rest: dict[object, list[Emitted]] = {}
    drain(generator, rest)
    assert (first, second, set(rest)) == ({0, 1}, {1, 2}, {1, 2})
    assert generator.step() == []


def test_results_in_order_and_progress_as_each_is_done(chat: ChatModel) -> None:
    done: list[int] = []
    asked = prompts(6)
    replies = generate(chat, asked, Decoding(6, seed=3), max_batch=2, on_done=done.append)
    again = generate(chat, asked, Decoding(6, seed=3), max_batch=6)
    assert replies == again and done == [1, 2, 3, 4, 5, 6]
    assert generate(chat, [], Decoding(6)) == []


def test_prompts_that_cannot_be(chat: ChatModel) -> None:
    generator = BatchGenerator(chat, 2)
    with pytest.raises(ValueError):
        generator.add(0, [], Decoding(4))
    with pytest.raises(UserError, match="max_context_tokens"):
        generator.add(0, [5] * 1021, Decoding(4))
    generator.add(0, [5] * 1020, Decoding(4, 0.0))
    assert generator.waiting == 1
    for bad in ((0, 1.0, 1.0), (1, -1.0, 1.0), (1, 1.0, 0.0), (1, 1.0, 1.5)):
        with pytest.raises(ValueError):
            Decoding(*bad)


def test_the_nucleus_is_exact_beyond_the_short_list() -> None:
    """Flat distributions over 4,000 tokens do not fit the short list; peaked ones do."""
    torch.manual_seed(0)
    scale = torch.tensor([0.01, 0.1, 1.0, 5.0]).repeat_interleave(50).unsqueeze(1)
    logits = torch.randn(200, 4000) * scale
    top_p = torch.tensor([0.3, 0.9, 0.999, 1.0]).repeat(50)
    uniform = torch.rand(200)
    chosen = sample(logits, torch.ones(200), top_p, uniform)
    for row in range(200):
        probs, order = logits[row].double().softmax(-1).sort(descending=True)
        kept = probs[: int((probs.cumsum(-1) < top_p[row]).sum()) + 1]
        place = int((order == chosen[row]).nonzero())
        expected = int((kept.cumsum(-1) <= uniform[row] * kept.sum()).sum())
        assert abs(place - expected) <= 1  # float32 sums over thousands of tokens
    assert torch.equal(sample(logits, torch.zeros(200), top_p, uniform), logits.argmax(-1))


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20_000, 4)
    torch.manual_seed(0)
    drawn = sample(logits, torch.ones(20_000), torch.full((20_000,), 0.9), torch.rand(20_000))
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95, atol=0.015)


def test_streamed_text_is_the_text(chat: ChatModel) -> None:
    text = "naïve 🙂🙂 café, 日本語 and tea"
    ids = chat.tokenizer.encode(text, add_special_tokens=False)
    stream = StreamText(chat.tokenizer)
    deltas = [stream.push(i) for i in ids]
    assert "" in deltas and not any("\ufffd" in delta for delta in deltas)
    assert "".join(deltas) + stream.finish() == text


def test_a_character_that_stays_incomplete_is_given_out_at_the_end(chat: ChatModel) -> None:
    ids = chat.tokenizer.encode("tea 🙂", add_special_tokens=False)[:-1]
    stream = StreamText(chat.tokenizer)
    deltas = "".join(stream.push(i) for i in ids)
    assert deltas == "tea " and deltas + stream.finish() == decode(chat.tokenizer, ids)
