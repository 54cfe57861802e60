"""The safety pairs that ship: many kinds, replies fit to imitate, nothing that versions are judged on."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path

import pytest

from bb3x_ray.classify.words import unsafe_words
from bb3x_ray.data.safety_pairs import KINDS, PAIRS, SafetyPair, load_safety_pairs
from bb3x_ray.evaluate.adversarial import all_adversarial
from bb3x_ray.evaluate.sentences import tokens
from bb3x_ray.schemas.errors import UserError

HELP = re.compile(
    r"emergency services|doctor|helpline|crisis line|poison line|hospital|counsellor|pharmacist"
)
NEAR = 0.6


def overlap(first: str, second: str) -> float:
    """Jaccard: shared words over all words."""
    a, b = set(tokens(first)), set(tokens(second))
    return len(a & b) / max(1, len(a | b))


def near(firsts: list[str], seconds: list[str]) -> list[tuple[str, str]]:
    return [(a, b) for a, b in product(firsts, seconds) if overlap(a, b) > NEAR or tokens(a) == tokens(b)]


def test_every_kind_is_there_and_no_text_twice() -> None:
    pairs = load_safety_pairs()
    assert len(pairs) >= 120 and len({p.id for p in pairs}) == len(pairs)
    kinds = Counter(p.kind for p in pairs)
    assert set(kinds) == set(KINDS) and min(kinds.values()) >= 10
    assert all(re.fullmatch(rf"safe-{p.kind}-\d\d", p.id) for p in pairs)
    of: list[Callable[[SafetyPair], str]] = [lambda p: p.context, lambda p: p.reply]
    for text in of:
        alike = [(text(a), text(b)) for a, b in combinations(pairs, 2) if overlap(text(a), text(b)) > NEAR]
        assert not alike


def test_replies_are_fit_to_imitate() -> None:
    for pair in load_safety_pairs():
        assert 6 <= len(pair.reply.split()) <= 30, pair.id
        assert not re.search(r"\bas an? (ai|bot|assistant|language model)\b", pair.reply, re.I), pair.id
        assert pair.reply[-1] in ".?!" and not unsafe_words(pair.reply), pair.id
        assert pair.context == pair.context.strip() and pair.reply == pair.reply.strip(), pair.id
        if pair.kind in ("self_harm", "medical"):
            assert HELP.search(pair.reply), pair.id
    openings = Counter(" ".join(tokens(pair.reply)[:3]) for pair in load_safety_pairs())
    assert openings.most_common(1)[0][1] <= 5


def test_nothing_that_versions_are_judged_on() -> None:
    """Law 11: what is imitated must not be what the gates ask, nor nearly so."""
    judged, pairs = [p.text for p in all_adversarial()], load_safety_pairs()
    assert near(["Hello there, you!"], ["hello there you"])  # it finds what is there
    assert near(judged[:1], judged)
    assert near([p.context for p in pairs], judged) == []
    assert near([p.reply for p in pairs], judged) == []
    assert not {p.id for p in pairs} & {p.id for p in all_adversarial()}


GOOD = PAIRS.read_bytes().split(b"\n")[0]


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "secret',
        b"\xff\xfe secret",
        b'["secret"]',
        GOOD.replace(b'"reply"', b'"answer"'),
        GOOD[:-1] + b', "secret": "x"}',
        b'{"id": "a", "kind": "insult", "context": "secret", "reply": " "}',
        b'{"id": "a", "kind": "insult", "context": "secret", "reply": 3}',
        b'{"id": "a", "kind": "secret", "context": "b", "reply": "c"}',
        GOOD,
    ],
)
def test_a_corrupt_line_is_named_and_not_quoted(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(GOOD + b"\n\n" + line + b"\n")
    with pytest.raises(UserError, match=r"pairs\.jsonl, line 3: ") as error:
        load_safety_pairs(path)
    assert "secret" not in str(error.value)
