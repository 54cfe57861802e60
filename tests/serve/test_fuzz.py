"""A short fuzz; the long one is `python -m tests.serve.fuzz --requests 10000`."""

from pathlib import Path

from bb3x_ray.config import ChatConfig
from tests.serve.fuzz import fuzz
from tests.serve.served import everything, served
from tests.tiny import make_tiny_model


def test_no_request_breaks_the_server_or_reaches_what_is_anothers(tiny_model: Path, tmp_path: Path) -> None:
    other, root = make_tiny_model(tmp_path / "other", seed=1), tmp_path / "store"
    chat, around = ChatConfig(max_new_tokens=4), everything(root)
    with served(tiny_model, root, beside=other, chat=chat, around=around, requests_per_minute=0) as server:
        found = fuzz(server, 300, seed=1)
    assert found.requests >= 300
    assert found.failures == [] and found.leaks == []
    assert found.statuses[200] > 50 and found.statuses[404] > 20 and found.statuses[400] > 20
    wanted = {"compare", "choose", "forget", "recalled", "look memories", "look conversations"}
    assert wanted <= set(+found.met), "what is not met cannot leak"
