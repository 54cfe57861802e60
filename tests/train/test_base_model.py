"""Base models learn as chat models do: rows under plain prompts, CRINGE steps, and where a reply ends."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from bb3x_ray.language.chat_template import Turn, prompt_ids
from bb3x_ray.language.generation import Decoding, generate
from bb3x_ray.language.loading import import_model, load_model
from bb3x_ray.train import export
from bb3x_ray.train.batches import micro_batches
from bb3x_ray.train.step import train_step
from tests.data.test_curate import ask, conversation, reply, run, scored, words
from tests.language.base_models import EOS, STYLES, Style, make_base_model
from tests.train.test_step import PlainEngine, expected_gradient, module_of

GOOD, BAD = "I do, green tea most of all.", "Go away!"


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> Style:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def folder(style: Style, tmp_path: Path) -> Path:
    import_model(str(make_base_model(tmp_path / "source", style)), tmp_path / "model")
    return tmp_path / "model"


def rows_for(folder: Path) -> list[dict[str, Any]]:
    talk = [
        conversation("a", ask(), reply(GOOD), ask("Why is that?"), reply(BAD)),
        conversation("b", ask("Hello, how are you today?"), reply("Because", "length")),
        conversation("c", ask(), reply("A dog.")),
    ]
    scores = scored(a_1=0.9, a_3=0.1, b_1=0.8, c_1=0.2)
    rows, _ = run(AutoTokenizer.from_pretrained(folder), talk, scores, system_prompt="")
    return rows


def test_labels_are_the_replies_and_the_end_of_those_that_stopped(folder: Path, style: Style) -> None:
    tokenizer, rows = AutoTokenizer.from_pretrained(folder), rows_for(folder)
    assert [words(tokenizer, row, "imitate") for row in rows] == [GOOD + EOS[style], "Because", ""]
    assert [words(tokenizer, row, "avoid") for row in rows] == [BAD, "", "A dog."]


@pytest.mark.parametrize("packed", [True, False])
def test_conversations_in_one_row_give_the_gradient_of_separate_ones(folder: Path, packed: bool) -> None:
    """Learned positions begin anew in each conversation, packed or padded."""
    rows, module = rows_for(folder), module_of(folder, packed=packed)
    assert module.packing == ("segments" if packed else "none")
    expected, engine = expected_gradient(module, rows), PlainEngine(module)
    train_step(engine, micro_batches(rows, 1, 1000, pad_id=0), 0)
    assert engine.gradient.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(engine.gradient[name], gradient, rtol=1e-4, atol=1e-6)


def test_it_learns_what_to_say_and_where_to_stop(folder: Path, tmp_path: Path) -> None:
    rows, module = rows_for(folder)[:1], module_of(folder)
    engine = PlainEngine(module, lr=0.5)
    losses = [train_step(engine, micro_batches(rows, 1, 1000, pad_id=0), n)["loss"] for n in range(80)]
    assert losses[-1] < 0.1 * losses[0]
    export.write_model(
        module.model, export.whole_state(module.model, None, keep=True), folder, tmp_path / "v"
    )
    chat = load_model(tmp_path / "v", dtype="float32", device="cpu")
    prompts = [prompt_ids(chat.tokenizer, [Turn("user", "Do you like tea?")], 200)]
    (said,) = generate(chat, prompts, Decoding(max_new_tokens=60, temperature=0))
    assert (said.text, said.finish_reason) == (GOOD, "stop")
