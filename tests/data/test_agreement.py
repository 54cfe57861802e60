"""Kappa by hand, its interval, and the noise of thumbs against annotations."""

import math
from dataclasses import replace

import pytest

from bb3x_ray.data.agreement import (
    EVERY_BOT,
    Rate,
    agreement_of,
    agreements_of,
    cohens_kappa,
    good_shares,
    label_shares,
    noise_rates,
)
from bb3x_ray.schemas.conversation import Annotation, Conversation, Feedback, Message, model, person


def test_kappa_of_a_table_worked_out_by_hand() -> None:
    """Cohen's own kind of table: 20 and 15 on the diagonal, 5 and 10 off it: .7 seen, .5 by chance."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    first, second = zip(*pairs, strict=True)
    assert cohens_kappa(first, second) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert cohens_kappa(["good", "good", "other", "other"], ["good", "other", "other", "other"]) == 0.5


def test_kappa_of_three_labels_where_one_rater_never_uses_one() -> None:
    """Seen 3/5. By chance (3/5 · 2/5) + (2/5 · 2/5) + (0 · 1/5) = 10/25."""
    first = ["good", "good", "good", "other", "other"]
    second = ["good", "good", "other", "other", "spam"]
    assert cohens_kappa(first, second) == pytest.approx((0.6 - 0.4) / 0.6)


def test_kappa_is_one_zero_below_and_undefined() -> None:
    assert cohens_kappa(["a", "b"], ["a", "b"]) == 1
    assert cohens_kappa(["a", "b"], ["b", "a"]) == -1
    assert cohens_kappa(["a", "a", "b", "b"], ["a", "b", "a", "b"]) == 0
    assert math.isnan(cohens_kappa(["a", "a"], ["a", "a"])) and math.isnan(cohens_kappa([], []))
    with pytest.raises(ValueError, match="equally many"):
        cohens_kappa(["a"], [])


def test_the_interval_draws_whole_conversations() -> None:
    pairs = [("good", "good")] * 6 + [("other", "other")] * 3 + [("good", "other")] * 3
    apart = agreement_of(("ann", "bob"), [(f"c{n}", *pair) for n, pair in enumerate(pairs)])
    assert (apart.replies, apart.agree, apart.agree_good) == (12, 9, 9)
    assert apart.kappa == pytest.approx(cohens_kappa(*zip(*pairs, strict=True)))
    assert apart.low < apart.kappa < apart.high
    assert apart.confusion == {("good", "good"): 6, ("other", "other"): 3, ("good", "other"): 3}
    assert apart == agreement_of(("ann", "bob"), [(f"c{n}", *pair) for n, pair in enumerate(pairs)])
    one_talk = agreement_of(("ann", "bob"), [("c", *pair) for pair in pairs])
    assert one_talk.low == one_talk.high == one_talk.kappa, "one conversation says nothing of others"
    undefined = agreement_of(("ann", "bob"), [("c", "good", "good")])
    assert math.isnan(undefined.kappa) and math.isnan(undefined.low)


def talk(
    name: str, rating: int | None, labels: tuple[str, ...], *reasons: str, who: str = "", weight: float = 1.0
) -> Conversation:
    """One reply with a thumb and annotations."""
    return Conversation(
        name,
        who or name,
        (Message("q", person(who or name), "words"), Message(f"{name}-r", model("v0001"), "reply")),
        "served",
        "store",
        feedback=(Feedback("f", f"{name}-r", who or name, rating, reasons),),
        annotations=tuple(
            Annotation(f"{name}-r", f"rater-{n}", label, f"a{n}", weight) for n, label in enumerate(labels)
        ),
    )


def test_noise_rates_of_a_handful_by_hand() -> None:
    found = noise_rates(
        [
            talk("a", 1, ("good",)),
            talk("b", 1, ("good", "good")),
            talk("c", 1, ("ignoring",)),
            talk("d", -1, ("nonsensical",), "rude", "spam"),
            talk("e", -1, ("good", "other")),  # half good
            talk("f", None, ("good",)),  # taken back
            talk("g", 1, ()),  # not annotated
        ]
    )
    assert (found.replies, found.people) == (5, 5)
    assert found.agrees.share == pytest.approx((1 + 1 + 0 + 1 + 0.5) / 5)
    up, down = found.of["up"], found.of["down"]
    assert up.given_good.share == pytest.approx(2 / 2.5) and up.given_bad.share == pytest.approx(1 / 2.5)
    assert up.good.share == pytest.approx(2 / 3) and up.good.count == 3
    assert down.given_good.share == pytest.approx(0.5 / 2.5)
    assert down.given_bad.share == pytest.approx(1.5 / 2.5)
    assert found.of["down:rude"].good.share == 0 and found.of["down:rude"].good.count == 1
    assert found.of["down:spam"].given_bad.share == pytest.approx(1 / 2.5)
    assert found.of["down:no_reason"].good.share == pytest.approx(0.5)
    assert found.of["down:off_topic"].good == Rate(0.5, 0.0, 1.0, 0), "nothing is known of it"
    for one in found.of.values():
        for rate in (one.given_good, one.given_bad, one.good):
            assert 0 <= rate.low <= rate.share <= rate.high <= 1


def test_ten_thumbs_of_one_person_are_one_opinion_and_weights_undo_the_sample() -> None:
    many = noise_rates([talk(f"c{n}", 1, ("good",), who="ada") for n in range(10)])
    assert (many.replies, many.people) == (10, 1)
    one = noise_rates([talk("c", 1, ("good",))])
    assert many.of["up"].good.low == pytest.approx(one.of["up"].good.low)
    rare = [talk("a", 1, ("other",), weight=0.5), talk("b", 1, ("good",), weight=1.5)]
    assert noise_rates(rare).of["up"].good.share == pytest.approx(0.75)


def test_only_the_persons_own_thumb_on_a_reply_of_a_bot_and_the_last_copy_count() -> None:
    mine = talk("c", 1, ("good",))
    foreign = replace(mine, person="bob")
    on_a_person = replace(mine, messages=(Message("c-r", person("c"), "words"),))
    assert noise_rates([foreign]).replies == noise_rates([on_a_person]).replies == 0
    later = replace(mine, feedback=(replace(mine.feedback[0], rating=-1),))
    found = noise_rates([mine, later])
    assert found.replies == 1 and found.of["down"].good.share == 1
    assert good_shares(talk("c", 1, ("good", "good", "other"))) == {"c-r": (pytest.approx(2 / 3), 1.0)}


def test_raters_who_came_one_after_the_other_are_compared_by_what_stands() -> None:
    both = talk("a", None, ("good", "other"))
    crowd = replace(
        both,
        conversation_id="b",
        annotations=tuple(replace(one, rater=f"bb3-crowd-{one.rater}") for one in both.annotations),
    )
    older = replace(both, annotations=both.annotations[:1])
    (found,) = agreements_of([older, both, crowd, talk("c", 1, ("good",))], {"rater-1": "Ann"})
    assert (found.raters, found.replies, found.agree) == (("Ann", "rater-0"), 1, 0)
    assert found.confusion == {("other", "good"): 1}


def test_label_shares_of_each_bot_by_hand() -> None:
    other = talk("b", None, ("ignoring",), weight=2.0)
    reply = replace(other.messages[1], author=model("v0002"))
    found = label_shares(
        [talk("a", 1, ("good", "good", "other", "good")), replace(other, messages=(other.messages[0], reply))]
    )
    assert set(found) == {EVERY_BOT, "v0001", "v0002"}
    assert found["v0001"]["good"].share == 0.75 and found["v0001"]["other"].share == 0.25
    assert found[EVERY_BOT]["good"].share == pytest.approx(0.25) and found[EVERY_BOT]["good"].count == 2
    assert found[EVERY_BOT]["ignoring"].share == pytest.approx(2 / 3)
    assert sum(rate.share for rate in found[EVERY_BOT].values()) == pytest.approx(1)
    assert label_shares([talk("a", 1, ())]) == {}
