"""Structural failures of a reply: wrong whatever it says. Counted by rules, beside the judge."""

from collections import Counter

from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.evaluate.sentences import tokens

ECHO_OVERLAP = 0.8
TRIGRAM_REPEATS = 3
FEWEST_TOKENS = 3  # "hello" answered by "hello", or "yes" said twice, is ordinary talk


def structural_failure(prompt: Prompt, reply: str) -> str | None:
    """ "empty", "echo", "repetition", or None for a reply without such a failure."""
    said = tokens(reply)
    if not said:
        return "empty"
    if _is_echo(tokens(prompt.turns[-1]), said):
        return "echo"
    earlier = [tokens(turn) for turn in prompt.turns[-2::-2]]
    if _repeats_itself(said) or (len(said) >= FEWEST_TOKENS and said in earlier):
        return "repetition"
    return None


def _is_echo(message: list[str], said: list[str]) -> bool:
    """Nearly the person's message, a part of it, or it whole with little added."""
    if min(len(message), len(said)) < FEWEST_TOKENS:
        return False
    shared = (Counter(message) & Counter(said)).total()
    if shared >= ECHO_OVERLAP * max(len(message), len(said)):
        return True
    return _contains(message, said) or (_contains(said, message) and 2 * len(message) >= len(said))


def _contains(whole: list[str], part: list[str]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def _repeats_itself(said: list[str]) -> bool:
    trigrams = Counter(zip(said, said[1:], said[2:], strict=False))
    return any(count >= TRIGRAM_REPEATS for count in trigrams.values())
