"""One version of a model in memory, and the replies that it is writing."""

import logging

from bb3x_ray.language.chat_template import Turn, prompt_ids
from bb3x_ray.language.generation import BatchGenerator, Decoding, Emitted, StreamText, generate
from bb3x_ray.language.loading import ChatModel
from bb3x_ray.schemas.errors import UserError, kind_and_place
from bb3x_ray.serve.engines.protocol import EngineFailed, PromptRefused, Stream

log = logging.getLogger(__name__)


class Lane:
    """Used by the engine's thread only, but for its names.

    leaving   whether the version is let go when nobody waits for it any more
    """

    def __init__(self, version: str, chat_model: ChatModel, max_batch: int, max_context_tokens: int) -> None:
        self.version = version
        self.chat_model = chat_model
        self.leaving = False
        self._max_batch = max_batch
        self._max_context_tokens = max_context_tokens
        self._generator = BatchGenerator(chat_model, max_batch)
        self._writing: dict[int, tuple[Stream, StreamText]] = {}

    def warm_up(self) -> None:
        """Write two tokens, so that nobody waits for what is done once. Raises UserError when that fails."""
        try:
            ids = prompt_ids(self.chat_model.tokenizer, [Turn("user", "Hello")], self._max_context_tokens)
            generate(self.chat_model, [ids], Decoding(2, temperature=0))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{self.version} cannot write a reply ({kind_and_place(error)}): its weights, its config and "
                "its tokenizer do not belong together; import or train it again."
            ) from error

    @property
    def idle(self) -> bool:
        return not self._writing

    def has_room_for(self, joining: int) -> bool:
        """Whether one more can join, besides `joining` that are about to."""
        return len(self._writing) + joining < self._max_batch

    def add(self, stream: Stream) -> None:
        room = min(self._max_context_tokens, self.chat_model.max_tokens - stream.decoding.max_new_tokens)
        try:
            ids = prompt_ids(self.chat_model.tokenizer, stream.turns, room)
            self._generator.add(id(stream), ids, stream.decoding)
        except UserError as error:
            stream.fail(PromptRefused(str(error)))
            return
        except Exception as error:  # one request must not end the others
            log.error("version %s could not read a prompt: %s", self.version, kind_and_place(error))
            stream.fail(EngineFailed(type(error).__name__))
            return
        stream.version = self.version
        stream.prompt_tokens = len(ids)
        self._writing[id(stream)] = (stream, StreamText(self.chat_model.tokenizer))

    def step(self) -> None:
        """One token for each reply. A failure of the model ends the replies of this lane, not the thread."""
        try:
            for stream in [stream for stream, _ in self._writing.values() if stream.cancelled]:
                self._drop(stream)
            for got in self._generator.step():
                self._emit(got)
        except Exception as error:
            log.error("version %s failed while generating: %s", self.version, kind_and_place(error))
            self.fail(type(error).__name__)

    def fail(self, reason: str) -> None:
        """End every reply with EngineFailed, and begin anew with an empty batch."""
        for stream, _ in self._writing.values():
            stream.fail(EngineFailed(reason))
        self._writing.clear()
        self._generator = BatchGenerator(self.chat_model, self._max_batch)

    def _emit(self, got: Emitted) -> None:
        stream, decoder = self._writing[int(str(got.request_id))]
        text = ""
        if got.token_id is not None:
            stream.completion_tokens += 1
            text = decoder.push(got.token_id)
        if got.finish_reason is not None:
            text += decoder.finish()
        if stream.write(text, got.finish_reason):
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        self._generator.cancel(id(stream))
        del self._writing[id(stream)]
