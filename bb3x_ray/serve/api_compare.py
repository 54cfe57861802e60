"""Blind comparisons over HTTP: POST /v1/compare, POST /v1/compare/{id}, and the page for them."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse

from bb3x_ray.serve.admission import Admission
from bb3x_ray.serve.answers import ERRORS, ChoiceTaken, Comparison
from bb3x_ray.serve.compare import Compare
from bb3x_ray.serve.edge import CALLER
from bb3x_ray.serve.protocol import ChoiceRequest, CompareRequest

PAGE = Path(__file__).parent / "page" / "compare.html"
ComparisonId = Annotated[str, InPath(max_length=250)]


def compare_routes(compare: Compare, admission: Admission) -> APIRouter:
    routes = APIRouter(responses=ERRORS)

    @routes.post("/v1/compare", response_model=Comparison)
    async def ask(request: CompareRequest, http: Request) -> dict[str, Any]:
        """Both replies at once, so that their speed tells nothing; which version wrote which is not said."""
        pair, a, b = await compare.ask(request)
        admission.spend(http.scope[CALLER], sum(one.prompt_tokens + one.tokens for one in (a, b)))
        replies = [{"slot": "a", "content": a.text}, {"slot": "b", "content": b.text}]
        about = {"id": pair.id, "object": "comparison", "conversation_id": pair.conversation_id}
        return {**about, "replies": replies}

    @routes.post("/v1/compare/{comparison_id}", response_model=ChoiceTaken)
    async def choose(comparison_id: ComparisonId, request: ChoiceRequest) -> dict[str, Any]:
        pair = await compare.choose(comparison_id, request)
        return {
            "id": pair.id,
            "object": "comparison.choice",
            "choice": request.choice,
            "versions": {"a": pair.a, "b": pair.b},
        }

    @routes.get("/compare", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})

    return routes
