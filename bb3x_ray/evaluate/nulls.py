"""The null gallery: replies that nobody had to learn. A judge that prefers them to people is invalid."""

from collections.abc import Sequence

from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.evaluate.sentences import sentences

CONSTANT = "That is interesting, tell me more about it."
BREVITY_SYSTEM_PROMPT = "Reply in one short sentence."


def constant(prompt: Prompt) -> str:
    return CONSTANT


def echo(prompt: Prompt) -> str:
    return prompt.turns[-1]


def template(prompt: Prompt) -> str:
    """A sentence around the person's last four words."""
    words = " ".join(prompt.turns[-1].split()[-4:]).strip(" .,;:!?…\"'")
    return f"I like that you say {words}. What makes you think of {words}?"


def first_sentence(reply: str) -> str:
    return next(iter(sentences(reply)), "")


def null_gallery(
    prompts: Sequence[Prompt], base_replies: Sequence[str], brevity_replies: Sequence[str]
) -> dict[str, list[str]]:
    """Replies of every null, each [len(prompts)].

    base_replies      v0001's replies, cut here to their first sentence
    brevity_replies   v0001's replies under BREVITY_SYSTEM_PROMPT
    Raises ValueError when their lengths differ from the prompts'.
    """
    if not len(prompts) == len(base_replies) == len(brevity_replies):
        raise ValueError("the null gallery needs one reply of each kind per prompt")
    return {
        "constant": [constant(prompt) for prompt in prompts],
        "echo": [echo(prompt) for prompt in prompts],
        "template": [template(prompt) for prompt in prompts],
        "brevity": list(brevity_replies),
        "first_sentence": [first_sentence(reply) for reply in base_replies],
    }
