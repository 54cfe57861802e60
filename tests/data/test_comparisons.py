"""Choices between two versions come back from the log, and no round takes them for talk."""

import json
from dataclasses import replace

from bb3x_ray.data.comparisons import comparisons
from bb3x_ray.schemas.event import EVERYTHING, Event
from bb3x_ray.storage import Storage
from tests.data.make import commit, read_conversations, talk, thumb


def compared(number: int, choice: str | None, *, person: str = "ada", simulated: bool = False) -> Event:
    """The replies of a comparison (no choice), or the choice between them."""
    about = {"a": {"version": "v0002"}, "b": {"version": "v0001"}}
    details = {"comparison": about if choice is None else {"choice": choice, **about}}
    event_id = f"f-{number}" if choice is None else f"f-choice-compare-{number}"
    event = thumb(event_id, f"cmp-{number}", None, person=person, conversation=f"compare-{number}")
    return replace(event, details=json.dumps(details), simulated=simulated, at=number)


def test_choices_come_back_in_order_and_the_first_one_stands(storage: Storage) -> None:
    commit(storage, *talk("c"), thumb("f-thumb", "c-m1", 1), compared(1, None), compared(1, "a"))
    upto = commit(storage, compared(1, "b"), compared(2, None), compared(2, "neither", simulated=True))
    commit(storage, compared(3, "b", person="bob"))
    found = list(comparisons(storage))
    assert [(one.choice, one.person, one.conversation_id) for one in found] == [
        ("a", "ada", "compare-1"),
        ("neither", "ada", "compare-2"),
        ("b", "bob", "compare-3"),
    ]
    assert [one.simulated for one in found] == [False, True, False]
    assert [one.for_version("v0002") for one in found] == [1, 0, -1]
    assert len(list(comparisons(storage, upto))) == 2


def test_an_empty_log_has_none(storage: Storage) -> None:
    assert list(comparisons(storage)) == []


def test_whoever_withdraws_everything_withdraws_their_choices(storage: Storage) -> None:
    withdrawn = Event("w", "consent", 9, EVERYTHING, "ada", "served", "none", False)
    commit(storage, compared(1, "a"), compared(2, "a", person="bob"), withdrawn)
    assert [one.person for one in comparisons(storage)] == ["bob"]


def test_no_round_takes_a_comparison_for_talk_or_a_thumb(storage: Storage) -> None:
    head = commit(storage, *talk("c"), compared(1, None), compared(1, "a"))
    (conversation,) = read_conversations(storage, 0, head)
    assert conversation.conversation_id == "c" and conversation.feedback == ()
