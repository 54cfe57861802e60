"""The benchmark of serving: its people really talk, its counts are right, and missed goals are seen."""

from pathlib import Path

from bb3x_ray.config import ChatConfig, ServeConfig
from benchmarks.serve.__main__ import _goals
from benchmarks.serve.load import Client, Crowd, Talk, all_together
from tests.serve.engines.kinds import served
from tests.serve.room import lanes

ABOUT: list[Talk] = [[{"role": "user", "content": f"Hello {n}"}] for n in range(4)]


def test_people_together_and_in_a_crowd_get_every_token_counted(tiny_model: Path) -> None:
    engine = lanes(tiny_model)
    config = ServeConfig(port=1)
    try:
        with served(engine, ChatConfig(), config) as address:
            port = int(address.rpartition(":")[2])
            client = Client(port, "champion", 7)
            whole, streamed = client.ask(ABOUT[0]), client.ask(ABOUT[0], stream=True)
            client.close()
            answers = all_together(port, "champion", [ABOUT[:2], ABOUT[2:]], 7)
            crowd = Crowd(port, "champion", 3, ABOUT, 7)
            crowd.wait_for(6)
            engine.load("v0002", tiny_model)
            engine.swap("v0002")
            crowd.wait_for(12)
            many = crowd.stop()
            refused = Client(port, "nobody", 7)
            answer = refused.ask(ABOUT[0])
            refused.close()
    finally:
        engine.close()
    assert [(a.tokens, a.version, a.why) for a in (whole, streamed, *answers)] == [(7, "v0001", "")] * 6
    assert len(many) >= 18 and {(a.tokens, a.why) for a in many} == {(7, "")}
    assert {a.version for a in many} == {"v0001", "v0002"}
    assert answer.why == "status 404"


def test_a_goal_that_is_missed_is_seen() -> None:
    found = {"static": 50, "plain": 10, "continuous": 30, "ours": 33, "added_ms": 9, "failed": 1}
    told = {name: reached for name, _, _, reached in _goals({**found, "extra_p99_s": 0.5})}
    assert [name for name, reached in told.items() if not reached] == [
        "tokens/s by a static batch of 8",
        "failed or truncated replies in swaps",
    ]
