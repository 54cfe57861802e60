"""One reply from the person's message to the last word: checked, thought through, written, checked.

    safe? ─► modules think ─► the model writes ─► safe? ─► memories are made
      └ canned                    └ apology         └ canned

It is read like an engine's stream, and is little more than one where neither safety nor modules are on.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from starlette.concurrency import run_in_threadpool

from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.conversation import Author, model
from bb3x_ray.serve.engines.protocol import (
    Busy,
    Delta,
    Engine,
    EngineFailed,
    PromptRefused,
    Stream,
    UnknownVersion,
)
from bb3x_ray.serve.memory import Memories
from bb3x_ray.serve.modules.bb3 import BB3, Talk
from bb3x_ray.serve.modules.module import ModuleFailed
from bb3x_ray.serve.modules.trace import Trace
from bb3x_ray.serve.safety_replies import FAILURE, CannedReplies, SafetyReplies

# (person, conversation_id) -> the version that answers them, None: the one that answers everybody
Arm = Callable[[str, str], str | None]
CANNED = "content_filter"  # OpenAI's finish reason for a reply that a filter replaced


@dataclass(frozen=True)
class Parts:
    """What a turn may have beside an engine and a log; each may be missing."""

    safety: SafetyReplies | None = None
    memories: Memories | None = None
    modules: BB3 | None = None
    arm: Arm | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What one reply is asked for.

    version     the one to answer; None: the one that answers everybody
    arm         "candidate" or "champion" where a canary's split chose the version; "" where the client did
    apologise   say sorry where the model fails, in place of an error
    key         chooses among canned replies
    """

    talk: Talk
    decoding: Decoding
    stops: Sequence[str]
    version: str | None
    apologise: bool
    key: str
    arm: str = ""


