"""Numbers say what they are called, whatever the text."""

import pytest

from bb3x_ray.classify.surface import AFTER_NUMBERS, REPLY_NUMBERS, after_numbers, reply_numbers


def of_reply(context: str, reply: str) -> dict[str, float]:
    return dict(zip(REPLY_NUMBERS, reply_numbers(context, reply), strict=True))


def of_after(context: str, reply: str, after: str) -> dict[str, float]:
    return dict(zip(AFTER_NUMBERS, after_numbers(context, reply, after), strict=True))


@pytest.mark.parametrize(
    "reply", ["", "?", "word " * 500, "I am here. You?", "\n\n", "日本語です", "🙂" * 90]
)
@pytest.mark.parametrize("context", ["", "Hi", "\nmine", "a?\nb\n\nc", "x\n" * 90])
def test_all_are_small_whatever_the_text(context: str, reply: str) -> None:
    numbers = [*reply_numbers(context, reply), *after_numbers(context, reply, reply)]
    assert len(numbers) == len(REPLY_NUMBERS) + len(AFTER_NUMBERS)
    assert all(-1 <= number <= 1.2 for number in numbers)


def test_a_bot_that_repeats_itself_is_seen_however_long_ago_it_said_so() -> None:
    talk = "What else?\nI like tea very much.\nAnd?\nI live in a town.\nHi\nHello there."
    assert of_reply(talk, "Hello there.")["said_before"] == 1
    assert of_reply(talk, "I live in the town.")["like_before"] > 0.6
    assert of_reply(talk, "What else?")["said_before"] == 0  # the person's words


def test_lines_tell_whose_they_are_when_the_bot_speaks_twice() -> None:
    assert of_reply("\nHello there.\nHi", "Hello there.")["said_before"] == 1
    assert of_reply("\nHello there.\nHi", "Hello there.")["nothing_heard"] == 1
    assert of_reply("Hello there.\nHi", "Hello there.")["copied"] == 1


def test_repetition_within_a_reply() -> None:
    again = of_reply("Hi", "jobs jobs jobs jobs jobs jobs")
    assert again["triples_again"] > 0.7 and again["distinct"] < 0.2
    assert of_reply("Hi", "I swim. I swim.")["sentence_again"] == 1


def test_what_came_next() -> None:
    asked = "Where do you live?"
    again = of_after(asked, "I like tea.", "where do you live")
    assert again["said_before"] == 1 and again["asks"] == 1 and again["takes_up_novel"] == 0
    pleased = of_after(asked, "In a lighthouse.", "A lighthouse, how nice!")
    assert pleased["takes_up_novel"] > 0 and pleased["any_warm"] == 1 and pleased["gone"] == 0
    assert of_after(asked, "In a lighthouse.", "")["gone"] == 1
