"""How often one caller may come, told by a clock that the test moves."""

import random

import pytest

from bb3x_ray.config import ServeConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.admission import Access, Admission, Limits, Refused, address_of, digest_of, is_local


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def refusal(admission: Admission, name: str = "a") -> tuple[str, int] | None:
    try:
        admission.enter(name)
    except Refused as refused:
        return refused.limit, refused.retry_after_s
    admission.leave(name)
    return None


def test_a_minutes_worth_at_once_then_as_it_refills() -> None:
    clock = Clock()
    admission = Admission(Limits(30, 0, 0), clock)
    assert [refusal(admission) for _ in range(30)] == [None] * 30
    assert refusal(admission) == ("requests_per_minute", 2)
    assert refusal(admission, "b") is None, "another caller"
    clock.now += 2
    assert refusal(admission) is None
    assert refusal(admission) == ("requests_per_minute", 2)
    clock.now += 10_000
    assert [refusal(admission) for _ in range(31)][-1] is not None, "rest does not add up"


def test_who_comes_again_when_told_is_let_in() -> None:
    chance, clock = random.Random(0), Clock()
    for per_minute in (1, 7, 60, 6000):
        admission = Admission(Limits(per_minute, 0, 0), clock)
        for _ in range(3 * per_minute if per_minute < 100 else 50):
            if refused := refusal(admission):
                clock.now += refused[1]
                assert refusal(admission) is None
            clock.now += chance.random()


def test_tokens_are_paid_for_when_they_are_known() -> None:
    clock = Clock()
    admission = Admission(Limits(0, 600, 0), clock)
    assert refusal(admission) is None
    admission.spend("a", 650)
    assert refusal(admission) == ("tokens_per_minute", 6)  # the debt of 50, and one
    clock.now += 6
    assert refusal(admission) is None


def test_as_many_at_once_as_allowed() -> None:
    admission = Admission(Limits(0, 0, 2), Clock())
    admission.enter("a")
    admission.enter("a")
    assert refusal(admission) == ("concurrent_requests", 1)
    admission.leave("a")
    assert refusal(admission) is None


def test_callers_are_forgotten_but_not_while_they_are_answered() -> None:
    admission = Admission(Limits(1, 0, 1), Clock(), capacity=10)
    admission.enter("busy")
    for number in range(100_000):
        refusal(admission, f"ip:{number}")
    assert len(admission) == 10
    with pytest.raises(Refused):
        admission.enter("busy")
    admission.leave("busy")


def test_addresses_of_one_network_are_one_caller() -> None:
    assert address_of(("2001:db8::1", 5)) == address_of(["2001:db8::ffff:2", 6])
    assert address_of(("2001:db8:0:1::1", 5)) != address_of(("2001:db8::1", 5))
    assert address_of(("::ffff:10.0.0.1", 1)) == address_of(("10.0.0.1", 2)) == "ip:10.0.0.1"
    assert address_of(None) == address_of("") == address_of(("", 0)) == "ip:"
    assert is_local(("127.0.0.1", 1)) and is_local(("::1", 1))
    assert not any(map(is_local, (("10.0.0.1", 1), ("localhost.evil", 1), None, "")))


def test_keys_come_from_the_environment_and_only_their_digests_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEYS", f"{'a' * 16}, {'b' * 20}")
    access = Access.of(ServeConfig(api_keys_env="KEYS"))
    assert access.keys == {digest_of("a" * 16), digest_of("b" * 20)} and not access.admin
    assert "aaaa" not in repr(access)
    for name, value in (("KEYS", "short"), ("KEYS", ""), ("OTHER", None)):
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
        with pytest.raises(UserError, match=r"serve\.admin_key_env"):
            Access.of(ServeConfig(admin_key_env=name))
