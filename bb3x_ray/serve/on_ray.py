"""The room's door to Ray: the chat server as a Ray Serve application, and the handle that swaps its model."""

import io
import os
import socket
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Protocol

import anyio
import httpx
import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.config import BackpressureConfig, HTTPOptions
from ray.serve.handle import DeploymentHandle

from bb3x_ray.config import ChatConfig, ModelConfig, ServeConfig
from bb3x_ray.language.loading import load_model
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.serve.app import create_app
from bb3x_ray.serve.canary.arms import FindArms
from bb3x_ray.serve.engine import Busy, Engine

APP = "bb3x-chat"
DRAIN_SECONDS = 60  # a replica that stops may finish what it is writing


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
    find_arms    (champion, candidate of a canary or None, share in percent), for serve.canary.arms.Arms;
                 None: there are no canaries
    """

    find_model: Callable[[str | None], tuple[str, Path]]
    find_champion: Callable[[], str]
    open_log: Callable[[str], EventLog]
    key: bytes
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
        self._swapping = Lock()
        self._engine = self._first_engine()
        self._log = wiring.open_log(serve.get_replica_context().replica_tag)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._engine, self._log.append, self._wiring.key, self._chat, self._serve_config)

    async def swap(self, version: str) -> tuple[str, str]:
        """Load `version` beside the live model, then flip. Returns (version that answers now, why not)."""
        return await anyio.to_thread.run_sync(self._swap, version)

    def check_health(self) -> None:
        """Called by Serve now and then; a replica that raises is replaced.

        Also takes up a champion that was promoted by somebody who does not know this server.
        """
        if not self._engine.alive:
            raise RuntimeError("the engine's thread has ended")
        champion = self._wiring.find_champion()
        if champion != self._engine.version and not self._swapping.locked():
            Thread(target=self._swap, args=(champion,), daemon=True).start()

    def __del__(self) -> None:
        """Called by Serve when the replica has drained: seals what it logged."""
        if hasattr(self, "_log"):  # not when __init__ failed
            self._engine.close()
            self._log.close()

    def _first_engine(self) -> Engine:
        version, folder = self._wiring.find_model(None)
        config = self._serve_config
        engine = Engine(
            version,
            load_model(folder, dtype=self._model.dtype),
            max_batch=config.max_batch,
            max_queued=config.max_queued,
            max_context_tokens=self._chat.max_context_tokens,
        )
        # The champion may have moved while the model was loaded, and the broadcast does not reach us yet.
        now, folder = self._wiring.find_model(None)
        if now != version:
            engine.swap(now, load_model(folder, dtype=self._model.dtype))
        return engine

    def _swap(self, version: str) -> tuple[str, str]:
        with self._swapping:
            if version != self._engine.version:
                try:
                    _, folder = self._wiring.find_model(version)
                    model = load_model(folder, dtype=self._model.dtype)
                except UserError as error:  # the live model stays; the caller is told
                    return self._engine.version, str(error)
                self._engine.swap(version, model)
            return self._engine.version, ""


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
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(1.0, deadline - time.monotonic())
            answers = self._handle.broadcast("swap", version).results(timeout_s=left)
            for now, why_not in answers:
                if now != version:
                    raise UserError(why_not or f"a replica answers with {now} instead of {version}.")
            if len(answers) >= self._replicas:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(answers)} of {self._replicas} replicas answer with {version}")
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
        name="ChatServer",
        num_replicas=serve_config.num_replicas,
        ray_actor_options={"num_cpus": serve_config.num_cpus, "num_gpus": serve_config.num_gpus},
        # The engine has its own bounded queue; Serve's is only the wall behind it.
        max_ongoing_requests=serve_config.max_batch + serve_config.max_queued + 100,
        max_queued_requests=serve_config.max_queued,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=Busy.retry_after_s),
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
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
