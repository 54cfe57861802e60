"""What a verdict reports of one prompt set, as a nested dict that JSON can hold."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from bb3x_ray.evaluate.compare import (
    Comparison,
    Kinds,
    difference_numbers,
    equal_length_gain,
    equal_length_numbers,
    mean_interval,
    paired_difference,
    side_numbers,
)
from bb3x_ray.evaluate.judged import NullJudged, SetJudged
from bb3x_ray.schemas.learning import Interval


def set_numbers(judged: SetJudged, n: int, seed: int) -> dict[str, Any]:
    """All numbers of one set. Intervals are {"value", "low", "high"}; shares lie in 0 to 1.

    n is the number of bootstrap draws.
    """
    kinds, comparison = judged.kinds, judged.comparison
    found: dict[str, Any] = {
        "prompts": {str(kind): int((kinds == kind).sum()) for kind in np.unique(kinds)},
        "candidate": side_numbers(comparison.first, kinds, n, seed),
        "champion": side_numbers(comparison.second, kinds, n, seed),
        "difference": difference_numbers(comparison, n, seed),
        "equal_length": _named(equal_length_numbers(comparison, n, seed), "candidate", "champion"),
        "by_kind": {str(kind): _of_kind(comparison, str(kind), n, seed) for kind in np.unique(kinds)},
    }
    if judged.against_base:
        against = judged.against_base
        found["base"] = side_numbers(against.second, kinds, n, seed)
        found["equal_length_over_base"] = _named(equal_length_numbers(against, n, seed), "candidate", "base")
    if judged.humans:
        found["humans"] = side_numbers(judged.humans, _one_stratum(len(judged.humans.good)), n, seed)
    if judged.nulls:
        found["nulls"] = {name: _of_null(null, kinds, n, seed) for name, null in judged.nulls.items()}
        found["best_null"] = best_null(judged.nulls, n, seed)
    if judged.truth:
        found["truth"] = _of_truth(judged, n, seed)
    return plain(found)


def nulls_above_humans(judged: SetJudged) -> dict[str, tuple[float, float]]:
    """The nulls whose share of good replies is above real people's, on the prompts that have a human reply:
    (null, humans). Whole replies both: cut to a null's length, a human reply is not what anybody said."""
    shares = {
        name: (
            float(null.it_against_humans.first.is_good.mean()),
            float(null.it_against_humans.second.is_good.mean()),
        )
        for name, null in judged.nulls.items()
    }
    return {name: pair for name, pair in shares.items() if pair[0] > pair[1]}


def best_null(nulls: Mapping[str, NullJudged], n: int, seed: int) -> dict[str, Any]:
    """The null that comes nearest to the candidate at equal length, and what the candidate has more."""
    gains = {name: equal_length_gain(null.candidate_against_it, n, seed) for name, null in nulls.items()}
    name = min(gains, key=lambda null: gains[null].value)
    return {"name": name, "candidate_minus_it": gains[name]}


def _of_kind(comparison: Comparison, kind: str, n: int, seed: int) -> dict[str, Any]:
    part = comparison.at(comparison.kinds == kind)
    return {
        "candidate": side_numbers(part.first, part.kinds, n, seed),
        "champion": side_numbers(part.second, part.kinds, n, seed),
        "equal_length_gain": equal_length_gain(part, n, seed),
    }


def _of_null(null: NullJudged, kinds: Kinds, n: int, seed: int) -> dict[str, Any]:
    humans = _named(equal_length_numbers(null.it_against_humans, n, seed), "null", "humans")
    return {
        **side_numbers(null.whole, kinds, n, seed),
        "against_humans": humans,
        "candidate_minus_it": equal_length_gain(null.candidate_against_it, n, seed),
    }


def _of_truth(judged: SetJudged, n: int, seed: int) -> dict[str, Any]:
    """Shares by the hidden preference. It decides nothing."""
    found: dict[str, Any] = {
        name: mean_interval(values, judged.kinds if name != "humans" else _one_stratum(len(values)), n, seed)
        for name, values in judged.truth.items()
    }
    candidate = judged.truth["candidate"]
    found["gain"] = paired_difference(candidate, judged.truth["champion"], judged.kinds, n, seed)
    if "base" in judged.truth:
        found["gain_over_base"] = paired_difference(candidate, judged.truth["base"], judged.kinds, n, seed)
    return found


def _one_stratum(n: int) -> Kinds:
    return np.full(n, "standard")


def _named(numbers: dict[str, Any], first: str, second: str) -> dict[str, Any]:
    words = numbers["words"]
    return {
        first: numbers["first"],
        second: numbers["second"],
        "gain": numbers["gain"],
        "words": {first: words["first"], second: words["second"]},
    }


def plain(value: Any) -> Any:
    """The same tree with intervals as dicts and numbers that strict JSON can hold (None for inf and nan)."""
    if isinstance(value, Interval):
        return asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
