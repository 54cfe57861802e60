"""One version under the transformers library's continuous batching: its paged cache and its threads."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from transformers import ContinuousBatchingConfig, GenerationConfig

from bb3x_ray.language.chat_template import Turn, prompt_ids
from bb3x_ray.language.generation import Decoding, StreamText
from bb3x_ray.language.loading import ChatModel
from bb3x_ray.schemas.errors import UserError, kind_and_place
from bb3x_ray.serve.engines.protocol import EngineFailed, PromptRefused, Stream

log = logging.getLogger(__name__)
PAGE = 32  # tokens in a block of the cache
STEP_TOKENS = 2048  # tokens read in one step, so that a long prompt does not hold up the others
WARM_UP_SECONDS = 300


@dataclass(slots=True)
class _Reply:
    stream: Stream
    text: StreamText
    seen: int = 0  # tokens passed on


class PagedModel:
    """Writes the replies of one version, `max_batch` at a time.

    on_done   called after each reply that ended, and when the version has died
    """

    def __init__(
        self,
        version: str,
        chat_model: ChatModel,
        *,
        max_batch: int,
        max_context_tokens: int,
        max_reply_tokens: int,
        on_done: Callable[[], object],
    ) -> None:
        self.version = version
        self.leaving = False
        self.chat_model = chat_model
        self._max_context_tokens = max_context_tokens
        self._on_done = on_done
        self._lock = threading.Lock()
        self._replies: dict[str, _Reply] = {}
        self._stopping = False
        self._number = 0
        pages = -(-min(max_context_tokens + max_reply_tokens, chat_model.max_tokens) // PAGE) + 1
        model: Any = chat_model.model
        self._manager: Any = model.init_continuous_batching(
            # Both stand for "given by each request": a setting that is off here could not be given later.
            generation_config=GenerationConfig(do_sample=True, temperature=0.5, top_p=0.5, top_k=0),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=pages * max_batch,
                max_batch_tokens=max(STEP_TOKENS, max_batch),
                max_requests_per_batch=max_batch,
                per_request_processors=True,
                # Else the library looks for kernels on the hub and would run code from there.
                auto_switch_to_flash=find_spec("flash_attn") is not None,
            ),
        )
        self._manager.start()
        try:
            self._warm_up()
        except BaseException:  # its threads would outlive the process's main thread
            self._manager.stop(hard_stop=True)
            raise
        self._reader = threading.Thread(target=self._read, name=f"replies of {version}", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return bool(self._manager.is_running())

    @property
    def under_way(self) -> int:
        """Replies that are written or wait for their place."""
        return len(self._replies)

    def begin(self, stream: Stream) -> str:
        """Count the reply as under way; `ask` then reads its prompt. Returns its id here."""
        with self._lock:
            self._number += 1
            request_id = f"{self.version}-{self._number}"
            self._replies[request_id] = _Reply(stream, StreamText(self.chat_model.tokenizer))
        return request_id

    def ask(self, request_id: str) -> None:
        """Read the prompt and queue it; takes milliseconds, so not in an event loop."""
        reply = self._replies.get(request_id)
        if reply is None:
            return
        stream = reply.stream
        room = min(self._max_context_tokens, self.chat_model.max_tokens - stream.decoding.max_new_tokens)
        try:
            ids = prompt_ids(self.chat_model.tokenizer, stream.turns, room)
            stream.version, stream.prompt_tokens = self.version, len(ids)
            self._request(ids, request_id, stream.decoding)
        except UserError as error:
            self._fail(request_id, PromptRefused(str(error)))
        except Exception as error:  # one request must not end the others
            log.error("version %s could not read a prompt: %s", self.version, kind_and_place(error))
            self._fail(request_id, EngineFailed(type(error).__name__))
        if stream.cancelled:  # meanwhile: the library may have got the two in the other order
            self.cancel(stream)
            self._manager.cancel_request(request_id)

    def cancel(self, stream: Stream) -> None:
        """Stop writing this reply, if it is one of this version's."""
        with self._lock:
            found = next((key for key, reply in self._replies.items() if reply.stream is stream), None)
            if found is not None:
                del self._replies[found]
        if found is not None:
            self._manager.cancel_request(found)
            self._on_done()

    def stop(self, reason: str) -> None:
        """End every reply with EngineFailed, and give the memory back."""
        self._stopping = True
        self._manager.output_router.output_queue.put(None)  # wakes the reader
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self.fail_all(reason)
        self._manager.stop(block=True, hard_stop=True)
        self._manager.destroy()

    def fail_all(self, reason: str) -> None:
        for request_id in list(self._replies):
            self._manager.cancel_request(request_id)
            self._fail(request_id, EngineFailed(reason))

    def _request(self, ids: list[int], request_id: str, decoding: Decoding) -> None:
        if not self.alive:
            raise EngineFailed("the model failed")  # the library would drop the request and log its tokens
        greedy = decoding.temperature == 0  # a nucleus of nothing holds the best token alone
        self._manager.add_request(
            ids,
            request_id=request_id,
            max_new_tokens=decoding.max_new_tokens,
            eos_token_id=sorted(self.chat_model.eos_ids),
            streaming=True,
            temperature=1.0 if greedy else float(decoding.temperature),
            top_p=0.0 if greedy else float(decoding.top_p),
        )

    def _warm_up(self) -> None:
        """Write two tokens, so that nobody waits for what is done once. Raises UserError when that fails."""
        ids = prompt_ids(self.chat_model.tokenizer, [Turn("user", "Hello")], self._max_context_tokens)
        self._request(ids, "warm-up", Decoding(2, temperature=0))
        while (output := self._manager.get_result(timeout=WARM_UP_SECONDS)) is not None:
            if output.error is not None:
                break
            if output.is_finished():
                return
        reason = output.error if output else self._manager.background_thread_status.fatal_error
        raise UserError(
            f"{self.version} cannot write a reply under continuous batching ({reason or 'no answer'}); where "
            "memory is short lower serve.max_batch, or set serve.engine=lanes."
        )

    def _read(self) -> None:
        """Pass on what the library's thread writes."""
        while not self._stopping:
            output = self._manager.get_result(timeout=1)
            if output is not None:
                self._pass_on(output)
            elif not self._stopping and not self._manager.is_running():
                log.error("version %s: its generation has ended", self.version)
                self.fail_all("the model failed")
                self._on_done()
                return

    def _pass_on(self, output: Any) -> None:
        reply = self._replies.get(output.request_id)
        if reply is None:  # cancelled
            return
        if output.error is not None:
            log.error("version %s failed while generating", self.version)
            self._fail(output.request_id, EngineFailed("the model failed"))
            return
        fresh, reply.seen = output.generated_tokens[reply.seen :], len(output.generated_tokens)
        words = [token for token in fresh if token not in self.chat_model.eos_ids]
        finish = None
        if output.is_finished():
            finish = "stop" if len(words) < len(fresh) else "length"
        reply.stream.completion_tokens += len(words)
        text = "".join(map(reply.text.push, words)) + (reply.text.finish() if finish else "")
        if reply.stream.write(text, finish):
            self._forget(output.request_id)
            if finish is None:  # a stop string
                self._manager.cancel_request(output.request_id)

    def _fail(self, request_id: str, error: Exception) -> None:
        reply = self._replies.get(request_id)
        if reply is not None:
            reply.stream.fail(error)
            self._forget(request_id)

    def _forget(self, request_id: str) -> None:
        with self._lock:
            self._replies.pop(request_id, None)
        self._on_done()
