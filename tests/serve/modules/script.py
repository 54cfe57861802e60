"""A model that says what a table says: module -> output, found by the module's own instruction."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.serve.conversations import Said
from bb3x_ray.serve.modules.bb3 import Talk
from bb3x_ray.serve.modules.module import THINKING, ModuleFailed, prompt

_FIRST_LINES = {prompt(name).partition("\n")[0]: name for name in THINKING}


@dataclass
class Script:
    """`calls`: (module, what it was asked, decoding), in order. An output of None: the model fails."""

    outputs: dict[str, str | None]
    calls: list[tuple[str, str, Decoding]] = field(default_factory=list)
    waits: float = 0.0

    async def __call__(self, turns: Sequence[Turn], decoding: Decoding) -> str:
        name = _FIRST_LINES[turns[0].text.partition("\n")[0]]
        self.calls.append((name, turns[-1].text, decoding))
        await asyncio.sleep(self.waits)
        output = self.outputs[name]
        if output is None:
            raise ModuleFailed("EngineFailed")
        return output

    @property
    def asked(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def question(self, module: str) -> str:
        return next(question for name, question, _ in self.calls if name == module)


def talk_of(*texts: str, remembers: bool = True, began_us: int = 1) -> Talk:
    """A talk of alternating messages, the person's first and last."""
    history = tuple(Said("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))
    return Talk("Be kind.", history, "u-ada", "c1", remembers, began_us, seed=5)
