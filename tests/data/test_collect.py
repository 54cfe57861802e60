"""Which conversations a round gets, and what was said of them."""

from collections.abc import Mapping
from pathlib import Path

from bb3x_ray.data.collect import NotTaken, Range, collect
from bb3x_ray.data.late_words import feedback_upto
from bb3x_ray.data.slices import Slice, conversations_of, write
from bb3x_ray.data.table import head
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.schemas.event import EVERYTHING, Event
from bb3x_ray.storage import Storage
from tests.data.make import commit, read_conversations, said, talk, thumb


class Took:
    """All that a range takes, and what it leaves."""

    def __init__(
        self,
        storage: Storage,
        after: int,
        upto: int,
        quiet_before_us: int | None = None,
        waiting: Mapping[str, int] | None = None,
    ) -> None:
        not_taken = NotTaken()
        range_ = Range(after, upto, quiet_before_us, waiting or {})
        self.tables = list(collect(storage, range_, not_taken))
        self.conversations = [c for table in self.tables for c in conversations_of(table)]
        self.taught_before = {
            message["message_id"]
            for table in self.tables
            for messages in table["messages"].to_pylist()
            for message in messages
            if message["taught_before"]
        }
        self.waiting, self.left_out = not_taken.waiting, not_taken.left_out
        self.withdrawn = not_taken.withdrawn

    @property
    def ids(self) -> list[str]:
        return sorted(c.conversation_id for c in self.conversations)


def texts(conversation: Conversation) -> list[str]:
    return [message.text for message in conversation.messages]


def test_messages_come_by_position_and_the_latest_at_one_position_stands(storage: Storage) -> None:
    commit(
        storage,
        said("c", 1, "first try", message_id="a", event_id="1"),
        said("c", 0, "question", event_id="2"),
        said("c", 1, "second try", message_id="b", event_id="3"),
        thumb("t1", "a", -1),
        thumb("t2", "b", 1),
    )
    (conversation,) = read_conversations(storage, 0, head(storage))
    assert texts(conversation) == ["question", "second try"]
    assert [f.event_id for f in conversation.feedback] == ["t2"]
    assert conversation.messages[1].author.kind == "model"
    assert (conversation.person, conversation.consent_basis) == ("ada", "store")


def test_every_conversation_is_in_exactly_one_range(storage: Storage) -> None:
    first = commit(storage, *talk("c1"), *talk("c2"), said("c3", 0))
    second = commit(storage, said("c3", 1), *talk("c4"))
    third = commit(storage, thumb("t", "c1-m1", 1))
    ids = [
        [c.conversation_id for c in read_conversations(storage, after, upto)]
        for after, upto in ((0, first), (first, second), (second, third), (0, third))
    ]
    # c3 went on: its second range gives it whole, and says which turns the first one had.
    assert ids == [["c1", "c2", "c3"], ["c3", "c4"], [], ["c1", "c2", "c3", "c4"]]
    assert Took(storage, first, second).taught_before == {"c3-m0"}
    assert Took(storage, 0, first).taught_before == set()


def test_the_same_range_gives_the_same_rows_for_ever(storage: Storage) -> None:
    upto = commit(storage, *talk("c1"), thumb("t1", "c1-m1", 1))
    before = read_conversations(storage, 0, upto)
    commit(storage, said("c1", 2), thumb("t2", "c1-m1", -1, at=5), *talk("c2"))
    assert read_conversations(storage, 0, upto) == before


def test_the_latest_feedback_of_a_person_stands_and_null_takes_it_back(storage: Storage) -> None:
    upto = commit(
        storage,
        thumb("early", "c-m1", -1, at=1),  # before the message it is about
        *talk("c", 4),
        thumb("late", "c-m1", 1, at=9),
        thumb("older", "c-m1", -1, at=5),  # came later, but was pressed before
        thumb("other", "c-m1", -1, at=1, person="bob"),
        thumb("given", "c-m3", 1, at=1),
        thumb("taken back", "c-m3", None, at=2),
        thumb("same time", "c-m3", -1, at=3, person="bob"),
        thumb("same time, later", "c-m3", 1, at=3, person="bob"),
        thumb("of nothing", "unknown", 1),
    )
    (conversation,) = read_conversations(storage, 0, upto)
    assert {(f.event_id, f.person, f.rating) for f in conversation.feedback} == {
        ("late", "ada", 1),
        ("other", "bob", -1),
        ("same time, later", "bob", 1),
    }


def test_feedback_that_comes_later_joins_when_the_range_reaches_it(storage: Storage) -> None:
    first = commit(storage, *talk("c"))
    assert read_conversations(storage, 0, first)[0].feedback == ()
    second = commit(storage, thumb("t", "c-m1", -1, conversation="not known to the client"))
    (conversation,) = read_conversations(storage, 0, second)
    assert [(f.rating, f.reasons) for f in conversation.feedback] == [(-1, ("rude",))]


