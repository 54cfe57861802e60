"""Whole words, three disguises, and no false alarms on ordinary talk."""

import pytest

from bb3x_ray.classify.words import WordMatcher, unsafe_words
from bb3x_ray.data.readers.chitchat import read_chitchat


@pytest.mark.parametrize(
    "text",
    ["what the FUCK", "f u c k you", "f.u.c.k off", "oh sh1t", "fuuuuuck", "f*ck that", "b!tch", "$hit"],
)
def test_disguises_are_seen_through(text: str) -> None:
    assert len(unsafe_words(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "My class passed the assessment in Scunthorpe.",
        "she is nice",
        "I a m s o tired",
        "A B C D E F G is the alphabet song",
        "It costs 5$ or 10$ at most, 2*3 is 6",
        "sooooo good, yesss",
        "in 1955 the a1 road was built, c3po",
        "**bold** words and *stars*",
        "assistant, Dickens, cockpit, therapist, analysis, grape, Essex, cumin, title",
    ],
)
def test_ordinary_writing_is_left_alone(text: str) -> None:
    assert unsafe_words(text) == []


def test_words_are_added_and_allowed() -> None:
    matcher = WordMatcher(extra=["Blorp", "silly sausage"], allowed=["shit"])
    assert matcher.find("You BLORP, you silly sausage, bl0rp, shit, sh1t") == [
        "blorp",
        "silly sausage",
        "blorp",
    ]
    assert WordMatcher(extra=["sexy"]).find("so sexy") == ["sexy"]


def test_hardly_anything_is_found_in_ordinary_talk() -> None:
    """The chitchat package's people rarely swear; looked at one by one, half of what is found is meant so."""
    texts = [turn for talk in read_chitchat(2)[::10] for turn in talk.turns]
    found = [text for text in texts if unsafe_words(text)]
    assert len(texts) > 10_000 and len(found) / len(texts) < 0.002


def test_disguises_cost_no_false_alarm_in_ordinary_talk() -> None:
    texts = [turn for talk in read_chitchat(2)[::10] for turn in talk.turns]
    matcher = WordMatcher()
    disguised = [t for t in texts if len(matcher.find(t)) > len(matcher._pattern.findall(t))]
    assert disguised == []
