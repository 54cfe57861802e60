"""vLLM in this process's charge: tensor parallel, a prefix cache, adapters beside their base.

A version with whole weights takes the live one's place, as vLLM holds one set of weights: replies under way
end first, requests wait, the weights are read over the old ones and what was cached of those is forgotten.
Adapter versions on one base answer beside each other.
"""

import asyncio
import itertools
import logging
import tempfile
import threading
from collections.abc import Collection, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from transformers import AutoConfig, PreTrainedTokenizerBase

from bb3x_ray.config import VllmConfig
from bb3x_ray.language.adapters import write_combined
from bb3x_ray.language.chat_template import Turn, end_of_turn_id, prompt_ids
from bb3x_ray.language.generation import Decoding
from bb3x_ray.language.loading import load_tokenizer, require_weights
from bb3x_ray.language.weights import WeightFiles
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.lane import kind_and_place
from bb3x_ray.serve.engines.protocol import Busy, EngineFailed, PromptRefused, Stream, UnknownVersion

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class _Version:
    """lora: vLLM's LoRARequest, None for a version with whole weights."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    lora: Any


class Vllm:
    """Writes replies through vLLM's AsyncLLM, which gets an event loop in a thread of its own.

    max_batch       replies written together
    max_queued      requests that may wait for a place; more are refused with Busy
    drain_seconds   how long replies under way may go on before whole weights are changed
    Raises UserError when vLLM is not installed or cannot load the version.
    """

    seeded = True

    def __init__(
        self,
        version: str,
        folder: Path,
        *,
        max_batch: int,
        max_queued: int,
        max_context_tokens: int,
        max_reply_tokens: int,
        dtype: str,
        drain_seconds: float,
        config: VllmConfig,
    ) -> None:
        vllm = _import_vllm()
        self._sampling, self._delta = vllm.SamplingParams, vllm.sampling_params.RequestOutputKind.DELTA
        self._lora_request = vllm.lora.request.LoRARequest
        self._max_under_way = max_batch + max_queued
        self._max_context_tokens = max_context_tokens
        self._drain_seconds = drain_seconds
        self._config = config
        self._lock = threading.Lock()
        self._changing = threading.Lock()  # one load or swap at a time
        self._tasks: dict[Stream, Future[None]] = {}
        self._using: dict[Stream, str] = {}
        self._numbers = itertools.count(1)
        self._kept: frozenset[str] = frozenset()
        self._closed = False
        self._aside = tempfile.TemporaryDirectory(prefix="bb3x-adapters-")  # vLLM may read them again
        self._root = WeightFiles(folder).root
        self._max_tokens = min(max_context_tokens + max_reply_tokens, _longest(self._root))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        arguments = vllm.AsyncEngineArgs(
            model=str(self._root),
            dtype=dtype,
            load_format="safetensors",
            trust_remote_code=False,
            max_model_len=self._max_tokens,
            max_num_seqs=max_batch,
            tensor_parallel_size=config.tensor_parallel,
            gpu_memory_utilization=config.memory_share,
            enable_prefix_caching=True,
            enable_lora=config.adapters > 0,
            max_loras=max(1, config.adapters),
            max_lora_rank=config.adapter_rank,
            disable_log_stats=True,
            enable_log_requests=False,  # prompts are people's words (law 10)
        )
        try:
            self._llm = self._do(_start(vllm, arguments))
            self._versions = {version: self._open(version, folder)}
        except Exception as error:
            if hasattr(self, "_llm"):
                self._llm.shutdown()
            self._stop_loop()
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{version}: vLLM cannot serve it ({kind_and_place(error)}); see its log."
            ) from error
        self._folders = {version: folder}
        self._current = version

    @property
    def version(self) -> str:
        return self._current

    @property
    def versions(self) -> list[str]:
        with self._lock:
            return list(reversed(self._versions))

    @property
    def alive(self) -> bool:
        return not self._closed and not self._llm.errored

    def submit(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        stops: Sequence[str] = (),
        version: str | None = None,
    ) -> Stream:
        stream = Stream(turns, decoding, stops, self._cancel)
        with self._lock:
            if not self.alive:
                raise EngineFailed("the engine has stopped")
            if version is not None and version not in self._versions:
                raise UnknownVersion(version)
            if len(self._tasks) >= self._max_under_way:
                raise Busy()
            name = version or self._current
            task = asyncio.run_coroutine_threadsafe(self._reply(stream, name), self._loop)
            self._using[stream], self._tasks[stream] = name, task
        task.add_done_callback(lambda _: self._done(stream))
        return stream

    def load(self, version: str, folder: Path) -> None:
        """Adapters on the base in memory are added to it; whole weights are read at the swap."""
        with self._changing:
            if version in self._versions:
                return
            if WeightFiles(folder).root.samefile(self._root):
                opened = self._open(version, folder)
                with self._lock:
                    self._versions[version] = opened
            else:
                require_weights(WeightFiles(folder).root)  # refused before anything changes
                load_tokenizer(folder)
            self._folders[version] = folder

    def swap(self, version: str) -> None:
        with self._changing:
            if version == self._current:
                return
            if version not in self._folders:
                raise UnknownVersion(version)
            if version not in self._versions:
                self._reload(version)
            with self._lock:
                self._current = version
        self._let_go()

    def keep(self, versions: Collection[str]) -> None:
        """As Engine.keep. Raises UserError for two versions with whole weights."""
        if set(versions) - set(self._versions):
            raise UserError(
                "vLLM holds one set of whole weights, and here two versions have to answer: publish adapters "
                "(train.lora.publish=adapter, serve.vllm.adapters=2), or set serve.engine=continuous."
            )
        self._kept = frozenset(versions)
        self._let_go()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            tasks, self._tasks = self._tasks, {}
        for stream, task in tasks.items():
            stream.fail(EngineFailed("the engine has stopped"))
            task.cancel()
        self._llm.shutdown()
        self._stop_loop()
        self._aside.cleanup()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _open(self, version: str, folder: Path) -> _Version:
        """A version on the base in memory; UserError when vLLM refuses its adapter."""
        tokenizer = load_tokenizer(folder)
        files = WeightFiles(folder)
        if not files.adapted:
            return _Version(folder, tokenizer, None)
        if not self._config.adapters:
            raise UserError(
                f"{version} is an adapter: set serve.vllm.adapters to how many may answer at once."
            )
        aside = Path(self._aside.name) / version
        aside.mkdir(exist_ok=True)
        write_combined(files, aside)  # vLLM takes one adapter on whole weights; ours may stand on another
        lora = self._lora_request(lora_name=version, lora_int_id=next(self._numbers), lora_path=str(aside))
        try:
            self._do(self._llm.add_lora(lora))
        except Exception as error:
            raise UserError(
                f"{version}: vLLM refuses its adapter ({type(error).__name__}); look at serve.vllm.adapters "
                "and serve.vllm.adapter_rank."
            ) from error
        return _Version(folder, tokenizer, lora)

    def _reload(self, version: str) -> None:
        """Whole weights in the place of the old ones. UserError: the old ones are back."""
        folder, old_root = self._folders[version], self._root
        self._do(self._pause())
        try:
            try:
                self._do(self._read_weights(WeightFiles(folder).root))
                self._root = WeightFiles(folder).root
                opened = self._open(version, folder)
            except Exception as error:
                del self._folders[version]
                self._root = old_root
                self._do(self._read_weights(old_root))
                reason = type(error).__name__
                raise UserError(
                    f"{version}: vLLM cannot read its weights ({reason}); {self._current} goes on."
                ) from error
            gone = [each.lora for each in self._versions.values() if each.lora is not None]
            with self._lock:
                self._versions, self._folders = {version: opened}, {version: folder}
            for lora in gone:
                self._do(self._llm.remove_lora(lora.lora_int_id))
        finally:
            self._do(self._llm.resume_generation())

    async def _pause(self) -> None:
        """Replies under way end, those that take too long with EngineFailed; new ones wait in vLLM."""
        try:
            await asyncio.wait_for(self._llm.pause_generation(mode="wait"), self._drain_seconds)
        except TimeoutError:
            await self._llm.pause_generation(mode="abort")

    async def _read_weights(self, root: Path) -> None:
        await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(root)})
        await self._llm.reset_prefix_cache()  # it holds what the old weights computed

    def _let_go(self) -> None:
        """Adapters that are neither current nor kept leave with their last reply."""
        with self._lock:
            stay = {self._current, *self._kept, *self._using.values()}
            gone = {name: v for name, v in self._versions.items() if name not in stay and v.lora is not None}
            # A base under adapters stays in memory, but is no version to answer with any more.
            self._versions = {name: v for name, v in self._versions.items() if name in stay}
            self._folders = {name: path for name, path in self._folders.items() if name in self._versions}
        for each in gone.values():
            asyncio.run_coroutine_threadsafe(self._llm.remove_lora(each.lora.lora_int_id), self._loop)

    def _cancel(self, stream: Stream) -> None:
        with self._lock:
            task = self._tasks.pop(stream, None)
        if task is not None:
            task.cancel()  # vLLM's generator aborts its request

    def _done(self, stream: Stream) -> None:
        with self._lock:
            self._tasks.pop(stream, None)
            self._using.pop(stream, None)
        self._let_go()

    async def _reply(self, stream: Stream, name: str) -> None:
        """Write one reply; whatever goes wrong ends this stream and no other."""
        try:
            await self._write(stream, name)
        except UserError as error:
            stream.fail(PromptRefused(str(error)))
        except EngineFailed as error:
            stream.fail(error)
        except Exception as error:
            log.error("vLLM failed: %s", kind_and_place(error))
            stream.fail(EngineFailed(type(error).__name__))

    async def _write(self, stream: Stream, name: str) -> None:
        version = (
            self._versions.get(name) or self._versions[self._current]
        )  # its weights were replaced meanwhile
        stream.version = name if name in self._versions else self._current
        room = min(self._max_context_tokens, self._max_tokens - stream.decoding.max_new_tokens)
        ids = prompt_ids(version.tokenizer, stream.turns, room)
        stream.prompt_tokens = len(ids)
        params = self._sampling(
            max_tokens=stream.decoding.max_new_tokens,
            temperature=stream.decoding.temperature,
            top_p=stream.decoding.top_p,
            seed=stream.decoding.seed,
            stop_token_ids=[end_of_turn_id(version.tokenizer)],
            output_kind=self._delta,
        )
        outputs = self._llm.generate(
            {"prompt_token_ids": ids}, params, f"{name}-{next(self._numbers)}", lora_request=version.lora
        )
        async for output in outputs:
            said = output.outputs[0]
            if said.finish_reason not in (None, "stop", "length"):
                raise EngineFailed("vLLM ended this reply")
            # The token that ends a turn is no word of it.
            stream.completion_tokens += len(said.token_ids) - (said.finish_reason == "stop")
            if stream.write(said.text, said.finish_reason):
                await outputs.aclose()
                return


def _longest(root: Path) -> int:
    """The most tokens that the model reads, prompt and reply together."""
    config = AutoConfig.from_pretrained(root, trust_remote_code=False).get_text_config()
    return int(getattr(config, "max_position_embeddings", 1 << 20))


async def _start(vllm: Any, arguments: Any) -> Any:
    """Its own task starts with the first request, in this loop."""
    return await asyncio.to_thread(vllm.v1.engine.async_llm.AsyncLLM.from_engine_args, arguments)


def _import_vllm() -> Any:
    try:
        import vllm
        import vllm.lora.request
        import vllm.sampling_params
        import vllm.v1.engine.async_llm
    except ImportError as error:
        raise UserError(
            "serve.engine=vllm: vLLM is not installed; run `pip install 'bb3x-ray[vllm]'`, or set "
            "serve.engine=auto."
        ) from error
    return vllm
