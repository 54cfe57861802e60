import pytest

from bb3x_ray.reward.reaction import reactions


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ("What?? You already said that", {"complains"}),
        ("that makes no sense", {"complains"}),
        ("I already told you", {"complains"}),
        ("are you a bot?", {"complains"}),
        ("Thanks, that's great", {"thanks"}),
        ("haha good one", {"thanks"}),
        ("Do you like green tea?", {"repeats"}),
        ("That's wrong. Do you like GREEN tea or not?", {"complains", "repeats"}),
        # Ordinary talk says neither.
        ("I teach music at a school", set()),
        ("What do you do for a living?", set()),
        ("My dog is four", set()),
        ("", set()),
    ],
)
def test_signs_of_how_a_reply_was_taken(after: str, found: set[str]) -> None:
    assert reactions("do you like green tea?", after) == found


def test_a_greeting_said_again_repeats_nothing() -> None:
    assert reactions("hi there", "hi there") == frozenset()
