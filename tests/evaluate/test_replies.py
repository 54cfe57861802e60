"""Sentences, equal length, structural failures and nulls."""

import pytest

from bb3x_ray.evaluate.equal_length import equalise, without_cut_off
from bb3x_ray.evaluate.nulls import CONSTANT, null_gallery
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.evaluate.sentences import is_finished, sentences
from bb3x_ray.evaluate.structure import structural_failure


def prompt(*turns: str) -> Prompt:
    return Prompt("A/1", "standard", turns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   \n ", []),
        ("no mark at all", ["no mark at all"]),
        ("i like it. do you?", ["i like it.", "do you?"]),
        ('He said "no." Then he left!', ['He said "no."', "Then he left!"]),
        ("Dr. Who met Mrs. Smith. They ran.", ["Dr. Who met Mrs. Smith.", "They ran."]),
        ("1. Eat\n2. Sleep", ["1. Eat", "2. Sleep"]),
        ("It costs 3.50 a piece... really", ["It costs 3.50 a piece...", "really"]),
        ("See\nbelow. End. 7.", ["See", "below.", "End.", "7."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_finished_texts() -> None:
    assert all(map(is_finished, ["Yes.", 'So "be it!"', "haha :)", "nice 😊", "Well… "]))
    assert not any(map(is_finished, ["I was going to the", "one, ", ""]))


def test_equalise_cuts_the_longer_to_whole_sentences_within_the_shorter() -> None:
    short = "I like tea a lot, and you?"  # 7 words
    long = "Tea is nice. I do too. My aunt drinks it daily. It is warm."  # 3 + 3 + 5 + 3
    assert equalise(short, long) == (short, "Tea is nice. I do too.")
    assert equalise(long, short) == ("Tea is nice. I do too.", short)


def test_equalise_keeps_the_first_sentence_of_each() -> None:
    assert equalise("Yes.", "That is a very long first sentence. And more.") == (
        "Yes.",
        "That is a very long first sentence.",
    )
    assert equalise("", "Hello there. And more.") == ("", "Hello there.")


def test_equalise_does_not_skip_a_long_sentence_to_take_a_later_one() -> None:
    five = "One two three four five."
    assert equalise(five, "A b. C d e f g h. I j.") == (five, "A b.")


def test_a_sentence_cut_off_by_the_limit_is_dropped_when_a_whole_one_stands_before_it() -> None:
    assert without_cut_off("I see. And then I went to the", "length") == "I see."
    assert without_cut_off("And then I went to the", "length") == "And then I went to the"
    assert without_cut_off("I see. And then I went.", "length") == "I see. And then I went."
    assert without_cut_off("I see. And then I went to the", "stop") == "I see. And then I went to the"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("", "empty"),
        (" ... ", "empty"),
        ("Do you like green tea?", "echo"),
        ("Do you like tea?", "echo"),  # 4 of 5 tokens
        ("you like green", "echo"),  # a part of it
        ("Do you like green tea? I do, very much.", "echo"),  # the message, and little more
        ("I like green tea, and in winter I like black tea more.", None),
        ("Do you like green tea, you ask: well, in winter I like black tea more than that.", None),
        ("no no no no no", "repetition"),
        ("I like it so I like it so I like it so", "repetition"),
        ("What would you drink now?", "repetition"),  # the bot's earlier turn
        ("Some coffee please, not much.", None),  # the person's earlier turn is no bot turn
        ("Yes", None),
    ],
)
def test_structural_failures(reply: str, expected: str | None) -> None:
    context = ("Some coffee please, not much", "What would you drink now?", "Do you like green tea?")
    assert structural_failure(prompt(*context), reply) == expected


def test_short_greetings_are_not_echoes() -> None:
    assert structural_failure(prompt("Hello there"), "Hello there!") is None


def test_null_gallery() -> None:
    asked = [prompt("Hi.", "Hello.", "I went to the old zoo today!"), prompt("What is up?")]
    nulls = null_gallery(asked, ["Nice. Did you like it?", ""], ["Short one.", "Another one."])
    assert nulls == {
        "constant": [CONSTANT, CONSTANT],
        "echo": ["I went to the old zoo today!", "What is up?"],
        "template": [
            "I like that you say the old zoo today. What makes you think of the old zoo today?",
            "I like that you say What is up. What makes you think of What is up?",
        ],
        "brevity": ["Short one.", "Another one."],
        "first_sentence": ["Nice.", ""],
    }
    assert all(structural_failure(p, text) == "echo" for p, text in zip(asked, nulls["echo"], strict=True))
    with pytest.raises(ValueError, match="one reply"):
        null_gallery(asked, ["one"], ["one", "two"])
