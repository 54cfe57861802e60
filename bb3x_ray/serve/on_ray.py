"""The room's door to Ray: the chat server as a Ray Serve application, and the handle that swaps its model."""

import asyncio
import io
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import get_native_id
from typing import Any, Protocol

import httpx
import torch
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.config import BackpressureConfig, HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from bb3x_ray.config import ChatConfig, ModelConfig, ServeConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.serve.admission import Access
from bb3x_ray.serve.app import create_app
from bb3x_ray.serve.canary.arms import Arms, FindArms
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.conversations import Conversations
from bb3x_ray.serve.durable import EventsOf, nothing
from bb3x_ray.serve.engines.choose import open_engine
from bb3x_ray.serve.engines.protocol import Busy, Engine
from bb3x_ray.serve.reply import Parts

APP = "bb3x-chat"
DEPLOYMENT = "ChatServer"
log = logging.getLogger(__name__)
REST_SECONDS = 60  # before a version that could not be taken up is tried again
ASK_SECONDS = 2.0  # other replicas have to say which conversation a history belongs to


class EventLog(Protocol):
    """Where a replica writes its events: `append` returns when they are durable, or raises."""

    def append(self, events: list[Event]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Wiring:
    """What the server is handed from outside; it travels to the replicas.

    find_model   version, or None for the champion -> (version, folder with every hash verified);
                 it reads the alias itself, so that replicas that start late begin with today's champion
    find_champion   the champion's version, without reading its files
    open_log     replica id -> that replica's own log
    key          at least 16 secret bytes, the same after a restart
    open_parts   what a turn has beside, opened in the replica: safety, memories, modules
    events_of    person -> their events in the log, also those of other replicas
    access       whose keys are let in
    find_arms    (champion, candidate of a canary or None, share in percent), for serve.canary.arms.Arms;
                 None: there are no canaries
    """

    find_model: Callable[[str | None], tuple[str, Path]]
    find_champion: Callable[[], str]
    open_log: Callable[[str], EventLog]
    key: bytes
    open_parts: Callable[[], Parts] = Parts
    events_of: EventsOf = nothing
    access: Access = field(default_factory=Access)
    find_arms: FindArms | None = None


class ChatServer:
    """One replica: an engine, a log, and the HTTP app around them."""

    def __init__(
        self, wiring: Wiring, serve_config: ServeConfig, chat: ChatConfig, model: ModelConfig
    ) -> None:
        # Ray sets the threads by the CPUs reserved, which are a fraction on a small machine.
        torch.set_num_threads(serve_config.threads or os.cpu_count() or 1)
        self._wiring = wiring
        self._serve_config = serve_config
        self._chat = chat
        self._model = model
        # Versions are read one after the other, and behind the replies that are written meanwhile.
        self._loader = ThreadPoolExecutor(1, "loader", _step_back)
        self._taking_up: Future[str] | None = None
        self._rests_until = 0.0
        self._arms = Arms(wiring.find_arms, wiring.key) if wiring.find_arms else None
        parts = wiring.open_parts()
        self._parts = replace(parts, arm=self._arms.arm) if self._arms else parts
        self._held: str | None = None  # the canary's candidate, when it is in memory beside the live version
        others = serve_config.num_replicas > 1
        self._replicas = serve.get_deployment_handle(DEPLOYMENT, APP) if others else None
        self._conversations = Conversations(Signer(wiring.key), self._ask_others if others else None)
        self._engine = self._first_engine()
        self._log = wiring.open_log(serve.get_replica_context().replica_tag)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(
            self._engine,
            self._log.append,
            self._wiring.key,
            self._chat,
            self._serve_config,
            self._parts,
            events_of=self._wiring.events_of,
            access=self._wiring.access,
            candidate=self._candidate,
            conversations=self._conversations,
            replica=serve.get_replica_context().replica_tag,
        )

    async def swap(self, version: str) -> tuple[str, str]:
        """Load `version` and send new requests to it. Returns (version that answers now, why not)."""
        why_not = await asyncio.wrap_future(self._loader.submit(self._swap, version))
        return self._engine.version, why_not

    def served_here(self, chain: str) -> str | None:
        """Asked by other replicas: the conversation in which this one served a history."""
        return self._conversations.served_here(chain)

    async def _ask_others(self, chain: str) -> str | None:
        """The conversation in which another replica served a history; where none says so, it is a new one."""
        assert self._replicas is not None
        try:
            asked = self._replicas.broadcast("served_here", chain)
            answers = await asked.results_async(timeout_s=ASK_SECONDS, return_exceptions=True)
        except (TimeoutError, RayError, RayServeException) as error:
            log.warning("the other replicas could not be asked for a history: %s", type(error).__name__)
            return None
        return next((answer for answer in answers if isinstance(answer, str)), None)

    def check_health(self) -> None:
        """Called by Serve now and then; a replica that raises is replaced.

        Also takes up a champion that was promoted by somebody who does not know this server, and the
        candidate of a canary; lets that go when the canary is over.
        """
        if not self._engine.alive:
            raise RuntimeError("the engine's thread has ended")
        if self._taking_up is not None and not self._taking_up.done():
            return
        why_not, self._taking_up = self._taking_up.result() if self._taking_up else "", None
        if why_not:
            log.warning("%s goes on: %s", self._engine.version, why_not)
            self._rests_until = time.monotonic() + REST_SECONDS
        if self._held is not None and self._held not in self._engine.versions:  # it died, and may do so again
            self._held, self._rests_until = None, time.monotonic() + REST_SECONDS
        if time.monotonic() < self._rests_until:
            return
        try:
            champion, candidate = self._wiring.find_champion(), self._candidate()
        except (OSError, ValueError, UserError) as error:  # what answers goes on answering
            log.warning("%s goes on, for the aliases cannot be read: %s", self._engine.version, error)
            return
        if champion != self._engine.version:
            self._taking_up = self._loader.submit(self._swap, champion)
        elif candidate != self._held:
            self._taking_up = self._loader.submit(self._hold, candidate)

    def __del__(self) -> None:
        """Called by Serve when the replica has drained: seals what it logged."""
        if hasattr(self, "_log"):  # not when __init__ failed
            self._engine.close()
            self._log.close()

    def _first_engine(self) -> Engine:
        version, folder = self._wiring.find_model(None)
        engine = open_engine(version, folder, self._serve_config, self._chat, self._model)
        # The champion may have moved while the model was loaded, and the broadcast does not reach us yet.
        now, folder = self._wiring.find_model(None)
        if now != version:
            engine.load(now, folder)
            engine.swap(now)
        return engine

    def _candidate(self) -> str | None:
        return self._arms.split.candidate if self._arms else None

    def _hold(self, candidate: str | None) -> str:
        """Have a canary's candidate in memory beside the live version; None: none. Returns why not."""

        def keep() -> None:
            if candidate is not None and candidate not in self._engine.versions:
                self._engine.load(candidate, self._wiring.find_model(candidate)[1])
            self._engine.keep([candidate] if candidate else [])
            self._held = candidate

        return _why_not(keep)

    def _swap(self, version: str) -> str:
        """Send new requests to `version`. Returns why not."""

        def swap() -> None:
            if version != self._engine.version:
                self._engine.load(version, self._wiring.find_model(version)[1])
                self._engine.swap(version)

        return _why_not(swap)


def _why_not(change: Callable[[], None]) -> str:
    """Why the engine could not be changed, or "": whatever it was, what answered before goes on, which a
    replica that dies of it does not. An engine that is dead says so itself."""
    try:
        change()
    except UserError as error:
        return str(error)
    except Exception as error:  # as when there is no memory for two
        log.exception("a version could not be taken up")
        return f"{type(error).__name__}, see the log of the replica"
    return ""


def _step_back() -> None:
    """Give way to other threads, where the system has priorities for threads."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, get_native_id(), 10)


class ServerHandle:
    """A running server. `url` is where people reach it from this machine."""

    def __init__(self, url: str, handle: DeploymentHandle[Any], replicas: int, owns_serve: bool) -> None:
        self.url = url
        self._handle = handle
        self._replicas = replicas
        self._owns_serve = owns_serve

    def swap(self, version: str, timeout_s: float = 600) -> None:
        """Return when every replica answers with `version`; no request fails meanwhile.

        Move the champion alias first: a replica that starts now reads it. Raises UserError when a
        replica refused the version (the old one then goes on), TimeoutError when some are missing.
        """
        for now, why_not in self._everywhere("swap", version, timeout_s):
            if now != version:
                raise UserError(why_not or f"a replica answers with {now} instead of {version}.")

    def _everywhere(self, method: str, argument: Any, timeout_s: float) -> list[Any]:
        """The answers of all replicas, asked again until there are as many as there should be.

        A replica that died meanwhile gave none; the one that takes its place is asked. Raises TimeoutError.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(1.0, deadline - time.monotonic())
            found = _ask_all(self._handle, method, argument, left)
            answers = [answer for answer in found if not isinstance(answer, RayActorError)]
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            if len(answers) >= self._replicas and len(answers) == len(found):
                return answers
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(answers)} of {self._replicas} replicas answered to {method}")
            time.sleep(0.5)

    def stop(self) -> None:
        """Let replies under way end, seal the log, and free the port if Serve was started here."""
        serve.delete(APP)
        if self._owns_serve:
            # Serve kills its controller while its own handles still listen to it, and Ray prints that on
            # standard output as failed tasks: nothing that anybody has to know.
            with redirect_stdout(io.StringIO()):
                serve.shutdown()
                time.sleep(1)


