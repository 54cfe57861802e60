"""From evidence to a decision, in numbers and one sentence."""

from dataclasses import dataclass

import numpy as np

from bb3x_ray.config import CanaryConfig
from bb3x_ray.schemas.canary import Canary
from bb3x_ray.serve.canary.compare import Answers, Sums
from bb3x_ray.serve.canary.evidence import Evidence
from bb3x_ray.serve.canary.sequential import (
    DECISIONS,
    GO_ON,
    PROMOTE,
    ROLLBACK,
    Looks,
    Rule,
    limits,
    look_through,
)

# Standard deviations that the harm must lie beyond its margin before scores alone roll back. Where it is just
# the margin, one look is wrong with 3 in 100,000, and all looks while replies grow a thousandfold with some
# 1 in 1,000.
_SURE = 4.0


@dataclass(frozen=True, slots=True)
class Row:
    """A look, for the plot: thumbs that count, the difference, and where it would roll back and promote."""

    thumbs: int
    difference: float
    rollback: float
    promote: float


def rule_of(config: CanaryConfig) -> Rule:
    return Rule(worse=config.worse, margin=config.margin, fewest=config.fewest)


def judge(evidence: Evidence, config: CanaryConfig) -> tuple[Canary, list[Row]]:
    """The decision on what there is by now, and all looks at it.

    Harm to all replies, by score, safety and failure, rolls back early, whenever somebody looks. Nothing but
    people's thumbs promotes.
    """
    rule = rule_of(config)
    numbers: dict[str, object] = {
        "champion": evidence.counts(evidence.champion),
        "candidate": evidence.counts(evidence.candidate),
    }
    harm, found = _harm(evidence, config)
    numbers |= found
    answers = evidence.thumb_answers()
    looks = look_through(answers, rule)
    rows = _rows(looks, rule)
    about = (evidence.candidate, evidence.champion)
    if harm:
        return Canary(*about, "rollback", harm, numbers), rows
    if not rows:
        words = f"{answers.size} thumbs count so far, the first look is after {rule.every}"
        return Canary(*about, "go on", words, numbers), rows
    (made,), (after,) = looks.first()
    shown = rows[looks.answers.index(int(after))]
    numbers["thumbs"] = {
        "counted": float(answers.size),
        "decided_after": float(after) if made != GO_ON else 0.0,
        "difference": shown.difference,
        "rollback_at": _finite(shown.rollback),
        "promote_at": _finite(shown.promote),
        "information": float(looks.information[0, looks.answers.index(int(after))]),
        "information_to_find_worse": rule.fast,
        "information_at_the_end": rule.slow,
    }
    return Canary(*about, DECISIONS[int(made)], _words(made, shown, evidence), numbers), rows


def _rows(looks: Looks, rule: Rule) -> list[Row]:
    below, above = limits(looks, rule)
    return [
        Row(thumbs, float(looks.difference[0, i]), float(below[0, i]), float(above[0, i]))
        for i, thumbs in enumerate(looks.answers)
    ]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _words(made: int, row: Row, evidence: Evidence) -> str:
    seen = (
        f"{100 * row.difference:+.1f} points of thumbs up against {evidence.champion} after {row.thumbs} "
        "thumbs that count"
    )
    if made == ROLLBACK:
        return f"{seen}; {100 * row.rollback:+.1f} or lower rolls it back"
    if made == PROMOTE:
        return f"{seen}; {100 * row.promote:+.1f} or higher promotes it"
    return f"{seen}; it goes on"


def _harm(evidence: Evidence, config: CanaryConfig) -> tuple[str, dict[str, object]]:
    """("" or why the candidate's replies are surely worse, numbers)."""
    found: dict[str, object] = {}
    words = []
    for name, answers, sign, margin, what in (
        ("score", evidence.score_answers(), -1, config.score_margin, "score lower"),
        ("unsafe", evidence.unsafe_answers(), 1, config.unsafe_margin, "are unsafe more often"),
        ("failed", evidence.failure_answers(), 1, config.failure_margin, "fail more often"),
    ):
        difference, information = _whole(answers, config.fewest)
        if information:
            sure = sign * difference - _SURE / np.sqrt(information)
            found[f"{name}_difference"] = {"value": difference, "harm_at_least": float(sure)}
            if sure > margin:
                words.append(f"its replies {what}, surely by {sure:.3f} (allowed: {margin})")
    return " and ".join(words), found


def _whole(answers: Answers, fewest: int) -> tuple[float, float]:
    if not answers.size:
        return 0.0, 0.0
    sums = Sums(answers)
    sums.take(answers.size)
    difference, information = sums.difference(fewest)
    return float(difference[0]), float(information[0])
