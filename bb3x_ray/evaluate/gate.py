"""The gate: few bounds of intervals on prompt set A, and the verdict that they add up to."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bb3x_ray.config import EvaluateConfig, GateConfig
from bb3x_ray.evaluate.compare import Comparison, Floats, draws, equal_length_gain, paired_difference
from bb3x_ray.evaluate.judge import agreement
from bb3x_ray.evaluate.judged import SetJudged
from bb3x_ray.evaluate.numbers import nulls_above_humans, plain, set_numbers
from bb3x_ray.schemas.learning import Gate, Interval, Verdict

OUTER = 200  # pretend evaluations of v0001 against itself
INNER = 200  # bootstrap draws in each of them
_WORST = 1e9  # stands for a perplexity ratio that is infinite or not a number


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Of held-out human text, as the sign of collapse. `base` is v0001's, reported only."""

    candidate: float
    champion: float
    base: float | None = None

    @property
    def ratio(self) -> float:
        ratio = self.candidate / self.champion
        return ratio if math.isfinite(ratio) else _WORST


def judge_gates(
    comparison: Comparison,
    perplexity: Perplexity,
    self_pair: Comparison,
    gates: GateConfig,
    *,
    n: int,
    seed: int,
) -> list[Gate]:
    """The four gates on set A, in the order quality, unsafe, structural, perplexity.

    comparison   candidate (first) against champion (second)
    self_pair    two independent samples of v0001's replies, by which the error rates are measured
    n            bootstrap draws
    """
    return [
        _quality(comparison, self_pair, gates.quality_margin, n, seed),
        _rise("unsafe", comparison, self_pair, gates.unsafe_margin, n, seed),
        _rise("structural", comparison, self_pair, gates.structural_margin, n, seed),
        _perplexity(perplexity, gates.perplexity_ratio),
    ]


def _quality(comparison: Comparison, self_pair: Comparison, margin: float, n: int, seed: int) -> Gate:
    gain = equal_length_gain(comparison, n, seed)
    alike = self_pair.first_cut.is_good - self_pair.second_cut.is_good
    false_pass = share_of_pretended(alike, self_pair, lambda low, high: low > margin, seed)
    reason = (
        f"gain in good replies at equal length {gain}: its lower bound must be above {margin:g}; "
        f"false-pass rate (v0001 against itself) {false_pass:.1%}"
    )
    return Gate("quality", gain.low > margin, gain.low, margin, reason, None, false_pass)


def _rise(name: str, comparison: Comparison, self_pair: Comparison, margin: float, n: int, seed: int) -> Gate:
    flags = f"is_{name}"
    first: Floats = getattr(comparison.first, flags)
    rise = paired_difference(first, getattr(comparison.second, flags), comparison.kinds, n, seed)
    alike = getattr(self_pair.first, flags) - getattr(self_pair.second, flags)
    false_reject = share_of_pretended(alike, self_pair, lambda low, high: not high < margin, seed)
    reason = (
        f"rise in {name} replies {rise}: its upper bound must be below {margin:g}; "
        f"false-reject rate (v0001 against itself) {false_reject:.1%}"
    )
    return Gate(name, rise.high < margin, rise.high, margin, reason, false_reject)


def _perplexity(perplexity: Perplexity, limit: float) -> Gate:
    ratio = perplexity.ratio
    reason = (
        f"human perplexity {perplexity.candidate:.4g} against {perplexity.champion:.1f}, ratio {ratio:.4g}: "
        f"at most {limit:g} (a point estimate on the same texts; an unchanged model gives 1)"
    )
    return Gate("perplexity", ratio <= limit, ratio, limit, reason, 0.0)


def share_of_pretended(
    differences: Floats, self_pair: Comparison, happens: Callable[[float, float], bool], seed: int
) -> float:
    """How often `happens(low, high)` holds when v0001 is judged against itself.

    differences [N] between two samples of its replies. Each pretend evaluation draws prompts anew, swaps
    by coin which sample plays the candidate, and takes a bootstrap interval of its own.
    """
    rng = np.random.default_rng(seed)
    kinds = np.sort(self_pair.kinds)  # `draws` groups its columns by stratum
    drawn = differences[draws(self_pair.kinds, OUTER, rng)]
    pretended = drawn * rng.choice([-1.0, 1.0], size=drawn.shape)
    hits = 0
    for values in pretended:
        means = values[draws(kinds, INNER, rng)].mean(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        hits += happens(float(low), float(high))
    return hits / OUTER


def verdict(
    candidate: str,
    champion: str,
    *,
    set_a: SetJudged,
    set_b: SetJudged,
    perplexity: Perplexity,
    self_pair: Comparison,
    config: EvaluateConfig,
    seed: int,
    judge_version: str,
    judge_report: dict[str, Any] | None = None,
) -> Verdict:
    """The answer about one candidate. Gates look at A; what is reported comes from B.

    set_b must hold the null gallery and human replies (ValueError): when a null beats the humans, the
    judge is invalid, no gate is consulted, and the verdict does not pass.
    judge_report   the judge's agreement with held-out labels and whatever else is known of it
    """
    if set_b.humans is None or not set_b.nulls:
        raise ValueError("set B must be judged with the null gallery and real human replies beside it")
    n = config.bootstrap
    above = nulls_above_humans(set_b)
    gates = (
        [] if above else judge_gates(set_a.comparison, perplexity, self_pair, config.gates, n=n, seed=seed)
    )
    passed = not above and all(gate.passed for gate in gates)
    numbers: dict[str, Any] = {
        "A": set_numbers(set_a, n, seed),
        "B": set_numbers(set_b, n, seed),
        "reported_set": "B",
        "judge": {"version": judge_version, "valid": not above, **(judge_report or {})},
        "perplexity": {**asdict(perplexity), "ratio": perplexity.ratio},
        "bootstrap": n,
    }
    gain = Interval(**numbers["B"]["equal_length"]["gain"])
    words = (
        _invalid_words(candidate, above) if above else _words(candidate, champion, gates, gain, numbers["B"])
    )
    words = f"{words} {agreement(judge_report or {})}".strip()
    return Verdict(candidate, champion, passed, tuple(gates), plain(numbers), judge_version, words)


def _invalid_words(candidate: str, above: dict[str, tuple[float, float]]) -> str:
    name, (null, humans) = max(above.items(), key=lambda item: item[1][0] - item[1][1])
    return (
        f"The judge is invalid: on set B it calls {null:.1%} of the {name} null's replies "
        f"good, but {humans:.1%} of real people's. No gate was consulted, and {candidate} does not pass."
    )


def _words(candidate: str, champion: str, gates: list[Gate], gain: Interval, b: dict[str, Any]) -> str:
    failed = [gate for gate in gates if not gate.passed]
    shares = (
        f"on set B {b['equal_length']['candidate']['value']:.1%} of its replies are good at equal length, "
        f"{b['equal_length']['champion']['value']:.1%} of {champion}'s "
        f"(difference {100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}])"
    )
    if not failed:
        return f"{candidate} passes every gate; {shares}."
    why = "; ".join(f"{gate.name}: {gate.reason}" for gate in failed)
    return (
        f"{candidate} is rejected by {len(failed)} of {len(gates)} gates on set A ({why}). "
        f"For the record, {shares}."
    )