def _ask_all(handle: DeploymentHandle[Any], method: str, argument: Any, timeout_s: float) -> list[Any]:
    """What each replica answers, or the exception it died of.

    In a thread of its own: Ray waits for no answer in a thread that runs an event loop, as notebooks do.
    """
    with ThreadPoolExecutor(1) as thread:
        asked = handle.broadcast(method, argument)
        return thread.submit(asked.results, timeout_s=timeout_s, return_exceptions=True).result()


def start(
    wiring: Wiring, serve_config: ServeConfig, chat_config: ChatConfig, model_config: ModelConfig
) -> ServerHandle:
    """Run the chat server on the Ray that this process is connected to; returns when it answers.

    Raises UserError when the port is taken, or when Serve already runs here on another port.
    """
    owns_serve = not serve.status().proxies
    if owns_serve:
        require_free_port(serve_config.host, serve_config.port)
        serve.start(
            http_options=HTTPOptions(host=serve_config.host, port=serve_config.port),
            logging_config={"enable_access_log": False},
        )
    deployment: Any = serve.deployment(serve.ingress()(ChatServer))
    app = deployment.options(
        name=DEPLOYMENT,
        num_replicas=serve_config.num_replicas,
        ray_actor_options={"num_cpus": serve_config.num_cpus, "num_gpus": serve_config.num_gpus},
        # The engine has its own bounded queue; Serve's is only the wall behind it.
        max_ongoing_requests=serve_config.max_batch + serve_config.max_queued + 100,
        max_queued_requests=serve_config.max_queued,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=Busy.retry_after_s),
        graceful_shutdown_timeout_s=serve_config.shutdown_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config={"enable_access_log": False},
    ).bind(wiring, serve_config, chat_config, model_config)
    handle = serve.run(app, name=APP, route_prefix="/")
    server = ServerHandle(url_of(serve_config), handle, serve_config.num_replicas, owns_serve)
    _require_answer(server)
    return server


