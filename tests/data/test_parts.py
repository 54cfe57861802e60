"""Law 11: disjoint parts of the people whose recorded talk we use."""

import pytest

from bb3x_ray.data.parts import WEIGHTS, check_disjoint, parts_manifest, split_parts
from bb3x_ray.data.readers.chitchat import ChitchatConversation, _conversation, read_chitchat


def test_the_package_is_read_clean() -> None:
    talks = read_chitchat()
    assert len(read_chitchat(min_turns=1)) > 7000
    assert len(talks) > 4000
    assert all(len(talk.turns) >= 2 and len(talk.people) == 2 for talk in talks)
    assert all(turn.strip() == turn and turn for talk in talks for turn in talk.turns)
    rated = [talk.rating for talk in talks if talk.rating is not None]
    assert len(rated) > 3000 and all(0 <= rating <= 10 for rating in rated)


def test_neighbouring_texts_of_one_sender_are_one_turn() -> None:
    def group(sender: str, *texts: str) -> list[dict[str, str]]:
        return [{"sender": sender, "text": text} for text in texts]

    entry = {
        "messages": [group("a", " hi ", "you\nthere"), group("b", " "), group("a", "?"), group("b", "yes")],
        "ratings": {"witty": 3, "upbeat": 4},
    }
    assert _conversation("x", entry) == ChitchatConversation("x", ("a", "b"), ("hi you there ?", "yes"), 3.5)


def test_parts_share_nobody_and_each_has_enough() -> None:
    parts = split_parts(read_chitchat(), seed=0)
    check_disjoint(parts)
    manifest = parts_manifest(parts)
    assert list(manifest) == list(WEIGHTS)
    assert min(about["conversations"] for about in manifest.values()) >= 100
    assert manifest == parts_manifest(split_parts(read_chitchat()[::-1], seed=0))
    assert manifest != parts_manifest(split_parts(read_chitchat(), seed=1))


def test_shared_people_and_conversations_are_found() -> None:
    def talk(name: str, *people: str) -> ChitchatConversation:
        return ChitchatConversation(name, people, ("a", "b"), None)

    check_disjoint({"talk": [talk("1", "ann", "bob")], "judge": [talk("2", "cy", "di")]})
    with pytest.raises(ValueError, match="talk and judge"):
        check_disjoint({"talk": [talk("1", "ann", "bob")], "judge": [talk("2", "cy", "bob")]})
    with pytest.raises(ValueError, match="talk and judge"):
        check_disjoint({"talk": [talk("1", "ann", "bob")], "judge": [talk("1", "cy", "di")]})
