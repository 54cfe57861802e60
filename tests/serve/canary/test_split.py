"""The split is sticky, even, keyed, and the same in every process."""

import subprocess
import sys

import pytest

from bb3x_ray.serve.canary.split import Split

KEY = b"0123456789abcdef"
PEOPLE = [f"u-{i:05d}" for i in range(20_000)]


def split(candidate: str | None = "v0002", share: float = 20, key: bytes = KEY) -> Split:
    return Split("v0001", candidate, share, key)


def on_candidate(split: Split) -> set[str]:
    return {p for p in PEOPLE if split.arm(p, "c1") == split.candidate}


@pytest.mark.parametrize("share", [1, 20, 50])
def test_about_the_share_asked_for_gets_the_candidate(share: float) -> None:
    sd = (share / 100 * (1 - share / 100) / len(PEOPLE)) ** 0.5
    assert abs(len(on_candidate(split(share=share))) / len(PEOPLE) - share / 100) < 4 * sd


def test_none_and_all() -> None:
    assert on_candidate(split(share=0)) == set() and on_candidate(split(share=100)) == set(PEOPLE)
    assert {split(candidate=None).arm(p, "c") for p in PEOPLE[:100]} == {"v0001"}


def test_a_person_stays_in_all_conversations() -> None:
    assert all(len({split().arm(p, f"c{n}") for n in range(5)}) == 1 for p in PEOPLE[:200])


def test_without_a_person_the_conversation_stays() -> None:
    arms = [split(share=50).arm("", f"c{n}") for n in range(200)]
    assert arms == [split(share=50).arm("", f"c{n}") for n in range(200)] and len(set(arms)) == 2


def test_another_process_sends_people_the_same_way() -> None:
    code = (
        "import sys; from bb3x_ray.serve.canary.split import Split\n"
        "s = Split('v0001', 'v0002', 20, b'0123456789abcdef')\n"
        "sys.stdout.write(' '.join(s.arm(f'u-{i:05d}', '') for i in range(300)))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.split() == [split().arm(p, "") for p in PEOPLE[:300]]


def test_a_larger_share_keeps_those_who_were_there() -> None:
    assert on_candidate(split(share=10)) < on_candidate(split(share=30))


def test_the_next_candidate_and_another_key_fall_to_others() -> None:
    first = on_candidate(split())
    for other in (on_candidate(split(candidate="v0003")), on_candidate(split(key=b"f" * 16))):
        assert 0.15 < len(first & other) / len(first) < 0.25


@pytest.mark.parametrize("share", [-1, 101, float("nan")])
def test_a_share_is_a_percentage(share: float) -> None:
    with pytest.raises(ValueError, match="percentage"):
        split(share=share)
