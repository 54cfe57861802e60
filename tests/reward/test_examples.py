"""What the reward model learns from, and what it does not."""

from bb3x_ray.config import TrustConfig
from bb3x_ray.reward.evidence import Evidence
from bb3x_ray.reward.examples import examples_of
from bb3x_ray.reward.fold_judge import EncoderFoldJudge
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.reward.signal_model import SignalModel
from bb3x_ray.reward.trust import estimate_trust
from tests.reward.make import LetterEncoder


def evidence(number: int, **about: object) -> Evidence:
    return Evidence("c", f"m{number}", f"p{number}", "Hi", "Hello", "", **about)  # type: ignore[arg-type]


def test_what_trust_weighed_down_to_nothing_teaches_nothing_whatever_the_bias() -> None:
    """With annotations the bias is how good replies are at large: no reason to call a disliked one good."""
    optimist = SignalModel(bias=1.45)
    down = [evidence(0, thumb=-1), evidence(1, thumb=-1), evidence(2, thumb=-1)]
    reliability = Reliability({"p1": 0.0}, {"m2": 0.01})
    (only,) = examples_of(down, optimist, reliability, (), 0)
    assert only.person == "p0" and only.label == 0 and only.teaches


def test_thumbs_of_the_doubted_teach_a_little_but_measure_nothing_and_turned_ones_are_turned() -> None:
    up = [evidence(n, thumb=1) for n in range(3)]
    reliability = Reliability({}, {"m1": 0.4, "m2": -0.9})
    whole, doubted, turned = examples_of(up, SignalModel(), reliability, (), 0)
    assert (whole.label, doubted.label, turned.label) == (1, None, 0)
    assert whole.teaches and doubted.teaches and turned.teaches
    assert turned.pair.label < 0.5 < doubted.pair.label < whole.pair.label


def test_annotators_are_heard_where_the_person_is_not() -> None:
    told = evidence(0, thumb=1, annotations=("nonsensical", "nonsensical"))
    (one,) = examples_of([told], SignalModel(), Reliability({"p0": 0.0}), ("p0",), 0)
    assert one.label == 0 and one.pair.label < 0.1 and one.teaches


def test_a_correction_is_a_good_reply_and_the_one_that_it_corrects_a_bad_one() -> None:
    told = evidence(0, thumb=-1, correction="Hello, Ada!")
    bad, good = examples_of([told], SignalModel(), Reliability(), (), 0)
    assert (bad.pair.reply, bad.label) == ("Hello", 0) and bad.pair.label < 0.15
    assert (good.pair.reply, good.pair.label, good.label) == ("Hello, Ada!", 1.0, None)
    liked = evidence(0, thumb=1, correction="Hello, Ada!")
    assert [e.pair.reply for e in examples_of([liked], SignalModel(), Reliability(), (), 0)] == ["Hello"]


def test_reactions_teach_little_and_never_with_hindsight() -> None:
    complained = evidence(0, reactions=frozenset({"complains"}))
    rated = evidence(1, thumb=1)
    _, reacted = examples_of([complained, rated], SignalModel(), Reliability(), (), 0)
    assert reacted.pair.after is None and reacted.pair.weight < 0.1 and reacted.label is None
    assert reacted.pair.label < 0.4


def test_where_nobody_gave_a_thumb_there_is_nobody_to_distrust() -> None:
    trust = estimate_trust([], EncoderFoldJudge(LetterEncoder(), []), TrustConfig())
    assert (trust.trust, trust.distrusted) == ({}, frozenset())
