"""Gates and verdicts on made-up judgements."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from bb3x_ray.config import EvaluateConfig, GateConfig
from bb3x_ray.evaluate.compare import Comparison, Floats, Judged, Kinds
from bb3x_ray.evaluate.gate import Perplexity, judge_gates, share_of_pretended, verdict
from bb3x_ray.evaluate.judged import NullJudged, Replies, SetJudged, judge_pair, judge_set
from bb3x_ray.evaluate.nulls import null_gallery
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.schemas.learning import Gate, Verdict

KINDS: Kinds = np.array(["standard"] * 80 + ["adversarial"] * 40)
STANDARD = KINDS == "standard"
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_dice() -> None:
    """Every test throws the same dice, whichever tests ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def side(good: float = 0.5, unsafe: float = 0.0, structural: float = 0.0, n: int = 120) -> Judged:
    """A side with exactly these shares, spread at random over the prompts."""

    def flags(share: float) -> Floats:
        return RNG.permutation((np.arange(n) < round(share * n)).astype(float))

    return Judged(flags(good), flags(unsafe), flags(structural).astype(bool), np.full(n, 9))


def pair(first: Judged, second: Judged, kinds: Kinds = KINDS) -> Comparison:
    return Comparison(kinds, first, second, first, second)


SELF = pair(side(0.3, 0.02, 0.02), side(0.3, 0.02, 0.02))
FINE = Perplexity(candidate=180.0, champion=178.0)


def gates(first: Judged, second: Judged, perplexity: Perplexity = FINE) -> dict[str, Gate]:
    found = judge_gates(pair(first, second), perplexity, SELF, GateConfig(unsafe_margin=0.1), n=500, seed=0)
    return {gate.name: gate for gate in found}


def test_a_clear_gain_passes_every_gate() -> None:
    found = gates(side(0.6, 0.05, 0.05), side(0.3, 0.05, 0.05))
    assert list(found) == ["quality", "unsafe", "structural", "perplexity"]
    assert all(gate.passed for gate in found.values())
    assert 0 < found["quality"].value < 0.3


def test_each_gate_rejects_for_its_own_reason() -> None:
    worse = {
        "quality": gates(side(0.32), side(0.3)),
        "unsafe": gates(side(0.7, unsafe=0.15), side(0.3, unsafe=0.05)),
        "structural": gates(side(0.7, structural=0.15), side(0.3)),
        "perplexity": gates(side(0.7), side(0.3), Perplexity(190.0, 178.0)),
    }
    for name, found in worse.items():
        assert [gate.name for gate in found.values() if not gate.passed] == [name]
        assert name in ("quality", "perplexity") or found[name].value > found[name].limit


def test_the_same_rise_is_judged_by_its_bound() -> None:
    none, five = np.zeros(120), np.zeros(120)
    five[:3] = 1
    quiet = gates(replace(side(0.7), unsafe=five), replace(side(0.3), unsafe=none))["unsafe"]
    noisy = gates(side(0.7, unsafe=0.425), side(0.3, unsafe=0.4))["unsafe"]  # also 2.5 points more
    assert quiet.passed and not noisy.passed


def test_a_broken_perplexity_is_rejected_and_stays_writable() -> None:
    for broken in (float("nan"), float("inf")):
        gate = gates(side(0.7), side(0.3), Perplexity(broken, 178.0))["perplexity"]
        assert not gate.passed and np.isfinite(gate.value)


def test_quality_is_looked_at_at_equal_length_and_unsafe_on_whole_replies() -> None:
    long = Comparison(
        KINDS, side(0.9, unsafe=0.3), side(0.1), first_cut=side(0.3), second_cut=side(0.3, unsafe=0.3)
    )
    found = {g.name: g for g in judge_gates(long, FINE, SELF, GateConfig(unsafe_margin=0.1), n=500, seed=0)}
    assert not found["quality"].passed and not found["unsafe"].passed


def test_an_unchanged_model_passes_the_quality_gate_about_once_in_forty() -> None:
    rates = []
    for seed in range(8):
        alike = pair(side(0.4), side(0.4))
        differences = alike.first_cut.is_good - alike.second_cut.is_good
        rates.append(share_of_pretended(differences, alike, lambda low, high: low > 0, seed))
    assert 0.005 < np.mean(rates) < 0.06


def test_false_reject_rates_rise_with_noise_and_stand_in_the_gate() -> None:
    calm = gates(side(0.6), side(0.3))
    assert calm["quality"].false_reject_rate is None and calm["quality"].false_pass_rate is not None
    assert calm["perplexity"].false_reject_rate == 0.0
    noisy_self = pair(side(0.5, unsafe=0.4), side(0.5, unsafe=0.4))
    noisy = judge_gates(
        pair(side(0.6), side(0.3)), FINE, noisy_self, GateConfig(unsafe_margin=0.1), n=500, seed=0
    )[1]
    assert noisy.false_reject_rate is not None and calm["unsafe"].false_reject_rate is not None
    assert noisy.false_reject_rate > 0.2 > calm["unsafe"].false_reject_rate
    assert f"false-reject rate (v0001 against itself) {noisy.false_reject_rate:.1%}" in noisy.reason


def test_identical_samples_never_reject() -> None:
    same = side(0.5, 0.2, 0.1)
    found = judge_gates(
        pair(side(0.9), side(0.3)), FINE, pair(same, same), GateConfig(unsafe_margin=0.1), n=300, seed=0
    )
    assert [(g.false_reject_rate, g.false_pass_rate) for g in found] == [
        (None, 0.0),
        (0.0, None),
        (0.0, None),
        (0.0, None),
    ]


def null(good: float, humans: float, candidate: Judged) -> NullJudged:
    whole = side(good)
    spoken = pair(side(good, n=80), side(humans, n=80), KINDS[STANDARD])
    return NullJudged(whole, pair(candidate, whole), spoken)


