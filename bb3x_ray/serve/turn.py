"""One chat turn: what was asked, where it belongs, the reply, and the two events that make it durable."""

import json
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.conversation import Author, person
from bb3x_ray.schemas.event import FAILED_TURN, FAILED_TURN_ID, Event, EventKind, reply_id
from bb3x_ray.serve.completion_ids import Completion, Signer
from bb3x_ray.serve.conversations import Conversations, Place, Said
from bb3x_ray.serve.durable import AppendEvents, append_durably
from bb3x_ray.serve.engines.protocol import Delta, Engine
from bb3x_ray.serve.modules.bb3 import Talk
from bb3x_ray.serve.protocol import CHAMPION, ApiError, ChatRequest
from bb3x_ray.serve.reply import Asked, Parts, Reply
from bb3x_ray.serve.safety_replies import FAILURE

SOURCE = "served"
TOLD = "told_finish_reason"  # in `details`: what the client was told, where the log says something else
UNFINISHED_REMEMBERED = 10_000


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass(slots=True)
class ChatTurn:
    """A turn under way. `reply` grows with `deltas()`; `Chat.finish` makes it durable."""

    completion: Completion
    place: Place
    position: int  # of the reply in its conversation
    stream: Reply
    began_us: int
    wants_trace: bool = False
    reply: str = ""
    last: Delta | None = None

    async def deltas(self) -> AsyncIterator[str]:
        """Pieces of the reply as they are generated. Raises EngineFailed."""
        async for delta in self.stream:
            self.reply += delta.text
            if delta.finish_reason is not None:
                self.last = delta
            yield delta.text

    @property
    def finish_reason(self) -> str:
        assert self.last is not None and self.last.finish_reason is not None
        return self.last.finish_reason

    def usage(self) -> dict[str, int]:
        prompt, completion = self.stream.prompt_tokens, self.stream.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def about(self) -> dict[str, Any]:
        """What an answer says beside OpenAI's fields: why it is canned, and its trace if wanted."""
        about: dict[str, Any] = {}
        if self.stream.canned:
            about |= {"canned": self.stream.canned, "failed": self.stream.canned == FAILURE}
        if self.wants_trace:
            about |= {"trace": self.stream.details(with_words=True)}
        return about

    def events(self) -> list[Event]:
        """Messages that the log does not have yet, then the reply."""
        events = [self._message(*unlogged) for unlogged in self.place.unlogged]
        return [*events, self._reply()]

    def failure(self) -> Event:
        """That the turn failed, and whose failure it is: nothing of it was said, so there is no message."""
        about: dict[str, Any] = {"model_version": self.stream.version, "failed": True}
        if self.stream.arm:
            about |= {"arm": self.stream.arm}
        event_id = FAILED_TURN_ID + self.completion.completion_id
        return replace(self._about(event_id, "feedback", now_us()), details=json.dumps({FAILED_TURN: about}))

    def _message(self, position: int, event_id: str, said: Said) -> Event:
        author = person(self.place.person) if said.role == "user" else Author("unverified", "client")
        return self._event(event_id, event_id, position, author, said.text, self.began_us)

    def _reply(self) -> Event:
        assert self.last is not None
        # Two replies in the same words at the same place, each with its thumb, are two events.
        words = self.place.event_id(self.position, Said("assistant", self.reply))
        event_id = reply_id(words, self.completion.uuid)
        # A client's stop string cut the reply: the model did not end it, and must not learn that it did.
        finish = None if self.stream.canned else "length" if self.last.cut else self.finish_reason
        details = self.stream.details(with_words=self.completion.stored)
        if finish != self.finish_reason:
            details |= {TOLD: self.finish_reason}
        if "arm" in details:  # a canary's arms are compared by it
            details |= {"latency_ms": (now_us() - self.began_us) / 1000}
        event = self._event(
            event_id,
            self.completion.completion_id,
            self.position,
            self.stream.author,
            self.reply,
            now_us(),
            finish,
        )
        return replace(event, details=json.dumps(details, ensure_ascii=False)) if details else event

    def _event(
        self,
        event_id: str,
        message_id: str,
        position: int,
        author: Author,
        text: str,
        at: int,
        finish_reason: str | None = None,
    ) -> Event:
        return replace(
            self._about(event_id, "message", at),
            message_id=message_id,
            position=position,
            author_kind=author.kind,
            author_name=author.name,
            text=text if self.completion.stored else None,
            finish_reason=finish_reason,
        )

    def _about(self, event_id: str, kind: EventKind, at: int) -> Event:
        return Event(
            event_id=event_id,
            kind=kind,
            at=at,
            conversation_id=self.place.conversation_id,
            person=self.place.person,
            source=SOURCE,
            consent_basis=basis(self.completion),
            simulated=self.completion.simulated,
            message_id=self.completion.completion_id,
        )


