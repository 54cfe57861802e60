"""Which conversations a round gets, and what was said of them."""

from bb3x_ray.data.committer import committing
from bb3x_ray.data.table import collect, head, read_conversations, with_standing_feedback
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.schemas.event import EVERYTHING, Event
from bb3x_ray.storage import Storage
from tests.data.make import said, talk, thumb


def commit(storage: Storage, *events: Event) -> int:
    with committing(storage) as log:
        log.append(list(events))
        return log.head


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
    assert collect(storage, first, second).taught_before == {"c3-m0"}
    assert collect(storage, 0, first).taught_before == set()


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


def test_a_late_thumb_joins_a_conversation_that_was_given_out_long_ago(storage: Storage) -> None:
    first = commit(storage, *talk("c"))
    given_out = read_conversations(storage, 0, first)
    second = commit(storage, thumb("t", "c-m1", -1))
    third = commit(storage, thumb("t2", "c-m1", 1, at=5))
    assert [f.rating for f in with_standing_feedback(storage, given_out, first)[0].feedback] == []
    assert [f.rating for f in with_standing_feedback(storage, given_out, second)[0].feedback] == [-1]
    assert [f.rating for f in with_standing_feedback(storage, given_out, third)[0].feedback] == [1]


def test_a_conversation_that_is_not_quiet_waits_for_a_later_range(storage: Storage) -> None:
    first = commit(storage, *talk("calm", at=10), *talk("busy", at=100))
    now = collect(storage, 0, first, quiet_before_us=50)
    assert [c.conversation_id for c in now.conversations] == ["calm"]
    assert now.waiting == {"busy": 0}
    second = commit(storage, *talk("next", at=120))
    later = collect(storage, first, second, 200, now.waiting)
    assert [c.conversation_id for c in later.conversations] == ["busy", "next"]
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
    found = collect(storage, 0, upto)
    assert [c.conversation_id for c in found.conversations] == ["yes"]
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
    found = collect(storage, 0, again)
    assert [c.conversation_id for c in found.conversations] == ["c2", "c3"]
    assert found.left_out == {"consent_withdrawn": 1}
    assert len(read_conversations(storage, 0, upto)) == 3, "the same range gives the same rows for ever"
    assert len(read_conversations(storage, 0, withdrawn)) == 1


def test_everything_a_person_said_is_taken_back_at_once(storage: Storage) -> None:
    commit(storage, *talk("c1"), *talk("c2"), consent("a", EVERYTHING, "none", 10))
    commit(storage, consent("b", EVERYTHING, "none", 10, person="bob"))
    upto = commit(storage, consent("d", "c2", "store", 11))
    assert [c.conversation_id for c in read_conversations(storage, 0, upto)] == ["c2"]
