"""Replicas follow the aliases without asking for them at every turn."""

import pytest

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.canary.arms import Arms

KEY = b"0123456789abcdef"


class Aliases:
    def __init__(self) -> None:
        self.now: tuple[str, str | None, float] = ("v0001", "v0002", 50)
        self.asked, self.time = 0, 0.0
        self.error: Exception | None = None

    def __call__(self) -> tuple[str, str | None, float]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.now

    def clock(self) -> float:
        return self.time


def answers(arms: Arms) -> set[str | None]:
    return {arms.arm(f"u-{n}", "c") for n in range(100)}


def test_some_get_the_candidate_and_the_others_whatever_is_live() -> None:
    aliases = Aliases()
    arms = Arms(aliases, KEY, 1.0, aliases.clock)
    assert answers(arms) == {"v0002", None} and aliases.asked == 1


def test_the_end_of_a_canary_is_seen_a_second_later() -> None:
    aliases = Aliases()
    arms = Arms(aliases, KEY, 1.0, aliases.clock)
    aliases.now = ("v0002", None, 50)
    aliases.time = 0.5
    assert answers(arms) == {"v0002", None}
    aliases.time = 1.0
    assert answers(arms) == {None} and arms.split.champion == "v0002" and aliases.asked == 2


def test_no_share_no_canary() -> None:
    aliases = Aliases()
    aliases.now = ("v0001", "v0002", 0)
    assert answers(Arms(aliases, KEY, 1.0, aliases.clock)) == {None}


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), OSError("hiccup"), UserError("no champion"), KeyError("x")]
)
def test_while_the_aliases_cannot_be_read_everybody_keeps_their_version(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    aliases = Aliases()
    arms = Arms(aliases, KEY, 1.0, aliases.clock)
    before = [arms.arm(f"u-{n}", "c") for n in range(100)]
    aliases.error, aliases.time = error, 1.0
    assert [arms.arm(f"u-{n}", "c") for n in range(100)] == before and aliases.asked == 2
    assert [record.message.split(": ")[-1] for record in caplog.records] == [type(error).__name__]
    aliases.error, aliases.now, aliases.time = None, ("v0001", None, 50), 2.0
    assert answers(arms) == {None}