def test_a_late_thumb_joins_a_conversation_that_was_given_out_long_ago(
    storage: Storage, tmp_path: Path
) -> None:
    first = commit(storage, *talk("c"), *talk("silent"))
    pinned = Slice(tmp_path / "slice.parquet")
    write(pinned.path, Took(storage, 0, first).tables)
    second = commit(storage, thumb("t", "c-m1", -1))
    third = commit(storage, thumb("t2", "c-m1", 1, at=5))
    fourth = commit(storage, thumb("t3", "c-m1", None, at=6))

    def rated(upto: int) -> list[tuple[str, list[int | None]]]:
        found = pinned.rated(feedback_upto(storage, upto))
        return [(c.conversation_id, [f.rating for f in c.feedback]) for c in found]

    assert rated(first) == []
    assert rated(second) == [("c", [-1])] and rated(third) == [("c", [1])] and rated(fourth) == [("c", [])]


def test_a_conversation_that_is_not_quiet_waits_for_a_later_range(storage: Storage) -> None:
    first = commit(storage, *talk("calm", at=10), *talk("busy", at=100))
    now = Took(storage, 0, first, quiet_before_us=50)
    assert now.ids == ["calm"]
    assert now.waiting == {"busy": 0}
    second = commit(storage, *talk("next", at=120))
    later = Took(storage, first, second, 200, now.waiting)
    assert later.ids == ["busy", "next"]
    assert later.waiting == {} and later.taught_before == set()


def test_without_consent_or_text_a_conversation_is_left_out_and_counted(storage: Storage) -> None:
    upto = commit(
        storage,
        *talk("yes"),
        said("no", 0, None, consent="none"),
        said("half", 0, "words"),
        said("half", 1, None),
        said("changed", 0, "words"),
        said("changed", 1, "words", consent="none"),
    )
    found = Took(storage, 0, upto)
    assert found.ids == ["yes"]
    assert found.left_out == {"no_consent": 2, "no_text": 1}


def test_an_empty_log_has_no_conversations(storage: Storage) -> None:
    assert read_conversations(storage, 0, 0) == []


def consent(event_id: str, conversation: str, basis: str, at: int, person: str = "ada") -> Event:
    return Event(event_id, "consent", at, conversation, person, "served", basis, False)


def test_consent_that_was_taken_back_keeps_a_conversation_out_of_later_ranges(storage: Storage) -> None:
    upto = commit(storage, *talk("c1"), *talk("c2"), *talk("c3"))
    assert len(read_conversations(storage, 0, upto)) == 3
    withdrawn = commit(storage, consent("a", "c1", "none", 10), consent("b", "c2", "none", 10))
    again = commit(storage, consent("d", "c2", "store", 11), consent("e", "c2", "none", 9))
    found = Took(storage, 0, again)
    assert found.ids == ["c2", "c3"]
    assert found.left_out == {"consent_withdrawn": 1}
    assert len(read_conversations(storage, 0, upto)) == 3, "the same range gives the same rows for ever"
    assert len(read_conversations(storage, 0, withdrawn)) == 1


def test_any_person_of_a_conversation_can_take_it_back(storage: Storage) -> None:
    """Recorded talk between two people names each as the person of what they said."""
    commit(
        storage,
        said("c1", 0, person="ada"),
        said("c1", 1, person="bob", bot=False),
        said("c2", 0, person="bob"),
        said("c2", 1, person="ada", bot=False),
    )
    first = commit(storage, consent("a", "c1", "none", 10))
    assert Took(storage, 0, first).ids == ["c2"]
    second = commit(storage, consent("b", EVERYTHING, "none", 11))
    assert Took(storage, 0, second).ids == []
    third = commit(
        storage, consent("d", EVERYTHING, "store", 12), consent("e", "c2", "none", 13, person="bob")
    )
    assert Took(storage, 0, third).ids == ["c1"]


def test_what_was_taken_back_and_given_again_teaches_once(storage: Storage) -> None:
    commit(storage, *talk("c1"), *talk("c2"))
    first = commit(storage, consent("a", "c1", "none", 10))
    one = Took(storage, 0, first)
    assert one.ids == ["c2"] and one.withdrawn == {"c1": 0}
    second = commit(storage, said("c1", 2, "more", at=12), consent("b", "c1", "store", 11))
    two = Took(storage, first, second, waiting=one.withdrawn)
    assert two.ids == ["c1"] and two.taught_before == set()
    third = Took(storage, second, commit(storage, said("c1", 3, at=13)), waiting=two.withdrawn)
    assert third.ids == ["c1"] and third.taught_before == {"c1-m0", "c1-m1", "c1-m2"}


def test_nobody_speaks_for_the_consent_of_others(storage: Storage) -> None:
    commit(storage, *talk("c1"), *talk("c2"), consent("a", "c1", "none", 10))
    upto = commit(
        storage, consent("b", "c1", "store", 11, person="bob"), consent("d", "c2", "none", 11, person="bob")
    )
    assert Took(storage, 0, upto).ids == ["c2"]


def test_everything_a_person_said_is_taken_back_at_once(storage: Storage) -> None:
    commit(storage, *talk("c1"), *talk("c2"), consent("a", EVERYTHING, "none", 10))
    commit(storage, consent("b", EVERYTHING, "none", 10, person="bob"))
    upto = commit(storage, consent("d", "c2", "store", 11))
    assert [c.conversation_id for c in read_conversations(storage, 0, upto)] == ["c2"]
