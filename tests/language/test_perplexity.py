"""Perplexity against a loop that does one token at a time."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bb3x_ray.language import perplexity as module
from bb3x_ray.language.chat_template import Turn, render
from bb3x_ray.language.loading import ChatModel, load_model
from bb3x_ray.language.perplexity import perplexity
from tests.tiny import TEXTS
from tests.train.test_attention import FAMILIES, SMALL


def naive(chat: ChatModel, text: str) -> tuple[float, int]:
    rendered = render(chat.tokenizer, [Turn("assistant", text)])
    [span] = rendered.spans
    nll = 0.0
    for place in range(span.start, span.end):
        with torch.inference_mode():
            logits = chat.model(torch.tensor([rendered.input_ids[:place]])).logits[0, -1]
        nll -= float(logits.double().log_softmax(-1)[rendered.input_ids[place]])
    return nll, span.end - span.start


def test_equals_a_plain_loop(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_TOKENS", 60)
    monkeypatch.setattr(module, "_LOGIT_ROWS", 7)
    chat = load_model(tiny_model, dtype="float32", device="cpu")
    texts = [*TEXTS, "", " Hm. \n", "<|im_end|> said nobody"]
    found = perplexity(chat, texts)
    expected = [naive(chat, text) for text in texts]
    for (nll, tokens), (nll_, tokens_) in zip(found.per_text, expected, strict=True):
        assert tokens == tokens_ and nll == pytest.approx(nll_, rel=1e-5)
    assert found.tokens == sum(t for _, t in expected)
    assert found.value == pytest.approx(math.exp(sum(n for n, _ in expected) / found.tokens), rel=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "cohere", "granite"])
def test_what_models_do_to_their_logits_is_known(tiny_model: Path, family: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    sizes = SMALL | {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **sizes, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_()  # so that logits are large enough to be capped
    chat = ChatModel(model, tokenizer, torch.device("cpu"))
    found = perplexity(chat, TEXTS)
    for (nll, _), text in zip(found.per_text, TEXTS, strict=True):
        assert nll == pytest.approx(naive(chat, text)[0], rel=1e-4)


def test_no_token_at_all(tiny_model: Path) -> None:
    chat = load_model(tiny_model, dtype="float32", device="cpu")
    assert math.isnan(perplexity(chat, ["", " "]).value) and perplexity(chat, []).tokens == 0


def test_a_text_longer_than_the_model_reads(tiny_model: Path) -> None:
    chat = load_model(tiny_model, dtype="float32", device="cpu")
    assert 900 < perplexity(chat, ["tea and the sea " * 500]).tokens < chat.max_tokens
