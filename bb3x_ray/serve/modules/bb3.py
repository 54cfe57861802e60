"""BlenderBot 3's turn, in its order:

    1  search decision (last message)        memory decision (memories, last message)     together
    2  search query → search → knowledge     a memory is chosen                           together
    3  neither wanted, or search failed      → what the talk is about (entity knowledge)
       a person returns, nothing was found   → an opener from memories instead
    4  the reply, grounded in all that was found: search, memory, entity, opener or plain
    5  memories are made of the person's message and of the reply

A decision that is not a clear yes is no; a module that fails counts as one that found nothing.
Who asks: `think`, then writes the reply to what it gives, then `remember`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from starlette.concurrency import run_in_threadpool

from bb3x_ray.config import ModulesConfig
from bb3x_ray.language.chat_template import Turn
from bb3x_ray.serve.conversations import Said
from bb3x_ray.serve.memory import About, Memories, Memory, offered
from bb3x_ray.serve.modules import answers
from bb3x_ray.serve.modules.module import (
    LAST_CHARS,
    REPLYING,
    THINKING,
    Generate,
    ModuleFailed,
    Replying,
    one_line,
    talk_text,
)
from bb3x_ray.serve.modules.trace import Step, Trace, labelled
from bb3x_ray.serve.search import Document, Search, SearchFailed

OPENER_MEMORIES = 3
Forced = Literal["always", "never", "decide"]


@dataclass(frozen=True, slots=True)
class Talk:
    """What a turn is about. `remembers`: the person is known by a name, and consented to being remembered."""

    system: str
    history: tuple[Said, ...]  # the person's message last
    person: str
    conversation_id: str
    remembers: bool
    began_us: int
    seed: int

    @property
    def last(self) -> str:
        return one_line(self.history[-1].text, LAST_CHARS)

    @property
    def before(self) -> str:
        return one_line(self.history[-2].text, LAST_CHARS) if len(self.history) > 1 else ""


@dataclass(frozen=True, slots=True)
class Prompted:
    """What to write the reply to, by which module; `used`: ids of the memories in it."""

    module: Replying
    turns: list[Turn]
    used: tuple[str, ...] = ()


class BB3:
    """The modules over one model, which the caller brings along as `generate`."""

    def __init__(self, config: ModulesConfig, memories: Memories | None, search: Search | None) -> None:
        self._config = config
        self._memories = memories
        self._search = search

    async def think(self, talk: Talk, generate: Generate, trace: Trace) -> Prompted:
        """Everything before the reply. After `timeout_s` the reply is a plain one."""
        try:
            async with asyncio.timeout(self._config.timeout_s):
                return await self._think(_Asking(talk, generate, trace))
        except TimeoutError:
            trace.decisions["modules_timed_out"] = True
            return _prompted("plain_reply", talk, [])

    async def remember(
        self, talk: Talk, reply: str, used: tuple[str, ...], generate: Generate, trace: Trace,
        is_safe: Callable[[str], bool],
    ) -> list[Memory]:  # fmt: skip
        """Make memories of both sides of the turn; returns the new ones. `is_safe` may block."""
        if self._memories is None or not talk.remembers:
            return []
        await run_in_threadpool(self._memories.next_turn, talk.person, used)
        if self._config.remember == "never":
            return []
        ask = _Asking(talk, generate, trace)
        sides: list[tuple[About, str, str]] = [("person", talk.before, talk.last)]
        sides.append(("bot", talk.last, one_line(reply, LAST_CHARS)))
        made = await asyncio.gather(*(self._note(ask, *side, is_safe) for side in sides))
        return [memory for memory in made if memory is not None]

    async def _think(self, ask: "_Asking") -> Prompted:
        talk, trace = ask.talk, ask.trace
        memories = await self._offered(talk)
        trace.offered(memories)
        search, memory = await asyncio.gather(
            self._wants(ask, "search_decision", self._config.search if self._search else "never"),
            self._wants(ask, "memory_decision", self._config.memory if memories else "never", memories),
        )
        trace.decisions["search_decision"] = "search" if search else "do not search"
        trace.decisions["memory_decision"] = "access memory" if memory else "do not access memory"
        looked_up, recalled = await asyncio.gather(
            self._look_up(ask) if search else _nothing(), self._recall(ask, memories) if memory else _none()
        )
        knowledge = {"search_reply": looked_up, "memory_reply": labelled(recalled) if recalled else ""}
        returning = len(talk.history) == 1 and memories and self._config.opener == "decide"
        if not any(knowledge.values()) and returning:
            return _opener(talk, memories)
        if self._config.entity == "always" or (
            self._config.entity == "decide"
            and ("search_failure" in trace.decisions or not (search or memory))
        ):
            knowledge["entity_reply"] = await self._entity(ask)
        found = [text for text in knowledge.values() if text]
        kind = next((name for name, text in knowledge.items() if text), "plain_reply")
        return _prompted(kind, talk, found, (recalled.id,) if recalled else ())

    async def _offered(self, talk: Talk) -> list[Memory]:
        if self._memories is None or not talk.remembers or self._config.memory == "never":
            return []
        return offered(await run_in_threadpool(self._memories.of, talk.person), talk_text(talk.history))

    async def _wants(
        self, ask: "_Asking", module: str, forced: Forced, memories: list[Memory] | None = None
    ) -> bool:
        if forced != "decide":
            return forced == "always"
        step = await ask.module(module, memories=_listed(memories or []), last=ask.talk.last)
        return step.decided(answers.is_yes(step.output), "yes", "no")

    async def _look_up(self, ask: "_Asking") -> str:
        """What was found to say, or "". A search without a result is marked as a failure."""
        assert self._search is not None
        step = await ask.module("search_query", talk=talk_text(ask.talk.history))
        query = answers.text_of(step.output, answers.MAX_QUERY)
        step.decided(bool(query), "asked", "none")
        ask.trace.words["search_query"] = query
        documents = await self._searched(ask, query) if query else []
        ask.trace.found(documents)
        if not documents:
            ask.trace.decisions["search_failure"] = True
            return ""
        # The best one last: what is too long for the model loses its beginning.
        listed = "\n".join(f"{d.title}: {d.content}" for d in reversed(documents))
        step = await ask.module("search_knowledge", documents=listed, talk=talk_text(ask.talk.history))
        knowledge = answers.text_of(step.output, answers.MAX_KNOWLEDGE)
        step.decided(bool(knowledge), "found", "none")
        ask.trace.words["search_knowledge"] = knowledge
        return knowledge

    async def _searched(self, ask: "_Asking", query: str) -> list[Document]:
        assert self._search is not None
        with ask.trace.step("search", len(query)) as step:
            try:
                documents = await self._search(query)
            except SearchFailed as error:
                step.error = str(error)
                return []
            step.decision = f"{len(documents)} documents"
            return documents

    async def _recall(self, ask: "_Asking", memories: list[Memory]) -> Memory | None:
        talk = talk_text(ask.talk.history)
        step = await ask.module("memory_knowledge", memories=_listed(memories), talk=talk)
        memory = answers.chosen(step.output, memories)
        step.decided(memory is not None, "chosen", "none that exists")
        ask.trace.words["memory_knowledge"] = labelled(memory) if memory else ""
        return memory

    async def _entity(self, ask: "_Asking") -> str:
        talk = talk_text(ask.talk.history)
        step = await ask.module("entity_knowledge", talk=talk)
        entity = answers.entity(step.output, talk)
        step.decided(bool(entity), "found", "none of the talk")
        ask.trace.words["entity_knowledge"] = entity
        return entity

    async def _note(
        self, ask: "_Asking", about: About, before: str, said: str, is_safe: Callable[[str], bool]
    ) -> Memory | None:
        assert self._memories is not None
        step = await ask.module("memory_generation", before=before, last=said)
        note = answers.memory_text(step.output, said)
        safe: bool = await run_in_threadpool(is_safe, note) if note else False
        memory: Memory | None = None
        if safe:
            memory = await run_in_threadpool(
                self._memories.add, ask.talk.person, note, about, ask.talk.began_us, ask.talk.conversation_id
            )
        step.decided(memory is not None, f"kept, {about}", f"nothing new, {about}")
        return memory


class _Asking:
    """Calls modules for one turn, and traces them."""

    def __init__(self, talk: Talk, generate: Generate, trace: Trace) -> None:
        self.talk, self.trace = talk, trace
        self._generate = generate

    async def module(self, name: str, **fields: str) -> Step:
        """The module's call, done; its output is "" when the model failed."""
        module = THINKING[name]
        turns = module.turns(**fields)
        with self.trace.step(name, sum(len(turn.text) for turn in turns)) as step:
            try:
                step.output = await self._generate(turns, module.decoding(self.talk.seed))
            except ModuleFailed as error:
                step.error = str(error)
        return step


def _opener(talk: Talk, memories: list[Memory]) -> Prompted:
    """Takes up what was used last; what is alike is told apart by age."""
    latest = sorted(memories, key=lambda m: (m.used, m.created), reverse=True)[:OPENER_MEMORIES]
    return _prompted("opener", talk, [labelled(m) for m in latest], tuple(m.id for m in latest))


def _prompted(kind: str, talk: Talk, knowledge: list[str], used: tuple[str, ...] = ()) -> Prompted:
    module = REPLYING[kind]
    return Prompted(module, module.turns(talk.history, talk.system, "\n".join(knowledge)), used)


def _listed(memories: list[Memory]) -> str:
    return "\n".join(f"{number}. {labelled(memory)}" for number, memory in enumerate(memories, 1))


async def _nothing() -> str:
    return ""


async def _none() -> None:
    return None
