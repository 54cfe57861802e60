"""A blind comparison: two versions answer the same person, who says which reply is better.

Both replies and the choice are evidence about versions. They are logged as events that no round takes for
talk: what feeds the evaluation must not teach (law 11).
"""

import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.schemas.comparison import COMPARISON, Choice
from bb3x_ray.schemas.event import Event
from bb3x_ray.serve.comparison_ids import ComparisonIds, Pair
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.engines.protocol import Engine, Stream
from bb3x_ray.serve.protocol import ApiError, ChoiceRequest, CompareRequest
from bb3x_ray.serve.safety_replies import SafetyReplies
from bb3x_ray.serve.turn import SOURCE, now_us

AppendDurably = Callable[[list[Event]], Any]  # an awaitable; raises ApiError 503 where the log refuses


@dataclass(frozen=True, slots=True)
class Written:
    """A whole reply."""

    text: str
    finish_reason: str
    tokens: int
    prompt_tokens: int


class Compare:
    """Comparisons of one replica; nothing of them is remembered here.

    append   writes events durably
    safety   looks at both sides, where there is one
    """

    def __init__(
        self,
        engine: Engine,
        append: AppendDurably,
        signer: Signer,
        chat: ChatConfig,
        serve: ServeConfig,
        safety: SafetyReplies | None = None,
    ) -> None:
        self._engine = engine
        self._append = append
        self._ids = ComparisonIds(signer)
        self._chat = chat
        self._serve = serve
        self._safety = safety

    async def ask(self, request: CompareRequest) -> tuple[Pair, Written, Written]:
        """Both versions' replies, durable, in the order in which they are to be shown.

        Raises ApiError 409 while only one version is in memory, and where a text is not safe to compare;
        Busy and EngineFailed as the engine does.
        """
        turns = self._read(request)
        pair = self._ids.new(
            self._versions(),
            request.user,
            stored=bool(request.store),
            simulated=bool(request.metadata and request.metadata.simulated == "true"),
        )
        await self._refuse_unsafe(turns)
        a, b = await self._write(turns, pair)
        await self._refuse_unsafe(turns, a.text, b.text)
        await self._append([self._asked(pair, turns, a, b)])
        return pair, a, b

    async def choose(self, comparison_id: str, request: ChoiceRequest) -> Pair:
        """Log the choice durably and tell which version was which. The first choice counts: who has seen the
        versions cannot choose blindly. Raises ApiError 404 for a foreign id."""
        pair = self._ids.read(comparison_id, request.user)
        if pair is None:
            raise ApiError(
                404,
                "There is no such comparison for this user; send the `user` of it.",
                code="comparison_not_found",
            )
        await self._append([self._chosen(pair, request.choice)])
        return pair

    def _versions(self) -> tuple[str, str]:
        versions = self._engine.versions
        if len(versions) < 2:
            raise _nothing_to_compare()
        return versions[0], versions[1]

    async def _write(self, turns: list[Turn], pair: Pair) -> tuple[Written, Written]:
        # One seed for both: what differs between the replies is then the versions' doing as far as may be.
        decoding = Decoding(
            max_new_tokens=min(self._chat.max_new_tokens, self._serve.max_reply_tokens),
            temperature=self._chat.temperature,
            top_p=self._chat.top_p,
            seed=random.getrandbits(63),
        )
        streams: list[Stream] = []
        try:
            for version in (pair.a, pair.b):
                streams.append(self._engine.submit(turns, decoding, version=version))
            # one after the other: the engine writes both at the same time
            a, b = [await _read_all(stream) for stream in streams]
        except Exception as error:
            if {pair.a, pair.b} <= set(self._engine.versions):
                raise
            raise _nothing_to_compare() from error  # one left memory just now
        finally:
            for stream in streams:
                stream.cancel()  # does nothing to a finished one; a client that went away stops both
        return a, b

    async def _refuse_unsafe(self, turns: list[Turn], *replies: str) -> None:
        if self._safety is None:
            return
        heard = [turn.text for turn in reversed(turns) if turn.role != "system"]
        kind = None if replies else await run_in_threadpool(self._safety.check_message, heard[0])
        if kind is not None:
            raise _unfit("This is nothing to compare replies on; please ask something else.")
        for reply in replies:
            kind = await run_in_threadpool(self._safety.check_reply, heard, reply)
            if kind is not None:
                raise _unfit("One of the replies was not fit to be shown; please ask something else.")

    def _read(self, request: CompareRequest) -> list[Turn]:
        """The prompt, checked. Raises ApiError 400."""
        limit = self._serve.max_message_chars
        for index, message in enumerate(request.messages):
            if len(message.content) > limit:
                where = f"messages.{index}.content"
                raise ApiError(
                    400, f"{where}: at most {limit} characters.", param=where, code="string_above_max_length"
                )
        last = request.messages[-1]
        if last.role != "user" or not last.content.strip():
            raise ApiError(
                400, "messages: the last one must be the user's, with words in it.", param="messages"
            )
        said = [Turn(m.role, m.content) for m in request.messages if m.role in ("user", "assistant")]
        # Both versions are asked as everybody else is: no system prompt of the client's.
        return [Turn("system", self._chat.system_prompt), *said] if self._chat.system_prompt else said

    def _asked(self, pair: Pair, turns: list[Turn], a: Written, b: Written) -> Event:
        about: dict[str, Any] = {
            side: {"version": version, "finish_reason": reply.finish_reason, "tokens": reply.tokens}
            for side, version, reply in (("a", pair.a, a), ("b", pair.b, b))
        }
        if pair.stored:
            about["a"]["text"], about["b"]["text"] = a.text, b.text
            about["messages"] = [
                {"role": turn.role, "content": turn.text} for turn in turns if turn.role != "system"
            ]
        return _event(pair, f"f-{uuid.uuid4().hex}", about)

    def _chosen(self, pair: Pair, choice: Choice) -> Event:
        # The id is the comparison's alone: of several choices the log keeps the first.
        about = {"choice": choice, "a": {"version": pair.a}, "b": {"version": pair.b}}
        return _event(pair, f"f-choice-{pair.conversation_id}", about)


def _event(pair: Pair, event_id: str, about: dict[str, Any]) -> Event:
    """A feedback without a rating, about the comparison: readers of thumbs and of talk pass over it."""
    return Event(
        event_id=event_id,
        kind="feedback",
        at=now_us(),
        conversation_id=pair.conversation_id,
        person=pair.person,
        source=SOURCE,
        consent_basis="store" if pair.stored else "none",
        simulated=pair.simulated,
        message_id=pair.id,
        details=json.dumps({COMPARISON: about}, ensure_ascii=False),
    )


def about_comparison(event: Event) -> dict[str, Any]:
    """What an event says of a comparison; {} where it is about none."""
    if event.kind != "feedback" or COMPARISON not in (event.details or ""):
        return {}
    about: dict[str, Any] = json.loads(event.details or "{}").get(COMPARISON, {})
    return about


async def _read_all(stream: Stream) -> Written:
    text, finish_reason = "", ""
    async for delta in stream:
        text += delta.text
        finish_reason = delta.finish_reason or finish_reason
    return Written(text, finish_reason, stream.completion_tokens, stream.prompt_tokens)


def _nothing_to_compare() -> ApiError:
    return ApiError(
        409,
        "Only one version is in memory now, so there is nothing to compare; come back while a new version is "
        "tried beside it.",
        code="one_version",
    )


def _unfit(sentence: str) -> ApiError:
    return ApiError(409, sentence, code="content_filter")