class Chat:
    """Turns of one replica. Nothing is acknowledged before `append_events` returned.

    append_events   writes events durably, or raises; called from a thread
    key             the server's secret, the same on all replicas and after a restart
    parts           safety, modules, memories and the split between two versions, where there are any
    conversations   what was served; None: nothing yet, and there are no other replicas
    """

    def __init__(
        self,
        engine: Engine,
        append_events: AppendEvents,
        key: bytes,
        chat: ChatConfig,
        serve: ServeConfig,
        parts: Parts | None = None,
        conversations: Conversations | None = None,
    ) -> None:
        self.engine = engine
        self.parts = parts or Parts()
        self._append_events = append_events
        self._signer = Signer(key)
        self._conversations = conversations or Conversations(self._signer)
        self._chat = chat
        self._serve = serve
        # Begun and not (or never) finished: no feedback on these.
        self._unfinished: OrderedDict[str, None] = OrderedDict()

    async def begin(self, request: ChatRequest) -> ChatTurn:
        """Begin a turn, which is written as it is read. Raises ApiError for what cannot be answered."""
        began_us = now_us()
        system, history = self._read(request)
        metadata = request.metadata
        named = metadata.conversation_id if metadata else None
        place = await self._conversations.find(history, request.user, named)
        completion = self._signer.new_completion(
            place.conversation_id,
            place.person,
            stored=bool(request.store),
            simulated=bool(metadata and metadata.simulated == "true"),
        )
        decoding = self._decoding(request)
        talk = Talk(
            system,
            tuple(history),
            place.person,
            place.conversation_id,
            remembers=completion.stored and bool(request.user),
            began_us=began_us,
            seed=decoding.seed,
        )
        version, arm = self._version(request.model, place)
        apologise = bool(metadata and metadata.apology == "true")
        asked = Asked(talk, decoding, request.stops(), version, apologise, completion.completion_id, arm)
        stream = Reply(self.engine, self.parts, asked)
        self._unfinished[completion.completion_id] = None
        while len(self._unfinished) > UNFINISHED_REMEMBERED:
            self._unfinished.popitem(last=False)
        wants_trace = bool(metadata and metadata.trace == "true")
        return ChatTurn(completion, place, len(history), stream, began_us, wants_trace)

    async def finish(self, turn: ChatTurn) -> None:
        """Make the turn durable. Raises ApiError 503 when the log cannot be written."""
        await append_durably(self._append_events, turn.events())
        self._conversations.served(turn.place, turn.position, turn.reply)
        self._unfinished.pop(turn.completion.completion_id, None)

    async def failed(self, turn: ChatTurn) -> None:
        """Make it durable that the turn failed. Raises ApiError 503 when the log cannot be written."""
        await append_durably(self._append_events, [turn.failure()])

    def is_unfinished(self, completion_id: str) -> bool:
        """Whether it was begun here and is not durable, or never will be."""
        return completion_id in self._unfinished

    def _read(self, request: ChatRequest) -> tuple[str, list[Said]]:
        """The system prompt and the history of a request, checked."""
        limit = self._serve.max_message_chars
        for index, message in enumerate(request.messages):
            if len(message.content) > limit:
                raise ApiError(
                    400,
                    f"messages.{index}.content: at most {limit} characters.",
                    param=f"messages.{index}.content",
                    code="string_above_max_length",
                )
        history = [Said(m.role, m.content) for m in request.messages if m.role in ("user", "assistant")]
        if not history or history[-1].role != "user" or not history[-1].text.strip():
            raise ApiError(
                400, "messages: the last one must be the user's, with words in it.", param="messages"
            )
        self._check_model(request.model)
        own = [m.content for m in request.messages if m.role in ("system", "developer")]
        return "\n\n".join(own) if own else self._chat.system_prompt, history

    def _version(self, named: str, place: Place) -> tuple[str | None, str]:
        """(the version that the client names, else that of this person's arm; None: the champion; the arm).

        Who names a version is in no arm: else people could choose what they are evidence of.
        """
        if named != CHAMPION or self.parts.arm is None:
            return (None if named == CHAMPION else named), ""
        version = self.parts.arm(place.person, place.conversation_id)
        return version, "candidate" if version else "champion"

    def _check_model(self, name: str) -> None:
        if name not in (CHAMPION, *self.engine.versions):
            raise ApiError(
                404,
                f"model: this server answers as {CHAMPION}, now {self.engine.version}.",
                param="model",
                code="model_not_found",
            )

    def _decoding(self, request: ChatRequest) -> Decoding:
        """The request's settings over the server's own; replies are never longer than the server's cap."""
        asked = request.max_completion_tokens or request.max_tokens or self._chat.max_new_tokens
        return Decoding(
            max_new_tokens=min(asked, self._serve.max_reply_tokens),
            temperature=self._chat.temperature if request.temperature is None else request.temperature,
            top_p=self._chat.top_p if request.top_p is None else request.top_p,
            seed=random.getrandbits(63) if request.seed is None else request.seed % 2**63,
        )


def basis(completion: Completion) -> str:
    return "store" if completion.stored else "none"
