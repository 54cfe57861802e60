"""The OpenAPI document is true: what it allows and what it does not is answered as it says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bb3x_ray.config import ChatConfig
from tests.serve.served import Served, everything, served
from tests.tiny import make_tiny_model

EXAMPLES = 12  # of each route and kind
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ROUTES = [
    "POST /v1/chat/completions",
    "GET /v1/chat/completions/{completion_id}",
    "DELETE /v1/chat/completions/{completion_id}",
    "POST /v1/feedback",
    "POST /v1/compare",
    "POST /v1/compare/{comparison_id}",
    "POST /v1/consent",
    "POST /v1/erasure",
    "GET /v1/conversations",
    "DELETE /v1/conversations/{conversation_id}",
    "GET /v1/memories",
    "DELETE /v1/memories/{memory_id}",
    "GET /v1/models",
    "GET /v1/models/{model_id}",
    "GET /health",
    "GET /version",
    "GET /metrics",
]


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    chat, root = ChatConfig(max_new_tokens=3), tmp_path_factory.mktemp("openapi")
    limits = {"max_reply_tokens": 4, "requests_per_minute": 0}
    other = make_tiny_model(tmp_path_factory.mktemp("other"), seed=1)
    with served(tiny_model, root, beside=other, chat=chat, around=everything(root), **limits) as running:
        yield running


@pytest.fixture(scope="module")
def operations(server: Served) -> dict[str, Any]:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    return {result.ok().label: result.ok() for result in document.get_all_operations()}


def test_every_route_is_in_the_document(operations: dict[str, Any]) -> None:
    assert sorted(operations) == sorted(ROUTES)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("route", ROUTES)
def test_answers_are_as_documented(operations: dict[str, Any], route: str, mode: GenerationMode) -> None:
    if mode is GenerationMode.NEGATIVE and "{" not in route and route.startswith("GET /"):
        if "conversations" not in route and "memories" not in route:
            pytest.skip("nothing is sent that could be wrong")
    check_route(operations[route], mode, EXAMPLES)


def check_route(operation: Any, mode: GenerationMode, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    try:
        check()
    except Unsatisfiable:
        pytest.skip("the tool finds nothing to send")
