"""A talk with one version in this process, without a server. Nothing of it is logged or kept."""

import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from bb3x_ray.config import Config
from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.turn_parts import prepare_parts, search_of
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.conversations import Said
from bb3x_ray.serve.engines import choose
from bb3x_ray.serve.engines.protocol import Engine, EngineFailed, PromptRefused
from bb3x_ray.serve.memory import Memories
from bb3x_ray.serve.modules.bb3 import BB3, Talk
from bb3x_ray.serve.modules.module import ModuleFailed
from bb3x_ray.serve.reply import Asked, Reply
from bb3x_ray.storage import Storage

ME = "you"


@contextmanager
def open_engine(storage: Storage, config: Config, version: str | None) -> Iterator[Engine]:
    """An engine with the champion or a named version. Raises UserError for one that is not there."""
    models = Registry(storage, "models")
    version = version or models.champion
    if not models.is_published(version):
        there = ", ".join(models.versions()) or "none"
        raise UserError(f"there is no version {version} under {storage.root}: {there}.")
    engine = choose.open_engine(version, models.folder(version), config.serve, config.chat, config.model)
    try:
        yield engine
    finally:
        engine.close()


class Terminal:
    """One person's talk. Memories live in a scratch folder, as long as the talk.

    modules   whether modules think about each reply
    say       is told what takes its time, such as training a safety classifier
    """

    def __init__(
        self,
        storage: Storage,
        config: Config,
        engine: Engine,
        memories: Memories,
        modules: bool,
        say: Callable[[str], None],
    ) -> None:
        self.engine = engine
        self.history: list[Said] = []
        self._config = config
        thinking = BB3(config.modules, memories, search_of(config.modules)) if modules else None
        kept = prepare_parts(storage, config, say)()
        self._parts = replace(kept, memories=memories, modules=thinking)

    def say(self, text: str) -> Reply:
        """What the bot answers; read it with `read`. Call from an event loop."""
        self.history.append(Said("user", text))
        decoding = decoding_of(self._config)
        talk = Talk(
            self._config.chat.system_prompt,
            tuple(self.history),
            ME,
            "terminal",
            remembers=True,
            began_us=time.time_ns() // 1000,
            seed=decoding.seed,
        )
        return Reply(self.engine, self._parts, Asked(talk, decoding, (), None, apologise=True, key=text))

    async def read(self, reply: Reply) -> AsyncIterator[str]:
        """Its pieces; afterwards it is part of the talk."""
        text = ""
        async for delta in reply:
            text += delta.text
            yield delta.text
        self.history.append(Said("assistant", text))


class Asks:
    """An engine as modules call it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, turns: Sequence[Turn], decoding: Decoding) -> str:
        try:
            return "".join([delta.text async for delta in self._engine.submit(turns, decoding)])
        except (EngineFailed, PromptRefused) as error:
            raise ModuleFailed(type(error).__name__) from None


def decoding_of(config: Config) -> Decoding:
    chat = config.chat
    return Decoding(chat.max_new_tokens, chat.temperature, chat.top_p, random.getrandbits(63))