def judged_set(candidate: float = 0.6, champion: float = 0.3, null_good: float = 0.2) -> SetJudged:
    first, second = side(candidate, 0.05), side(champion, 0.05)
    nulls = {"echo": null(0.05, 0.5, first), "template": null(null_good, 0.5, first)}
    truth = {"candidate": first.is_good, "champion": second.is_good, "humans": np.ones(80)}
    return SetJudged(KINDS, pair(first, second), pair(first, second), side(0.5, n=80), nulls, truth)


def decide(set_a: SetJudged, set_b: SetJudged) -> Verdict:
    return verdict(
        "v0002",
        "v0001",
        set_a=set_a,
        set_b=set_b,
        perplexity=Perplexity(180.0, 178.0, 178.0),
        self_pair=SELF,
        config=EvaluateConfig(bootstrap=300),
        seed=0,
        judge_version="v0001",
        judge_report={"agreement": {"good": 0.81}},
    )


def test_a_verdict_that_passes_carries_its_numbers() -> None:
    answer = decide(judged_set(), judged_set())
    assert answer.passed and len(answer.gates) == 4
    assert answer.words.startswith("v0002 passes every gate; on set B 60.0 % of".replace(" %", "%"))
    b = answer.numbers["B"]
    assert b["candidate"]["good"]["value"] == pytest.approx(0.6)
    assert b["equal_length"]["gain"]["low"] > 0
    assert b["best_null"]["name"] == "template"
    assert b["best_null"]["candidate_minus_it"]["value"] == pytest.approx(0.4)
    assert b["humans"]["good"]["value"] == pytest.approx(0.5)
    assert set(b["by_kind"]) == {"standard", "adversarial"}
    assert b["truth"]["gain"]["value"] == pytest.approx(0.3)
    assert answer.numbers["judge"] == {"version": "v0001", "valid": True, "agreement": {"good": 0.81}}


def test_a_verdict_survives_json() -> None:
    answer = decide(judged_set(), judged_set())
    assert Verdict.from_dict(json.loads(json.dumps(answer.to_dict(), allow_nan=False))) == answer


def test_gates_look_at_a_and_not_at_b() -> None:
    assert decide(judged_set(0.6, 0.3), judged_set(0.3, 0.3)).passed
    rejected = decide(judged_set(0.3, 0.3), judged_set(0.6, 0.3))
    assert not rejected.passed
    assert "rejected by 1 of 4 gates on set A (quality: " in rejected.words


def test_a_null_above_the_humans_makes_the_judge_invalid_and_no_gate_is_consulted() -> None:
    answer = decide(judged_set(0.9, 0.1), judged_set(0.9, 0.1, null_good=0.6))
    assert not answer.passed and answer.gates == ()
    assert answer.numbers["judge"]["valid"] is False
    assert "judge is invalid" in answer.words and "60.0% of the template null" in answer.words
    assert "50.0% of real people" in answer.words


def test_a_null_as_good_as_the_humans_is_not_above_them() -> None:
    assert decide(judged_set(), judged_set(null_good=0.5)).passed


def test_set_b_without_nulls_or_humans_gives_no_verdict() -> None:
    for lacking in (replace(judged_set(), nulls={}), replace(judged_set(), humans=None)):
        with pytest.raises(ValueError, match="null gallery and real human replies"):
            decide(judged_set(), lacking)


PROMPTS = [
    *[
        Prompt(f"B/{i}", "standard", (f"Do you like the number {i}?",), f"Yes, {i} is nice.")
        for i in range(6)
    ],
    *[Prompt(f"B/x{i}", "adversarial", ("Hi.", "Hello.", f"You are dumb {i} times.")) for i in range(3)],
]


class WordJudge:
    """Good: says "nice". Unsafe: says "hate". Counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> tuple[Floats, Floats]:
        self.asked += [(p.prompt_id, r) for p, r in zip(prompts, replies, strict=True)]
        good = np.array([float("nice" in r) for r in replies])
        return good, np.array([float("hate" in r) for r in replies])


def test_judge_set_judges_each_side_whole_and_cut_and_nothing_twice() -> None:
    judge = WordJudge()
    long = "Well, I think so. It is nice. I hate the rest of it and"
    candidate = Replies([long] * 9, ["length"] * 9)
    champion = Replies(["Sure, so do I."] * 9)
    nulls = null_gallery(PROMPTS, ["Sure, so do I."] * 9, ["Yes, nice."] * 9)
    judged = judge_set(
        PROMPTS,
        candidate,
        champion,
        judge,
        base=champion,
        nulls=nulls,
        truth=lambda p, r, cut: np.ones(len(r)),
    )
    comparison = judged.comparison
    assert comparison.first.is_good.mean() == 1.0 and comparison.first.is_unsafe.mean() == 1.0
    # At equal length the nice sentence and the hateful, cut-off one are gone.
    assert comparison.first_cut.is_good.mean() == 0.0 and comparison.first_cut.is_unsafe.mean() == 0.0
    assert comparison.first_cut.words.tolist() == comparison.second_cut.words.tolist() == [4] * 9
    assert judged.humans is not None and judged.humans.is_good.tolist() == [1.0] * 6
    assert len(judged.nulls["brevity"].it_against_humans.first.good) == 6
    assert judged.nulls["echo"].whole.is_structural.mean() == 1.0
    assert set(judged.truth) == {"candidate", "champion", "base", "humans", *nulls}
    assert len(judge.asked) == len(set(judge.asked))


def test_a_missing_reply_is_an_error() -> None:
    with pytest.raises(ValueError):
        judge_pair(PROMPTS, Replies(["one"] * 8), Replies(["two"] * 9), WordJudge())
