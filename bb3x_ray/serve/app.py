"""The HTTP app: routes of the API, what stands around them, and the page.

Metered (counts) → CORS, if any origin is named → Edge (size, time, headers) → Admit (keys, limits) → routes
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware

from bb3x_ray import __version__
from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.admission import Access, Admission, Limits
from bb3x_ray.serve.api_about import about_routes
from bb3x_ray.serve.api_compare import compare_routes
from bb3x_ray.serve.api_completions import completion_routes
from bb3x_ray.serve.api_feedback import feedback_routes
from bb3x_ray.serve.api_people import people_routes
from bb3x_ray.serve.compare import Compare
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.conversations import Conversations
from bb3x_ray.serve.durable import AppendEvents, EventsOf, append_durably, nothing
from bb3x_ray.serve.edge import Admit, Edge
from bb3x_ray.serve.engines.protocol import Engine
from bb3x_ray.serve.failures import add_failures
from bb3x_ray.serve.feedback import FeedbackDesk
from bb3x_ray.serve.meters import Metered, Meters
from bb3x_ray.serve.people import People
from bb3x_ray.serve.reply import Parts
from bb3x_ray.serve.turn import Chat

PAGE = Path(__file__).parent / "page"
_ASKS = ("Authorization", "Content-Type", "Idempotency-Key", "bb3x-user", "bb3x-proof")


def no_candidate() -> str | None:
    return None


def create_app(
    engine: Engine,
    append_events: AppendEvents,
    key: bytes,
    chat_config: ChatConfig,
    serve_config: ServeConfig,
    parts: Parts | None = None,
    *,
    events_of: EventsOf = nothing,
    access: Access | None = None,
    candidate: Callable[[], str | None] = no_candidate,
    conversations: Conversations | None = None,
    replica: str = "0",
) -> FastAPI:
    """The app around an engine and a log.

    append_events   writes a list of events durably or raises; called from threads, many at once
    key             at least 16 secret bytes that all replicas share and keep over restarts
    parts           what a turn has beside: safety, modules, memories
    events_of       person -> their events in the log; called from threads
    candidate       the version that answers a part of the conversations, or None
    conversations   what this replica served, where others ask for it too
    replica         what tells this replica's metrics from the others'
    """
    app = FastAPI(title="bb3x-ray", version=__version__, docs_url=None, redoc_url=None)
    meters, admission = Meters(replica), Admission(Limits.of(serve_config))
    _add_layers(app, serve_config, meters, admission, access or Access())
    parts = parts or Parts()
    chat = Chat(engine, append_events, key, chat_config, serve_config, parts, conversations)
    signer = Signer(key)
    people = People(signer, append_events, events_of, parts.memories)
    desk = FeedbackDesk(signer, append_events, events_of, chat.is_unfinished)
    app.include_router(completion_routes(chat, people, signer, meters, admission))
    app.include_router(feedback_routes(desk, meters))
    app.include_router(people_routes(people, parts.memories))
    app.include_router(about_routes(engine, meters, candidate))
    append = partial(append_durably, append_events)
    compare = Compare(engine, append, signer, chat_config, serve_config, parts.safety)
    app.include_router(compare_routes(compare, admission))
    _add_page(app)
    add_failures(app)
    _tell_truly(app)
    return app


def _add_layers(
    app: FastAPI, config: ServeConfig, meters: Meters, admission: Admission, access: Access
) -> None:
    """The innermost first."""
    app.add_middleware(Admit, admission=admission, access=access)
    app.add_middleware(
        Edge,
        max_body_bytes=config.max_body_bytes,
        body_seconds=config.body_seconds,
        write_seconds=config.write_seconds,
    )
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=list(_ASKS),
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Metered, meters=meters)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE))


def _tell_truly(app: FastAPI) -> None:
    """The OpenAPI document without the answer 422, which FastAPI writes into it and we never give."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for path in app.openapi_schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                app.openapi_schema["components"]["schemas"].pop(unused, None)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
