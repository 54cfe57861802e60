"""From evidence on a reply to P(good): a log-linear model, small enough to read.

    log odds of good = bias + r · Σ weights of what the person did + Σ over annotators ± ANNOTATOR

r is how reliable the person is, from trust: 1, 0 for nothing, −1 for the opposite. Each weight is the log of
how much likelier a sign is on a good reply than on a bad one. They start at the values below and move with
what is learned:

    reactions      from the thumbs of people, which are noisy labels of the replies that they stand on
    all of them    from annotations, where there are any: that calibrates thumbs, reason by reason
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bb3x_ray.reward.evidence import Evidence
from bb3x_ray.reward.reaction import REACTIONS
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.schemas.conversation import REASONS

# A thumb is right in 85 of 100 cases, by assumption: people err, and some trolls pass. What a reason adds to
# a thumb down starts at nothing. Reactions are weaker than anything that is meant as feedback.
THUMB = math.log(0.85 / 0.15)
START: dict[str, float] = {
    "up": THUMB,
    "down": -THUMB,
    **{f"down, {reason}": 0.0 for reason in REASONS},
    "explained": -0.3,
    "corrected": -1.0,
    "complains": -0.7,
    "repeats": -0.7,
    "thanks": 0.5,
}
NAMES = tuple(START)
ANNOTATOR = math.log(0.9 / 0.1)
SPREAD = 0.5  # standard deviation of the prior around START
MOST = 10.0  # replies that one annotated reply stands for
FEWEST = 20  # annotated replies, or thumbs, that something is learned from
# Between these a reply is neither good nor bad: unknown, and teaches nothing.
BAD, GOOD = 0.4, 0.6


@dataclass(frozen=True, slots=True)
class SignalModel:
    """`counts`: how many annotated replies and thumbs it learned from."""

    weights: dict[str, float] = field(default_factory=lambda: dict(START))
    bias: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    def good(
        self, evidence: Sequence[Evidence], reliability: Reliability, annotations: bool = True
    ) -> np.ndarray:
        """P(good) [N]."""
        logits = self.bias + self.log_odds(evidence, reliability, annotations=annotations)
        return np.asarray(1 / (1 + np.exp(-logits)))

    def log_odds(
        self,
        evidence: Sequence[Evidence],
        reliability: Reliability,
        *,
        reactions: bool = True,
        annotations: bool = True,
    ) -> np.ndarray:
        """What the evidence adds to the log odds of good, [N]; if asked, without reactions or annotations."""
        used = [name for name in NAMES if reactions or name not in REACTIONS]
        x = _signs(evidence, reliability)[:, [NAMES.index(name) for name in used]]
        logits = x @ np.array([self.weights[name] for name in used])
        return logits + (np.array([_annotated(e) for e in evidence]) if annotations else 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "bias": self.bias, "counts": self.counts}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "SignalModel":
        return cls({**START, **row["weights"]}, row["bias"], row["counts"])


def fit_signals(evidence: Sequence[Evidence], reliability: Reliability) -> SignalModel:
    """Weights by maximum a posteriori, from what is there: without annotations and with few thumbs they
    stay at START, and the bias at 0."""
    start = np.array(list(START.values()))
    thumbs = [e for e in evidence if e.thumb is not None]
    labelled = [(e, e.share_good) for e in evidence if e.share_good is not None]
    weights, bias = start.copy(), 0.0
    if len(thumbs) >= FEWEST:
        only = [NAMES.index(name) for name in REACTIONS]
        y = np.array([1 / (1 + math.exp(-math.copysign(THUMB, e.thumb or 0))) for e in thumbs])
        w = np.array([max(0.0, reliability(e.person, e.message_id)) for e in thumbs])
        weights[only] = _fit(_signs(thumbs, Reliability())[:, only], y, w, start[only])[0]
    if len(labelled) >= FEWEST:
        signs = _signs([e for e, _ in labelled], reliability)
        w = _weights([e for e, _ in labelled])
        weights, bias = _fit(signs, np.array([share for _, share in labelled]), w, weights)
    counts = {"annotated": len(labelled), "thumbs": len(thumbs)}
    return SignalModel(dict(zip(NAMES, weights.tolist(), strict=True)), bias, counts)


def _signs(evidence: Sequence[Evidence], reliability: Reliability) -> np.ndarray:
    """[N, K] which signs of NAMES each reply has, times how reliable its person is."""
    rows = np.zeros((len(evidence), len(NAMES)))
    for row, one in zip(rows, evidence, strict=True):
        row[[NAMES.index(name) for name in _names(one)]] = reliability(one.person, one.message_id)
    return rows


def _weights(labelled: Sequence[Evidence]) -> np.ndarray:
    """[N] raters of each annotated reply, times how many replies it stands for. These numbers have mean 1
    among replies with a thumb, for of thumbs it learns, and one reply never speaks for more than MOST."""
    stands_for = np.array([e.annotations_weight for e in labelled])
    thumbed = np.array([e.thumb is not None for e in labelled])
    mean = stands_for[thumbed].mean() if thumbed.any() else stands_for.mean()
    raters = np.array([len(e.annotations) for e in labelled], np.float64)
    return raters * np.minimum(stands_for / max(float(mean), 1e-9), MOST)


def _names(one: Evidence) -> list[str]:
    thumb = {1: ["up"], -1: ["down", *(f"down, {reason}" for reason in one.reasons)]}.get(one.thumb or 0, [])
    said = {"explained": one.explained, "corrected": bool(one.correction)}
    return [*thumb, *(name for name, is_so in said.items() if is_so), *sorted(one.reactions)]


def _annotated(one: Evidence) -> float:
    return ANNOTATOR * (2 * (one.share_good or 0.0) - 1) * len(one.annotations)


def _fit(x: np.ndarray, y: np.ndarray, w: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, float]:
    """(weights, bias): Newton's method on weighted cross-entropy and a Gaussian prior around `prior`, whose
    bias is free but for a hair. A few steps converge, for the problem is convex and small."""
    x1 = np.hstack([x, np.ones((len(x), 1))])
    center = np.append(prior, 0.0)
    precision = np.append(np.full(len(prior), SPREAD**-2), 1e-2)
    beta = center.copy()
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(x1 @ beta, -30, 30)))
        gradient = x1.T @ (w * (p - y)) + precision * (beta - center)
        hessian = (x1 * (w * np.maximum(p * (1 - p), 1e-3))[:, None]).T @ x1 + np.diag(precision)
        beta = beta - np.linalg.solve(hessian, gradient)
    return beta[:-1], float(beta[-1])
