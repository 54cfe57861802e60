"""What a module is: a prompt in a file, and how its output is drawn. Each is one call of the chat model."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.conversations import Said

PROMPTS = Path(__file__).parent / "prompts"
TALK_CHARS = 1600  # of the talk, at most, in a module's prompt
LAST_CHARS = 800  # of one message
_FIELD = re.compile(r"\{(\w+)\}")

# Turns and settings -> what the model writes. Raises ModuleFailed when it cannot.
Generate = Callable[[Sequence[Turn], Decoding], Awaitable[str]]


class ModuleFailed(Exception):
    """The model did not answer a module. Its words are the kind of failure, never text of the talk."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module that thinks: its output is for the next module, not for people.

    Decisions and knowledge are drawn greedily, as BlenderBot 3 did.
    """

    name: str
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0

    def turns(self, **fields: str) -> list[Turn]:
        """The prompt with its fields filled in: a system turn, then a user turn."""
        instruction, _, question = prompt(self.name).partition("\n---\n")
        return [Turn("system", fill(instruction, fields)), Turn("user", fill(question, fields))]

    def decoding(self, seed: int) -> Decoding:
        return Decoding(self.max_new_tokens, self.temperature, self.top_p, seed)


THINKING = {
    module.name: module
    for module in (
        Module("search_decision", 4),
        Module("memory_decision", 4),
        Module("search_query", 16),
        Module("search_knowledge", 64),
        Module("memory_knowledge", 24),
        Module("entity_knowledge", 12),
        Module("memory_generation", 32),
    )
}


@dataclass(frozen=True, slots=True)
class Replying:
    """A module that replies: its prompt is the system turn before the talk. It is drawn as the request asks,
    at most as hot as `temperature`, because an invented detail hurts more where knowledge was found."""

    name: str
    temperature: float = 2.0

    def turns(self, history: Sequence[Said], system: str, knowledge: str) -> list[Turn]:
        text = fill(prompt(self.name), {"system": system, "knowledge": knowledge}).strip()
        return [*([Turn("system", text)] if text else []), *(Turn(said.role, said.text) for said in history)]

    def decoding(self, asked: Decoding) -> Decoding:
        return replace(asked, temperature=min(asked.temperature, self.temperature))


REPLYING = {
    module.name: module
    for module in (
        Replying("search_reply", 0.7),
        Replying("memory_reply", 0.9),
        Replying("entity_reply", 1.0),
        Replying("opener", 0.9),
        Replying("plain_reply"),
    )
}


@cache
def prompt(name: str) -> str:
    """The text of a prompt file."""
    path = PROMPTS / f"{name}.txt"
    if not path.is_file():
        raise UserError(f"{path} is missing: install bb3x-ray anew.")
    return path.read_text(encoding="utf-8").strip()


def fill(template: str, fields: dict[str, str]) -> str:
    """Put values into {names}, once: a value that holds braces itself stays as it is."""
    return _FIELD.sub(lambda match: fields[match[1]], template)


def one_line(text: str, most: int) -> str:
    """At most `most` characters, on one line: nobody speaks for somebody else by typing a line break."""
    return " ".join(text.split())[:most].strip()


def talk_text(history: Sequence[Said]) -> str:
    """The last messages, one a line, with who said it; at most about TALK_CHARS characters."""
    lines: list[str] = []
    room = TALK_CHARS
    for said in reversed(history):
        line = f"{'Person' if said.role == 'user' else 'Bot'}: {one_line(said.text, LAST_CHARS)}"
        room -= len(line)
        if room < 0 and lines:
            break
        lines.append(line)
    return "\n".join(reversed(lines))
