"""The transformers library's continuous batching: what `serve.engine=auto` takes where there is a GPU.

Seeds are not promised: the library draws for all requests from one generator.
"""

import gc
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from bb3x_ray.language.adapters import load_beside
from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.language.loading import ChatModel, require_weights
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.paged_model import PagedModel
from bb3x_ray.serve.engines.protocol import Busy, EngineFailed, Stream, UnknownVersion

log = logging.getLogger(__name__)


class Continuous:
    """Writes replies in this process; call `close` in the end.

    max_batch          replies written together by one version; each version has a paged cache for as many
    max_queued         requests that may wait for a place; more are refused with Busy
    max_reply_tokens   longest reply that is asked for: with max_context_tokens it says how large the cache is
    drain_seconds      None: a new version is loaded beside the live one. Else there is memory for one only:
                       a swap gives replies under way that long to end, requests wait, and only then it loads
    """

    seeded = False

    def __init__(
        self,
        version: str,
        folder: Path,
        *,
        max_batch: int,
        max_queued: int,
        max_context_tokens: int,
        max_reply_tokens: int,
        dtype: str = "auto",
        device: str = "auto",
        drain_seconds: float | None = None,
    ) -> None:
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._max_context_tokens = max_context_tokens
        self._max_reply_tokens = max_reply_tokens
        self._dtype, self._device = dtype, device
        self._drain_seconds = drain_seconds
        self._changed = threading.Condition(threading.RLock())
        self._changing = threading.Lock()  # one load or swap at a time
        self._models: dict[str, PagedModel] = {}
        self._folders = {version: folder}
        self._kept: frozenset[str] = frozenset()
        self._held: list[Stream] = []  # while replies drain
        self._paused = self._closed = False
        self._prompts = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._current = version
        self._models[version] = self._open(version, folder)

    @property
    def version(self) -> str:
        return self._current

    @property
    def versions(self) -> list[str]:
        with self._changed:
            return list(reversed(self._models))

    @property
    def alive(self) -> bool:
        with self._changed:
            current = self._models.get(self._current)
            return not self._closed and (self._paused or (current is not None and current.alive))

    def submit(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        stops: Sequence[str] = (),
        version: str | None = None,
    ) -> Stream:
        stream = Stream(turns, decoding, stops, self._cancel)
        with self._changed:
            if not self.alive:
                raise EngineFailed("the engine has stopped")
            if version is not None and not self._answers(version):
                raise UnknownVersion(version)
            under_way = len(self._held)
            if not self._paused:
                under_way += self._models[version or self._current].under_way
            if under_way >= self._max_batch + self._max_queued:
                raise Busy()
            if self._paused:
                self._held.append(stream)
            else:
                self._begin(self._models[version or self._current], stream)
        return stream

    def load(self, version: str, folder: Path) -> None:
        with self._changing:
            with self._changed:
                if self._answers(version):
                    self._models[version].leaving = False
                    return
                dead = self._models.pop(version, None)
            if dead is not None:
                dead.stop("its generation has ended")
            if self._drain_seconds is None:
                model = self._open(version, folder)
                with self._changed:
                    self._models[version] = model
            else:
                require_weights(folder)  # and the rest is seen at the swap
            self._folders[version] = folder

    def swap(self, version: str) -> None:
        with self._changing:
            if version == self._current:
                return
            if version not in self._folders:
                raise UnknownVersion(version)
            if self._drain_seconds is not None:
                self._change_when_drained(version)
                return
            with self._changed:
                if not self._answers(version):
                    raise UnknownVersion(version)
                before, self._current = self._models[self._current], version
                self._models[version].leaving = False
                before.leaving = before.version not in self._kept
            self._let_go()

    def keep(self, versions: Collection[str]) -> None:
        """As Engine.keep. Raises UserError when there is memory for one version and two are to stay."""
        with self._changing, self._changed:
            if self._drain_seconds is not None and set(versions) - set(self._models):
                raise UserError(
                    "serve.handoff=drain has memory for one version, and here two have to answer; set "
                    "serve.handoff=beside."
                )
            self._kept = frozenset(versions)
            for model in self._models.values():
                model.leaving = model.version != self._current and model.version not in self._kept
        self._let_go()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            models, held, self._held = list(self._models.values()), self._held, []
            self._models = {}
        self._prompts.shutdown(wait=True, cancel_futures=True)
        for stream in held:
            stream.fail(EngineFailed("the engine has stopped"))
        for model in models:
            model.stop("the engine has stopped")

    def _answers(self, version: str) -> bool:
        """Whether it is in memory and writes. A version beside the live one may have died alone."""
        return version in self._models and self._models[version].alive

    def _begin(self, model: PagedModel, stream: Stream) -> None:
        self._prompts.submit(model.ask, model.begin(stream))

    def _cancel(self, stream: Stream) -> None:
        with self._changed:
            models = list(self._models.values())
            self._held = [each for each in self._held if each is not stream]
        for model in models:
            model.cancel(stream)

    def _open(self, version: str, folder: Path) -> PagedModel:
        """Load and warm a version; raises UserError when it cannot be served."""
        return PagedModel(
            version,
            load_beside(folder, self._live(), self._dtype, self._device),
            max_batch=self._max_batch,
            max_context_tokens=self._max_context_tokens,
            max_reply_tokens=self._max_reply_tokens,
            on_done=self._let_go,
        )

    def _live(self) -> list[ChatModel]:
        with self._changed:
            return [model.chat_model for model in self._models.values()]

    def _under_way(self) -> int:
        return sum(model.under_way for model in self._models.values())

    def _let_go(self) -> None:
        """Versions that leave, and write nothing any more, give their memory back, and so do dead ones.

        But for the current one: if that is dead, so is the engine.
        """
        with self._changed:
            beside = [model for model in self._models.values() if model.version != self._current]
            gone = [model for model in beside if not model.under_way and (model.leaving or not model.alive)]
            for model in gone:
                if not model.alive:
                    log.error("%s has died; %s answers in its place", model.version, self._current)
                del self._models[model.version]
                self._folders.pop(model.version, None)
            self._changed.notify_all()  # somebody may wait for the last reply to end
        for model in gone:
            _aside(lambda model=model: model.stop("this version has left"))  # type: ignore[misc]

    def _change_when_drained(self, version: str) -> None:
        """Let replies end, put `version` in the live one's place. UserError: the live one is back."""
        with self._changed:
            self._paused = True
            self._changed.wait_for(lambda: not self._under_way(), self._drain_seconds)
            old = self._models.pop(self._current)
        old.stop("the server changes its model")
        name = old.version
        del old
        try:
            self._replace_by(version)
        except Exception:
            del self._folders[version]
            self._replace_by(name)
            raise
        finally:
            self._resume()

    def _replace_by(self, version: str) -> None:
        _free_memory()
        model = self._open(version, self._folders[version])
        with self._changed:
            self._models[version] = model
            self._current = version
            self._folders = {version: self._folders[version]}

    def _resume(self) -> None:
        with self._changed:
            self._paused = False
            held, self._held = self._held, []
            for stream in held:
                if self.alive:
                    self._begin(self._models[self._current], stream)
                else:  # not even the old version can be read any more
                    stream.fail(EngineFailed("the engine has stopped"))


def _aside(work: Callable[[], object]) -> None:
    threading.Thread(target=work, daemon=True).start()


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
