"""Templates in the style of well-known families, written for these tests."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bb3x_ray.language.plain_prompt import PLAIN_TEMPLATE
from tests.tiny import CHATML

# ChatML itself (tests.tiny) is SmolLM's; with a system prompt of its own it is Qwen 2's.
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    + CHATML
)
# A header with today's date, and every content trimmed (Llama 3.1 and later).
DATED = (
    "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y') + '\n\n' }}"
    "{% if messages and messages[0]['role'] == 'system' %}"
    "{{ messages[0]['content'] | trim }}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}"
    "{{ '<|im_end|>' }}"
    "{% for m in rest %}{{ '<|im_start|>' + m['role'] + '\n\n' + m['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
# Roles between special tokens, words trimmed, one special token first and another than eos after every turn
# (Llama 3).
HEADED = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|head|>' + m['role'] + '<|words|>\n\n' + m['content'] | trim + '<|over|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|words|>\n\n' }}{% endif %}"
)
# No system turn; the user begins; roles must alternate; another name for the assistant (Gemma).
ALTERNATING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim }}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
# Thoughts stand in the last reply only: the past changes as the conversation goes on (Qwen 3).
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Only replies are ended by a special token.
ENDS_REPLIES_ONLY = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + '<|im_end|>' }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
ENDLESS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
FORGETFUL = (
    "{% for m in messages[-2:] %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

GOOD = {
    "chatml": CHATML,
    "default_system": DEFAULT_SYSTEM,
    "dated": DATED,
    "headed": HEADED,
    "alternating": ALTERNATING,
    "ends_replies_only": ENDS_REPLIES_ONLY,
    "plain": PLAIN_TEMPLATE,
}


def tokenizer_with(folder: Path, template: str | None, thinking: bool = True) -> PreTrainedTokenizerBase:
    """The tiny tokenizer with another template, and with `<think>` as an added token that is not special."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if thinking:
        tokenizer.add_tokens(["<think>", "</think>"])
    if template == HEADED:
        tokenizer.add_tokens(["<|first|>", "<|head|>", "<|words|>", "<|over|>"], special_tokens=True)
        tokenizer.bos_token = "<|first|>"
    tokenizer.chat_template = template
    return tokenizer
