"""Packing changes nothing, for models of every family; what the trainer cannot know is refused."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPTJConfig, GPTJForCausalLM

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train import export
from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.batches import Batch, collate
from bb3x_ray.train.objectives import Objective
from bb3x_ray.train.step import ConversationLoss, hidden_states
from tests.train.test_batches import row

CPU = torch.device("cpu")
SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 4},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 5.0},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4},
    "phi": {"partial_rotary_factor": 0.5},  # a head with a bias
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0},
    "gpt2": {},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {},  # knows positions by distance only: cannot be packed
}


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SMALL, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases are ones and zeros otherwise
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def conversations() -> list[dict[str, Any]]:
    made = torch.Generator().manual_seed(3)
    lengths = (7, 3, 12)
    return [
        row(
            torch.randint(1, 60, (n,), generator=made).tolist(),
            ".." + "x" * (n - 3) + ".",
            "." * (n - 1) + "x",
        )
        | {"row_id": f"r{n}"}
        for n in lengths
    ]


def expected(model: Any, batch: Batch) -> torch.Tensor:
    """Hidden states of every conversation by itself, as the library computes them."""
    alone = [
        model.base_model(input_ids=batch.input_ids[:, start:end]).last_hidden_state[0]
        for start, end in batch.segments
    ]
    return torch.cat(alone)


@pytest.mark.parametrize("family", FAMILIES)
def test_conversations_in_one_row_do_not_see_each_other(family: str) -> None:
    model, batch = model_of(family), collate(conversations(), 0)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        alone = expected(model, batch)
        packing = choose_packing(model, CPU, half=False)
        packed = hidden_states(model, batch, packing)
    assert (packing == "none") == (family == "bloom")
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_and_what_stands_behind_it(family: str) -> None:
    """Caps, scales and a bias are known; loss and gradient come from the very logits of the model."""
    model, batch = model_of(family), collate(conversations(), 0)
    packing = choose_packing(model, CPU, half=False)
    module = ConversationLoss(model, Objective(alpha=0.0), packing)
    export.check_head(module, batch)
    logits = export.live_logits(model, batch, packing)[batch.at].log_softmax(1)
    ce = -logits[batch.imitate].gather(1, batch.targets[batch.imitate][:, None]).sum()
    loss, _ = module(batch, 0)
    torch.testing.assert_close(loss.detach(), ce, rtol=1e-4, atol=1e-4)


def test_recomputing_activations_changes_nothing() -> None:
    gradients = []
    for recompute in (False, True):
        model = model_of("llama").train()
        packing = choose_packing(model, CPU, half=False)
        if recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        loss, _ = ConversationLoss(model, Objective(), packing)(collate(conversations(), 0), 0)
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_head_with_another_shape_of_logits_is_refused() -> None:
    """What a model does behind its head that nobody told the trainer of."""
    model = model_of("llama")
    forward = model.lm_head.forward
    model.lm_head.forward = lambda hidden: forward(hidden) * 1.5
    module = ConversationLoss(model, Objective(), choose_packing(model, CPU, half=False))
    with pytest.raises(UserError, match="llama models change their logits"):
        export.check_head(module, collate(conversations(), 0))


def test_a_model_without_the_library_s_attention_gets_padded_rows() -> None:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 60, "rotary_dim": 4}
    model = GPTJForCausalLM(GPTJConfig(**sizes)).eval()
    batch = collate(conversations(), 0)
    packing = choose_packing(model, CPU, half=False)
    assert packing == "none"
    with torch.no_grad():
        torch.testing.assert_close(hidden_states(model, batch, packing), expected(model, batch))
