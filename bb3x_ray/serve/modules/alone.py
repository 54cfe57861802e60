"""One module by itself, to see what the model makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.conversations import Said
from bb3x_ray.serve.memory import Memory
from bb3x_ray.serve.modules import answers
from bb3x_ray.serve.modules.module import (
    LAST_CHARS,
    REPLYING,
    THINKING,
    Generate,
    one_line,
    talk_text,
)

NAMES = (*THINKING, *REPLYING)


@dataclass(frozen=True, slots=True)
class Answered:
    """What went in, what came out, and what it is read as."""

    turns: list[Turn]
    output: str
    read_as: str


async def call(
    name: str,
    history: Sequence[Said],
    generate: Generate,
    *,
    given: Sequence[str] = (),
    system: str = "",
    decoding: Decoding,
) -> Answered:
    """Call the module `name` for a talk that ends with the person's message.

    given     memories, documents or knowledge, whatever the module is about
    decoding  of replies; modules that think bring their own
    Raises UserError for an unknown name, ModuleFailed where the model fails.
    """
    if name in REPLYING:
        reply = REPLYING[name]
        turns = reply.turns(history, system, "\n".join(given))
        output = await generate(turns, reply.decoding(decoding))
        return Answered(turns, output, "")
    if name not in THINKING:
        raise UserError(f"there is no such module; choose one of {', '.join(NAMES)}.")
    module, memories = THINKING[name], [Memory("", text, "person", 0, 0) for text in given]
    last, talk = one_line(history[-1].text, LAST_CHARS), talk_text(history)
    turns = module.turns(
        last=last,
        before=one_line(history[-2].text, LAST_CHARS) if len(history) > 1 else "",
        talk=talk,
        memories="\n".join(f"{number}. person: {m.text}" for number, m in enumerate(memories, 1)),
        documents="\n".join(given),
    )
    output = await generate(turns, module.decoding(decoding.seed))
    return Answered(turns, output, _read(name, output, memories, talk, last))


def _read(name: str, output: str, memories: Sequence[Memory], talk: str, last: str) -> str:
    if name.endswith("_decision"):
        return "yes" if answers.is_yes(output) else "no"
    if name == "memory_knowledge":
        memory = answers.chosen(output, memories)
        read = memory.text if memory else ""
    elif name == "entity_knowledge":
        read = answers.entity(output, talk)
    elif name == "memory_generation":
        read = answers.memory_text(output, last)
    else:
        read = answers.text_of(output, answers.MAX_QUERY if name == "search_query" else answers.MAX_KNOWLEDGE)
    return read or "none"
