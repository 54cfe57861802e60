"""The messages that ship: both kinds, none near what versions are judged on."""

import re
from collections import Counter
from pathlib import Path

import pytest

from bb3x_ray.data.safety_messages import MESSAGES, load_safety_messages
from bb3x_ray.data.safety_pairs import load_safety_pairs
from bb3x_ray.evaluate.adversarial import all_adversarial
from bb3x_ray.schemas.errors import UserError
from tests.data.test_safety_pairs import near


def test_there_are_many_of_both_kinds_and_none_twice() -> None:
    messages = load_safety_messages()
    assert len({m.text.lower() for m in messages}) == len(messages) >= 400
    assert sum(m.unsafe for m in messages) >= 200 <= 40 + sum(not m.unsafe for m in messages)
    kinds = Counter(m.kind for m in messages)
    assert len(kinds) >= 15 and min(kinds.values()) >= 5
    assert all(m.text == m.text.strip() and re.search(r"\w", m.text) for m in messages)


def test_nothing_that_versions_are_judged_on_nor_the_imitated_pairs() -> None:
    """Law 11: the filter that shapes the data shares no training prompt with the judge."""
    texts = [m.text for m in load_safety_messages()]
    assert near(texts, [p.text for p in all_adversarial()]) == []
    pairs = load_safety_pairs()
    assert near(texts, [p.context for p in pairs] + [p.reply for p in pairs]) == []


GOOD = MESSAGES.read_bytes().split(b"\n")[0]


@pytest.mark.parametrize(
    "line", [b'{"secret', b"\xff", b'["secret"]', b'{"text": "secret"}', b'{"text": " ", "unsafe": true}']
)
def test_a_corrupt_line_is_named_and_not_quoted(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(GOOD + b"\n\n" + line)
    with pytest.raises(UserError, match=r"mine\.jsonl, line 3: ") as told:
        load_safety_messages(path)
    assert "secret" not in str(told.value)
    with pytest.raises(UserError, match=r"safety\.files"):
        load_safety_messages(tmp_path / "none.jsonl")
