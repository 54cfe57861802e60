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
from bb3x_ray.schemas.errors import UserError, kind_and_place
from bb3x_ray.serve.engines.held import Held
from bb3x_ray.serve.engines.protocol import Busy, EngineFailed, PromptRefused, Stream

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class _Version:
    """lora: vLLM's LoRARequest, None for a version with whole weights."""

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
        self._numbers = itertools.count(1)
        self._closed = self._broken = False
        self._ready: dict[str, Path] = {}  # versions whose whole weights are read at the swap
        self._gate = asyncio.Event()  # shut while weights are changed: a reply takes its version behind it
        self._gate.set()
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
            self._held = Held(version, self._open(version, folder))
        except Exception as error:
            if hasattr(self, "_llm"):
                self._llm.shutdown()
            self._stop_loop()
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{version}: vLLM cannot serve it ({kind_and_place(error)}); see its log."
            ) from error

    @property
    def version(self) -> str:
        return self._held.current

    @property
    def versions(self) -> list[str]:
        return self._held.names

    @property
    def alive(self) -> bool:
        return not (self._closed or self._broken or self._llm.errored)

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
            if len(self._tasks) >= self._max_under_way:
                raise Busy()
            self._held.begin(stream, version)
            task = asyncio.run_coroutine_threadsafe(self._reply(stream), self._loop)
            self._tasks[stream] = task
        task.add_done_callback(lambda _: self._done(stream))
        return stream

    def load(self, version: str, folder: Path) -> None:
        """Adapters on the base in memory are added to it; whole weights are read at the swap."""
        with self._changing:
            if self._held.stays(version):
                return
            root = WeightFiles(folder).root
            if root.samefile(self._root):
                self._held.add(version, self._open(version, folder))
            else:
                require_weights(root)  # refused before anything changes
                load_tokenizer(folder)
                self._ready[version] = folder

    def swap(self, version: str) -> None:
        with self._changing:
            if version == self.version:
                return
            if version in self._ready:
                self._reload(version)
            else:
                self._remove(self._held.move_to(version))

    def keep(self, versions: Collection[str]) -> None:
        """As Engine.keep. Raises UserError for two versions with whole weights."""
        with self._changing:
            if set(versions) - set(self._held.names):
                raise UserError(
                    "vLLM holds one set of whole weights, and here two versions have to answer: publish "
                    "adapters (train.lora.publish=adapter, serve.vllm.adapters=2), or set "
                    "serve.engine=continuous."
                )
            self._remove(self._held.keep(versions))

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
            return _Version(tokenizer, None)
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
        return _Version(tokenizer, lora)

    def _reload(self, version: str) -> None:
        """Whole weights in the place of the old ones. UserError: those are back, or the engine is dead."""
        folder = self._ready.pop(version)
        try:
            self._do(self._pause())
            self._do(self._read_weights(WeightFiles(folder).root))
            opened = self._open(version, folder)
        except Exception as error:
            self._restore()
            raise UserError(
                f"{version}: vLLM cannot read its weights ({type(error).__name__}); {self.version} goes on."
            ) from error
        else:
            self._root = WeightFiles(folder).root
            self._ready.clear()
            self._remove(self._held.replace_all(version, opened))
        finally:
            self._do(self._resume())

    def _restore(self) -> None:
        """The weights before are read again. Half-read ones must answer nobody: then the engine is dead."""
        try:
            self._do(self._read_weights(self._root))
        except Exception as error:
            self._broken = True
            raise UserError(
                f"{self.version}: vLLM cannot read its weights back ({type(error).__name__}); see its log."
            ) from error

    async def _pause(self) -> None:
        """Replies under way end, those that take too long with EngineFailed; new ones wait at the gate."""
        self._gate.clear()
        try:
            await asyncio.wait_for(self._llm.pause_generation(mode="wait"), self._drain_seconds)
        except TimeoutError:
            await self._llm.pause_generation(mode="abort")

    async def _resume(self) -> None:
        try:
            await self._llm.resume_generation()
        finally:
            self._gate.set()

    async def _read_weights(self, root: Path) -> None:
        await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(root)})
        await self._llm.reset_prefix_cache()  # it holds what the old weights computed

    def _remove(self, gone: Collection[_Version]) -> None:
        """A base under adapters stays in memory, though it is no version to answer with any more."""
        for each in gone:
            if each.lora is not None:
                asyncio.run_coroutine_threadsafe(self._llm.remove_lora(each.lora.lora_int_id), self._loop)

    def _cancel(self, stream: Stream) -> None:
        with self._lock:
            task = self._tasks.pop(stream, None)
        if task is not None:
            task.cancel()  # vLLM's generator aborts its request

    def _done(self, stream: Stream) -> None:
        with self._lock:
            self._tasks.pop(stream, None)
        self._remove(self._held.end(stream))

    async def _reply(self, stream: Stream) -> None:
        """Write one reply; whatever goes wrong ends this stream and no other."""
        try:
            await self._write(stream)
        except UserError as error:
            stream.fail(PromptRefused(str(error)))
        except EngineFailed as error:
            stream.fail(error)
        except Exception as error:
            log.error("vLLM failed: %s", kind_and_place(error))
            stream.fail(EngineFailed(type(error).__name__))

    async def _write(self, stream: Stream) -> None:
        await self._gate.wait()
        if self._broken:
            raise EngineFailed("the engine has stopped")
        stream.version, version = self._held.writing(stream)
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
            {"prompt_token_ids": ids},
            params,
            f"{stream.version}-{next(self._numbers)}",
            lora_request=version.lora,
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
