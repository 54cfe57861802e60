"""Base models in the manner of OPT and GPT-2, tiny and random: they know eos, and bring no chat template."""

from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from tests.tiny import TEXTS

Style = Literal["opt", "gpt2"]
STYLES: tuple[Style, ...] = ("opt", "gpt2")
# OPT's `</s>` begins and ends a text; the tokenizer puts one before every text unless it is told not to.
_SPECIAL = {"opt": ["<s>", "<pad>", "</s>", "<unk>"], "gpt2": ["<|endoftext|>"]}
EOS = {"opt": "</s>", "gpt2": "<|endoftext|>"}


def trained_bpe(style: Style) -> Tokenizer:
    """Byte-level BPE of some 400 tokens, trained on a few sentences and the template's own names."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=_SPECIAL[style],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*TEXTS, "Person 1:\nHello Hello\nPerson 2:\nHello\n\n" * 20], trainer)
    if style == "opt":
        bpe.post_processor = processors.TemplateProcessing("</s> $A", special_tokens=[("</s>", 2)])
    return bpe


def base_tokenizer(style: Style) -> PreTrainedTokenizerBase:
    eos = EOS[style]
    pad = {"pad_token": "<pad>"} if style == "opt" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=trained_bpe(style), bos_token=eos, eos_token=eos, unk_token=eos, **pad
    )


def make_base_model(folder: Path, style: Style, seed: int = 0) -> Path:
    """Write a tiny random model with learned positions as a Hugging Face folder."""
    tokenizer = base_tokenizer(style)
    torch.manual_seed(seed)
    ids = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if style == "opt":
        opt = OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            pad_token_id=tokenizer.pad_token_id,
            **ids,
        )
        OPTForCausalLM(opt).save_pretrained(folder)
    else:
        gpt2 = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=256, **ids)
        GPT2LMHeadModel(gpt2).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
