"""Dynamic batches: one thread writes all replies of a replica, and changes its model without dropping any.

    submit ──► waiting (bounded) ──► lane v0002  BatchGenerator ──► streams, on their event loops
                                     lane v0001  … until its last reply is done, then it is let go

A lane is one version with the replies it is writing; a step writes one token of every reply.
"""

import gc
import threading
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from bb3x_ray.language.adapters import load_beside, shares_base
from bb3x_ray.language.chat_template import Turn
from bb3x_ray.language.generation import Decoding
from bb3x_ray.language.loading import ChatModel, require_weights
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.engines.lane import Lane
from bb3x_ray.serve.engines.protocol import Busy, EngineFailed, Stream, UnknownVersion


class Lanes:
    """Writes replies in this process; call `close` in the end.

    max_batch       replies written together by one version
    max_queued      requests that may wait for a place; more are refused with Busy
    drain_seconds   None: a new version is loaded beside the live one. Else there is memory for one only:
                    a swap gives replies under way that long to end, requests wait, and only then it loads
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
        dtype: str = "auto",
        device: str = "auto",
        drain_seconds: float | None = None,
    ) -> None:
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._max_context_tokens = max_context_tokens
        self._dtype, self._device = dtype, device
        self._drain_seconds = drain_seconds
        self._wake = threading.Condition()
        self._waiting: deque[tuple[Stream, str | None]] = deque()  # None: whichever is current then
        self._lanes: dict[str, Lane] = {}
        self._lanes[version] = self._open(version, folder)
        self._current = version
        self._folders = {version: folder}  # of lanes, and of versions that wait for a swap that drains
        self._kept: frozenset[str] = frozenset()
        self._changing = threading.Lock()  # one load or swap at a time
        self._paused = self._cut = self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def version(self) -> str:
        return self._current

    @property
    def versions(self) -> list[str]:
        with self._wake:
            return list(reversed(self._lanes))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        stops: Sequence[str] = (),
        version: str | None = None,
    ) -> Stream:
        stream = Stream(turns, decoding, stops, lambda _: self._notify())
        with self._wake:
            if self._closed or not self.alive:
                raise EngineFailed("the engine has stopped")
            if version is not None and version not in self._lanes:
                raise UnknownVersion(version)
            if len(self._waiting) >= self._max_queued:
                raise Busy()
            self._waiting.append((stream, version))
            self._wake.notify_all()
        return stream

    def load(self, version: str, folder: Path) -> None:
        with self._changing:
            with self._wake:
                lane = self._lanes.get(version)
                if lane is not None:
                    lane.leaving = False
                    return
            if self._drain_seconds is None or shares_base(folder, self._live()):
                self._join(self._open(version, folder), folder)
            else:
                require_weights(folder)  # and the rest is seen at the swap
                self._folders[version] = folder

    def swap(self, version: str) -> None:
        with self._changing:
            if version == self._current:
                return
            if version not in self._folders:
                raise UnknownVersion(version)
            if version not in self._lanes:
                self._change_when_drained(version)
                return
            with self._wake:
                before, self._current = self._lanes.get(self._current), version
                self._lanes[version].leaving = False
                if before is not None and before.version not in self._kept:
                    before.leaving = True
                self._wake.notify_all()

    def keep(self, versions: Collection[str]) -> None:
        """As Engine.keep. Raises UserError when there is memory for one version and two are to stay."""
        with self._changing, self._wake:
            if self._drain_seconds is not None and set(versions) - set(self._lanes):
                raise UserError(
                    "serve.handoff=drain has memory for one version, and here two have to answer; set "
                    "serve.handoff=beside."
                )
            self._kept = frozenset(versions)
            for lane in self._lanes.values():
                lane.leaving = lane.version != self._current and lane.version not in self._kept
            self._wake.notify_all()

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join()

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _open(self, version: str, folder: Path) -> Lane:
        """Load and warm a version; raises UserError when it cannot be served."""
        chat_model = load_beside(folder, self._live(), self._dtype, self._device)
        lane = Lane(version, chat_model, self._max_batch, self._max_context_tokens)
        lane.warm_up()
        return lane

    def _live(self) -> list[ChatModel]:
        with self._wake:
            return [lane.chat_model for lane in self._lanes.values()]

    def _join(self, lane: Lane, folder: Path) -> None:
        with self._wake:
            self._lanes[lane.version] = lane
            self._folders[lane.version] = folder

    def _change_when_drained(self, version: str) -> None:
        """Let replies end, put `version` in the live one's place. UserError: the live one is back."""
        self._drain()
        old = self._current
        try:
            with self._wake:
                self._lanes.clear()
            _free_memory()
            try:
                lane = self._open(version, self._folders[version])
            except Exception:
                del self._folders[version]
                _free_memory()
                self._join(self._open(old, self._folders[old]), self._folders[old])
                raise
            with self._wake:
                self._lanes[version] = lane
                self._folders = {version: self._folders[version]}
                self._current = version
        finally:
            with self._wake:
                self._paused = self._cut = False
                self._closed = self._closed or not self._lanes  # not even the old one can be read any more
                self._wake.notify_all()

    def _drain(self) -> None:
        """Let nobody begin, and wait for those under way; those that take too long end with EngineFailed."""
        with self._wake:
            self._paused = True
            self._wake.notify_all()
            if not self._wake.wait_for(self._idle_or_closed, self._drain_seconds):
                self._cut = True
                self._wake.wait_for(self._idle_or_closed)

    def _idle_or_closed(self) -> bool:
        return not self.alive or all(lane.idle for lane in self._lanes.values())

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while self._admit():
                self._step()
        finally:
            self._end_all()

    def _step(self) -> None:
        for lane in list(self._lanes.values()):
            if self._cut:
                lane.fail("the server changes its model")
            lane.step()

    def _admit(self) -> bool:
        """Wait for work, let go of lanes that are done, give waiting requests a place. False: closed."""
        with self._wake:
            while not self._closed and self._nothing_to_do():
                self._forget_lanes()  # so that an old model's memory is free while nobody talks
                self._wake.notify_all()  # somebody may wait for the last reply to end
                self._wake.wait()
            self._waiting = deque(each for each in self._waiting if not each[0].cancelled)
            joining = [] if self._paused or self._closed else self._pick()
            self._forget_lanes({lane.version for lane, _ in joining})
        for lane, stream in joining:
            lane.add(stream)
        return not self._closed

    def _nothing_to_do(self) -> bool:
        return (self._paused or not self._waiting) and all(lane.idle for lane in self._lanes.values())

    def _pick(self) -> list[tuple[Lane, Stream]]:
        """Those who find room now, in the order they came. Those of a version that is full wait on."""
        picked: list[tuple[Lane, Stream]] = []
        staying: deque[tuple[Stream, str | None]] = deque()
        for stream, version in self._waiting:
            # One that was named may have made room for another while this request waited (drain).
            lane = self._lanes.get(version or self._current) or self._lanes[self._current]
            if lane.has_room_for(sum(other is lane for other, _ in picked)):
                picked.append((lane, stream))
            else:
                staying.append((stream, version))
        self._waiting = staying
        return picked

    def _forget_lanes(self, joined: Collection[str] = ()) -> None:
        """Let go of versions that leave and that nobody needs any more. Called with the lock held."""
        needed = {*joined, *(version for _, version in self._waiting)}
        for lane in list(self._lanes.values()):
            if lane.leaving and lane.idle and lane.version not in needed:
                del self._lanes[lane.version], self._folders[lane.version]

    def _end_all(self) -> None:
        with self._wake:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            self._wake.notify_all()
        for stream, _ in waiting:
            stream.fail(EngineFailed("the engine has stopped"))
        for lane in self._lanes.values():
            lane.fail("the engine has stopped")


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