def url_of(config: ServeConfig) -> str:
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::", "") else config.host
    return f"http://{f'[{host}]' if ':' in host else host}:{config.port}"


def require_free_port(host: str, port: int) -> None:
    """Raise UserError when nothing new can listen there, and say whether one of our servers does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return
        except OSError as error:
            reason = error.strerror or "it cannot be used"
    version = _answering(f"http://127.0.0.1:{port}")
    if version:
        raise UserError(
            f"serve.port {port}: a bb3x-ray server already answers there with {version}; stop it, or "
            f"add serve.port={port + 1} to the command."
        )
    raise UserError(
        f"serve.port {port} on {host}: {reason.lower()}; stop the other program, or add "
        f"serve.port={port + 1} to the command."
    )


def _answering(url: str) -> str:
    """The version with which one of our servers answers at `url`, or ""."""
    try:
        answer = httpx.get(f"{url}/health", timeout=3, trust_env=False)
        return str(answer.json()["model_version"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ""  # something else, which does not speak our language


def _require_answer(server: ServerHandle) -> None:
    deadline = time.monotonic() + 30
    while not _answering(server.url):
        if time.monotonic() > deadline:
            server.stop()
            raise UserError(
                f"nothing answers at {server.url}: Ray Serve probably runs in this cluster with another "
                "host or port; set serve.port to that, or run `serve shutdown` first."
            )
        time.sleep(0.2)
