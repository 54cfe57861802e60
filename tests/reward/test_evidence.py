"""What is known of a reply, gathered from everything that people did about it."""

from dataclasses import replace

from bb3x_ray.reward.evidence import evidence_of
from bb3x_ray.schemas.conversation import Annotation, Author, Feedback
from tests.reward.make import conversation

TALK = conversation("c", "ada", "Do you like tea?", "Buy a car!", "What? That makes no sense", "Sorry.", "ok")
BAD = Feedback("f", "c-1", "ada", -1, ("off_topic",), "it is an advert", "I do, green tea.")


def test_everything_about_a_reply_comes_together() -> None:
    annotated = (Annotation("c-1", "r1", "off_topic", "e1"), Annotation("c-1", "r2", "good", "e2"))
    (one,) = evidence_of([replace(TALK, feedback=(BAD,), annotations=annotated)])
    assert (one.thumb, one.reasons, one.explained) == (-1, ("off_topic",), True)
    assert one.correction == "I do, green tea."
    assert one.reactions == {"complains"} and one.after == "What? That makes no sense"
    assert one.annotations == ("off_topic", "good") and one.share_good == 0.5
    assert one.is_rated


def test_a_reaction_alone_is_evidence_too_but_no_rating() -> None:
    (one,) = evidence_of([TALK])
    assert one.thumb is None and one.reactions == {"complains"} and not one.is_rated


def test_others_thumbs_canned_replies_and_replies_without_text_say_nothing() -> None:
    theirs = replace(BAD, person="bob")
    canned = (TALK.messages[0], replace(TALK.messages[1], author=Author("canned", "safety")))
    silent = (TALK.messages[0], replace(TALK.messages[1], text=""))
    quiet = replace(TALK, messages=TALK.messages[:2])
    assert evidence_of([replace(quiet, feedback=(theirs,))]) == []
    assert evidence_of([replace(quiet, messages=canned, feedback=(BAD,))]) == []
    assert evidence_of([replace(quiet, messages=silent, feedback=(BAD,))]) == []


def test_of_a_conversation_that_went_on_the_later_one_counts() -> None:
    up = replace(BAD, rating=1, reasons=(), comment="", correction="")
    before, now = replace(TALK, feedback=(BAD,)), replace(TALK, feedback=(up,))
    (one,) = evidence_of([before, now])
    assert one.thumb == 1 and one.reasons == ()