class Reply:
    """Iterate over its deltas, in the event loop that made it. Raises Busy, PromptRefused or EngineFailed.

    canned   "" for the model's own reply; else the kind of trouble, or "failure"
    failed   how the turn went wrong, in the release's words: unsafe_Human, unsafe_BlenderBot3,
             unsafe_model_crash; else ""
    """

    def __init__(self, engine: Engine, parts: Parts, asked: Asked) -> None:
        self.canned = self.failed = ""
        self.trace = Trace()
        self._engine, self._parts, self._asked = engine, parts, asked
        named = asked.version if asked.version in engine.versions else None
        self._version = named or engine.version
        # All calls of one turn go to the version that it began with, also when another takes over meanwhile.
        self._stays = named is not None or parts.modules is not None
        self._streams: list[Stream] = []  # all that was asked of the model for this reply
        self._cancelled = False
        self._stream: Stream | None = None

    @property
    def version(self) -> str:
        """The version that writes it; before that, or where none does, the one that is to."""
        return (self._stream.version if self._stream else "") or self._version

    @property
    def author(self) -> Author:
        if self.canned:
            return Author("canned", FAILURE if self.canned == FAILURE else "safety")
        return model(self.version)

    @property
    def prompt_tokens(self) -> int:
        return self._stream.prompt_tokens if self._stream else 0

    @property
    def completion_tokens(self) -> int:
        return self._stream.completion_tokens if self._stream else 0

    @property
    def spent_tokens(self) -> int:
        """Prompts and outputs of all that was asked of the model, the modules' calls too."""
        return sum(stream.prompt_tokens + stream.completion_tokens for stream in self._streams)

    def cancel(self) -> None:
        """Stop whatever is written for this reply; does nothing when it is done."""
        self._cancelled = True
        for stream in self._streams:
            stream.cancel()

    @property
    def arm(self) -> str:
        """The canary's arm that this reply is of; "" where its version is not the one that the split chose:
        nobody can choose what a reply is evidence of."""
        if self._asked.arm == "candidate" and self.version != self._asked.version:
            return ""  # it is not in memory (any more)
        return self._asked.arm

    def details(self, with_words: bool) -> dict[str, Any]:
        """For the event, with the release's keys; {} where there is none. Texts `with_words` only."""
        about: dict[str, Any] = self.trace.details(with_words) if self._parts.modules else {}
        if self.canned == FAILURE:
            about |= {"from_model_crash": True}
        elif self.canned:
            about |= {"is_safety_controlled_response": True, "safety_kind": self.canned}
        if self.failed:
            about |= {"previous_interaction_failure": self.failed}
        if self.arm:
            about |= {"arm": self.arm, "failed": self.canned == FAILURE}
        return {**about, "model_version": self.version} if about else {}

    async def __aiter__(self) -> AsyncIterator[Delta]:
        shown = False
        try:
            async for delta in self._deltas():
                shown = shown or bool(delta.text)
                yield delta
        except EngineFailed:
            # What has been shown cannot be taken back: there the error has to be seen.
            if shown or not self._asked.apologise:
                raise
            yield self._say(FAILURE, "unsafe_model_crash")

    async def _deltas(self) -> AsyncIterator[Delta]:
        asked, safety, modules = self._asked, self._parts.safety, self._parts.modules
        talk = asked.talk
        if safety is not None:
            kind = await run_in_threadpool(safety.check_message, talk.history[-1].text)
            if kind is not None:
                yield self._say(kind, "unsafe_Human")
                return
        used: tuple[str, ...] = ()
        if modules is None:
            turns = [Turn("system", talk.system)] if talk.system else []
            turns += [Turn(said.role, said.text) for said in talk.history]
            self._stream = self._submit(turns, asked.decoding, asked.stops)
        else:
            prompted = await modules.think(talk, self._generate, self.trace)
            used = prompted.used
            self.trace.decisions["reply_module"] = prompted.module.name
            self._stream = self._submit(prompted.turns, prompted.module.decoding(asked.decoding), asked.stops)
        text, last = "", Delta("")
        async for delta in self._stream:
            text, last = text + delta.text, delta
            if safety is None and delta.text:
                yield Delta(delta.text)
        if safety is not None:
            heard = [said.text for said in reversed(talk.history)]
            kind = await run_in_threadpool(safety.check_reply, heard, text)
            if kind is not None:
                yield self._say(kind, "unsafe_BlenderBot3")
                return
            yield Delta(text)
        if modules is not None:
            await modules.remember(talk, text, used, self._generate, self.trace, self._is_safe)
        yield Delta("", last.finish_reason, last.cut)

    def _submit(self, turns: Sequence[Turn], decoding: Decoding, stops: Sequence[str] = ()) -> Stream:
        try:
            stream = self._engine.submit(turns, decoding, stops, self._version if self._stays else None)
        except UnknownVersion:
            # One that has just left memory, as a candidate that was rolled back, is nobody's any more.
            self._version = self._engine.version
            stream = self._engine.submit(turns, decoding, stops)
        self._streams.append(stream)
        return stream

    async def _generate(self, turns: Sequence[Turn], decoding: Decoding) -> str:
        """A module's call. Raises ModuleFailed."""
        if self._cancelled:
            raise ModuleFailed("cancelled")
        try:
            stream = self._submit(turns, decoding)
            try:
                return "".join([delta.text async for delta in stream])
            finally:
                stream.cancel()  # does nothing to a finished one
        except (EngineFailed, PromptRefused, Busy) as error:
            raise ModuleFailed(type(error).__name__) from None

    def _is_safe(self, text: str) -> bool:
        return self._parts.safety is None or self._parts.safety.check_message(text) is None

    def _say(self, kind: str, failed: str) -> Delta:
        """A canned reply in place of the model's."""
        self.canned, self.failed = kind, failed
        said = [said.text for said in self._asked.talk.history if said.role == "assistant"]
        text = _canned().choose(kind, self._asked.key, said)
        return Delta(text, "stop" if kind == FAILURE else CANNED)


@cache
def _canned() -> CannedReplies:
    return CannedReplies()
