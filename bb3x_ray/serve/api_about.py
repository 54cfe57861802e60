"""What the server says of itself.

GET /v1/models   GET /v1/models/{id}   GET /health   GET /version   GET /metrics
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from bb3x_ray import __version__
from bb3x_ray.serve.answers import ERRORS, Health, Model, ModelList, Version
from bb3x_ray.serve.engines.protocol import Engine
from bb3x_ray.serve.meters import Meters
from bb3x_ray.serve.protocol import CHAMPION, ApiError

ModelId = Annotated[str, Path(max_length=100)]


def about_routes(engine: Engine, meters: Meters, candidate: Callable[[], str | None]) -> APIRouter:
    routes = APIRouter(responses=ERRORS)

    @routes.get("/v1/models", response_model=ModelList)
    async def models() -> dict[str, Any]:
        names = [CHAMPION, *engine.versions]
        return {"object": "list", "champion": engine.version, "data": [_model(name) for name in names]}

    @routes.get("/v1/models/{model_id}", response_model=Model)
    async def model(model_id: ModelId) -> dict[str, Any]:
        if model_id not in (CHAMPION, *engine.versions):
            raise ApiError(
                404,
                f"model: this server answers as {CHAMPION}, now {engine.version}.",
                param="model",
                code="model_not_found",
            )
        return _model(model_id)

    @routes.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        alive = engine.alive
        body = {"status": "ok" if alive else "failed", "model_version": engine.version}
        return JSONResponse(body, 200 if alive else 503)

    @routes.get("/version", response_model=Version)
    async def version() -> dict[str, Any]:
        return {"version": __version__, "model_version": engine.version, "candidate": candidate()}

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(meters.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "bb3x-ray"}
