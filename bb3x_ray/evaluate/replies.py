"""A version's answers to the prompt sets, and how surprised it is by human text."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bb3x_ray.evaluate.judged import Replies
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.language.chat_template import Turn, prompt_ids
from bb3x_ray.language.generation import Decoding, generate
from bb3x_ray.language.loading import load_model
from bb3x_ray.language.perplexity import perplexity


@dataclass(frozen=True, slots=True)
class Asking:
    """How a version is asked: the same for every version, so that only the weights differ."""

    system_prompt: str
    decoding: Decoding
    max_context_tokens: int
    dtype: str = "auto"


@dataclass(frozen=True, slots=True)
class Answers:
    """`replies` by name of the prompt list; `perplexity` of the human texts (None when none were given)."""

    replies: dict[str, Replies]
    perplexity: float | None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Answers":
        row = json.loads(path.read_text(encoding="utf-8"))
        return cls({name: Replies(**r) for name, r in row["replies"].items()}, row["perplexity"])


def answer(
    folder: Path,
    prompts: dict[str, Sequence[Prompt]],
    human_texts: Sequence[str],
    asking: Asking,
    on_done: Callable[[int], None] | None = None,
) -> Answers:
    """Let the version in `folder` reply to every prompt; measure its perplexity on `human_texts`."""
    chat = load_model(folder, asking.dtype)
    flat = [prompt for listed in prompts.values() for prompt in listed]
    ids = [
        prompt_ids(chat.tokenizer, turns_of_prompt(p, asking.system_prompt), asking.max_context_tokens)
        for p in flat
    ]
    done = iter(generate(chat, ids, asking.decoding, on_done=on_done))
    replies = {}
    for name, listed in prompts.items():
        some = [next(done) for _ in listed]
        replies[name] = Replies([r.text.strip() for r in some], [r.finish_reason for r in some])
    surprise = perplexity(chat, list(human_texts)).value if human_texts else None
    return Answers(replies, surprise)


def turns_of_prompt(prompt: Prompt, system_prompt: str) -> list[Turn]:
    """The prompt as a conversation: the last turn is the person's."""
    last = len(prompt.turns) - 1
    turns = [Turn("user" if (last - i) % 2 == 0 else "assistant", t) for i, t in enumerate(prompt.turns)]
    return [Turn("system", system_prompt), *turns] if system_prompt else turns
