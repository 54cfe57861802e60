"""A short fuzz; the long one is `python -m tests.serve.fuzz --requests 10000`."""

from pathlib import Path

from bb3x_ray.config import ChatConfig
from tests.serve.fuzz import fuzz
from tests.serve.served import served


def test_no_request_breaks_the_server_or_reaches_what_is_anothers(tiny_model: Path, tmp_path: Path) -> None:
    with served(tiny_model, tmp_path, chat=ChatConfig(max_new_tokens=4), requests_per_minute=0) as server:
        found = fuzz(server, 300, seed=1)
    assert found.requests >= 300
    assert found.failures == [] and found.leaks == []
    assert found.statuses[200] > 50 and found.statuses[404] > 20 and found.statuses[400] > 20
