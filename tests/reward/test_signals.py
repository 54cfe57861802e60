"""Which thumbs count, and what a reply's context is."""

from dataclasses import replace

import pytest

from bb3x_ray.reward.evidence import signals_of
from bb3x_ray.reward.examples import weak_examples
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.reward.signal_model import ANNOTATOR, THUMB
from bb3x_ray.reward.signals import context_text
from bb3x_ray.reward.turns import TURNS_SCHEMA, turns_table, with_evidence
from bb3x_ray.schemas.conversation import Annotation, Author, Feedback, Message, person
from tests.reward.make import conversation


def test_a_signal_for_every_reply_with_a_standing_thumb() -> None:
    talk = conversation("c", "ada", "Hi", "Hello.", "Tea?", "Yes.", "Why?", "So.", thumbs={1: 1, 3: -1})
    first, second = signals_of([talk])
    assert (first.person, first.context, first.reply, first.label) == ("ada", "Hi", "Hello.", 1)
    assert (second.message_id, second.context, second.label) == ("c-3", "Tea?\nHello.\nHi", 0)


def test_a_thumb_taken_back_counts_no_more() -> None:
    talk = conversation("c", "ada", "Hi", "Hello.", thumbs={1: 1})
    taken_back = Feedback("f2", "c-1", "ada", None)
    assert signals_of([replace(talk, feedback=(*talk.feedback, taken_back))]) == []


def test_only_the_conversations_own_person_has_a_say() -> None:
    talk = conversation("c", "ada", "Hi", "Hello.")
    assert signals_of([replace(talk, feedback=(Feedback("f", "c-1", "eve", -1),))]) == []


def test_canned_unverified_and_unstored_replies_give_no_signal() -> None:
    talk = conversation("c", "ada", "Hi", "Hello.", thumbs={1: 1})
    for author, text in ((Author("canned", "safety"), "x"), (Author("unverified", "client"), "x")):
        changed = replace(talk, messages=(talk.messages[0], Message("c-1", author, text)))
        assert signals_of([changed]) == []
    unstored = replace(talk, messages=(talk.messages[0], replace(talk.messages[1], text="")))
    assert signals_of([unstored]) == []


def test_a_conversation_that_went_on_counts_once_with_its_latest_thumb() -> None:
    before = conversation("c", "ada", "Hi", "Hello.", thumbs={1: 1})
    after = conversation("c", "ada", "Hi", "Hello.", "Tea?", "Yes.", thumbs={1: -1})
    assert [s.label for s in signals_of([before, after])] == [0]


def test_context_is_newest_first_and_joins_neighbours_of_one_side() -> None:
    ada = person("ada")
    messages = [Message("1", ada, "Hi"), Message("2", ada, "are you\nthere?")]
    assert context_text(messages) == "Hi are you there?"
    assert context_text([]) == ""


def test_the_first_line_of_a_context_is_the_persons() -> None:
    """So that lines tell whose they are: the bot may have spoken last."""
    talk = conversation("c", "ada", "Hi", "Hello.")
    assert context_text(talk.messages) == "\nHello.\nHi"


def test_a_context_ends_where_nothing_new_is_to_be_learned() -> None:
    talk = conversation("c", "ada", *(f"turn {i}" for i in range(41)))
    lines = context_text(talk.messages).split("\n")
    assert len(lines) == 16 and lines[0] == "turn 40" and lines[-1] == "turn 25"


def test_annotations_make_weak_pairs_of_unrated_replies() -> None:
    talks = [
        conversation("good", "ada", "Hi", "Hello.", "Tea?", "Yes.", thumbs={1: -1}),
        conversation("bad", "bob", "Hi", "Nope."),
        conversation("troll", "eve", "Hi", "Hey."),
        conversation("middling", "kim", "Hi", "Hm."),
    ]
    rated = {"good": 5, "bad": 1, "troll": 5, "middling": 3}
    with_rating = [(c, rated[c.conversation_id]) for c in talks if c.conversation_id in rated]
    pairs = [e.pair for e in weak_examples(with_rating, {"eve"})]
    assert [(p.reply, p.label) for p in pairs] == [("Yes.", 1.0), ("Nope.", 0.0)]
    assert all(0 < p.weight < 1 for p in pairs)


def test_every_bot_turn_is_a_row_but_a_distrusted_persons_thumb_is_dropped() -> None:
    talks = [
        conversation("b", "eve", "Hi", "Hey.", thumbs={1: 1}),
        conversation("a", "ada", "Hi", "Hello.", "Tea?", "Yes.", thumbs={1: -1}),
    ]
    rows = turns_table(talks, frozenset({"eve"})).to_pylist()
    assert {(r["message_id"], r["rating"], r["trusted"]) for r in rows} == {
        ("a-1", -1, True),
        ("a-3", None, True),
        ("b-1", None, False),
    }
    assert turns_table([], frozenset()).schema == TURNS_SCHEMA


def test_a_thumb_outweighs_the_base_rate_but_not_a_model_that_is_sure() -> None:
    assert round(with_evidence(0.2, THUMB, base_rate=0.2), 3) == 0.85
    assert round(with_evidence(0.2, -THUMB, base_rate=0.2), 3) == 0.15
    assert with_evidence(0.01, THUMB, base_rate=0.2) < 0.5 < with_evidence(0.9, -THUMB, base_rate=0.2)
    assert with_evidence(0.3, None, base_rate=0.2) == 0.3
    assert 0 < with_evidence(0.0, -THUMB, 0.5) < with_evidence(1.0, THUMB, 0.5) < 1


def test_weak_evidence_moves_a_score_little_and_only_its_way() -> None:
    for base_rate in (0.05, 0.2, 0.29, 0.5, 0.9):
        for score in (0.05, 0.38, 0.9):
            near = with_evidence(score, 0.01, base_rate), with_evidence(score, -0.01, base_rate)
            assert near == pytest.approx((score, score), abs=0.01)
            assert with_evidence(score, 0.0, base_rate) == pytest.approx(score)
            for strength in (0.1, 0.3, 0.7, 1.0, 2.0):
                assert with_evidence(score, -strength * THUMB, base_rate) <= score + 1e-9
                assert with_evidence(score, strength * THUMB, base_rate) >= score - 1e-9


def test_annotations_count_even_where_the_person_is_distrusted() -> None:
    talk = conversation("b", "eve", "Hi", "Hey.", "Tea?", "Yes.", thumbs={1: 1, 3: 1})
    talk = replace(talk, annotations=(Annotation("b-1", "r", "nonsensical", "e"),))
    evidence = [row["evidence"] for row in turns_table([talk], {"eve"}).to_pylist()]
    assert evidence == [pytest.approx(-ANNOTATOR), None]
    half = turns_table([talk], (), None, Reliability({"eve": 0.5}))["evidence"].to_pylist()
    assert half == [pytest.approx(-ANNOTATOR + THUMB / 2), pytest.approx(THUMB / 2)]
