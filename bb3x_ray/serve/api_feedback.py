"""POST /v1/feedback"""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request

from bb3x_ray.serve.answers import ERRORS, FeedbackTaken
from bb3x_ray.serve.edge import HAS_KEY
from bb3x_ray.serve.feedback import FeedbackDesk
from bb3x_ray.serve.meters import Meters
from bb3x_ray.serve.protocol import ApiError, FeedbackRequest

IdempotencyKey = Annotated[str | None, Header(max_length=255, min_length=1)]


def feedback_routes(desk: FeedbackDesk, meters: Meters) -> APIRouter:
    routes = APIRouter(responses=ERRORS)

    @routes.post("/v1/feedback", response_model=FeedbackTaken)
    async def feedback(
        request: FeedbackRequest, http: Request, idempotency_key: IdempotencyKey = None
    ) -> dict[str, Any]:
        """A later feedback replaces an earlier one; `rating` null takes it back.

        The same request with the same `Idempotency-Key` is the same feedback and gets the same answer.
        """
        if not http.scope[HAS_KEY] and request.token is None:
            raise ApiError(
                401,
                "Send a key of this server, or the completion's feedback_token as `token`.",
                kind="authentication_error",
                code="invalid_api_key",
            )
        event_id = await desk.take(request, idempotency_key)
        meters.thumb(request.completion_id, request.rating)
        return {
            "id": event_id,
            "object": "feedback",
            "completion_id": request.completion_id,
            "rating": request.rating,
            "reasons": list(request.distinct_reasons()),
            "source": request.source,
        }

    return routes
