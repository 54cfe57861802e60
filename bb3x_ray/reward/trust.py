"""Trust: how far a person's thumbs agree with models that never saw those thumbs.

Finding helpers and trolls by cross-validation (user removal of arXiv 2208.03295):

    fold of a thumb      sha256(context + reply)[0] mod k, so the same text is always in one fold
    error of a thumb     e = 1 − p(label), p from the model of the other folds
    trust of a person    1 − mean error, shrunk to the population's mean by some pseudo-thumbs
    distrusted           trust below the threshold, and enough thumbs to say so

Two passes: the second pass's models weigh each thumb by the trust of the first, so that trolls speak
softly when others are judged.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bb3x_ray.config import TrustConfig
from bb3x_ray.reward.signals import Signal

PASSES = 2
MIN_WEIGHT = 0.05

# (thumbs to learn from, their weights [N], thumbs to judge) -> P(label = 1) of the latter
FoldJudge = Callable[[Sequence[Signal], np.ndarray, Sequence[Signal]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Trust:
    """Trust per person, 0 to 1.

    agreement   mean of 1 − error over all thumbs: 0.5 or less means that the fold models know nothing,
                and then nobody is distrusted
    thumbs      how many each person gave
    """

    trust: dict[str, float]
    distrusted: frozenset[str]
    agreement: float
    thumbs: dict[str, int]

    def metrics(self) -> dict[str, float]:
        return {
            "people": float(len(self.trust)),
            "people_distrusted": float(len(self.distrusted)),
            "agreement": self.agreement,
            "thumbs": float(sum(self.thumbs.values())),
            "thumbs_left_out": float(sum(self.thumbs[p] for p in self.distrusted)),
        }


def fold_of(signal: Signal, folds: int) -> int:
    return hashlib.sha256(f"{signal.context}\n{signal.reply}".encode()).digest()[0] % folds


def estimate_trust(signals: Sequence[Signal], fold_judge: FoldJudge, config: TrustConfig) -> Trust:
    """Trust of everybody who ever gave a thumb. Pass the signals of all conversations so far, not of one
    round: few thumbs say little about a person.

    People with fewer than `config.min_thumbs` thumbs have the population's mean and are not distrusted.
    """
    if not signals:
        return Trust({}, frozenset(), 0.5, {})
    by_person: defaultdict[str, list[int]] = defaultdict(list)
    for index, signal in enumerate(signals):
        by_person[signal.person].append(index)
    weights = np.ones(len(signals))
    for _ in range(PASSES):
        agreement = 1 - fold_errors(signals, weights, fold_judge, config.folds)
        trust = _trust(agreement, by_person, config)
        weights = np.array([thumb_weight(trust[s.person]) for s in signals])
    mean = float(agreement.mean())
    return Trust(
        trust={person: trust[person] for person in sorted(trust)},
        distrusted=frozenset(_distrusted(trust, by_person, config) if mean > 0.5 else ()),
        agreement=mean,
        thumbs={person: len(by_person[person]) for person in sorted(by_person)},
    )


def thumb_weight(trust: float) -> float:
    """How loudly a thumb speaks: 1 for full trust, next to nothing for trust of a half or less."""
    return max(MIN_WEIGHT, 2 * trust - 1)


def fold_errors(
    signals: Sequence[Signal], weights: np.ndarray, fold_judge: FoldJudge, folds: int
) -> np.ndarray:
    """e [N]: 1 − probability of each thumb's own label, by a model that saw none of its fold."""
    fold = np.array([fold_of(signal, folds) for signal in signals])
    errors = np.full(len(signals), 0.5)
    for held_out in range(folds):
        test = np.flatnonzero(fold == held_out).tolist()
        train = np.flatnonzero(fold != held_out).tolist()
        if test and train:
            p = fold_judge([signals[i] for i in train], weights[train], [signals[i] for i in test])
            labels = np.array([signals[i].label for i in test])
            errors[test] = np.where(labels == 1, 1 - p, p)
    return errors


def _trust(agreement: np.ndarray, by_person: dict[str, list[int]], config: TrustConfig) -> dict[str, float]:
    """A person starts with `prior_strength` pseudo-thumbs at the population's mean."""
    mean = float(agreement.mean())
    trust = {}
    for person, own in by_person.items():
        if len(own) < config.min_thumbs:
            trust[person] = mean
        else:
            total = float(agreement[own].sum()) + config.prior_strength * mean
            trust[person] = total / (len(own) + config.prior_strength)
    return trust


def _distrusted(trust: dict[str, float], by_person: dict[str, list[int]], config: TrustConfig) -> list[str]:
    enough = (person for person, own in by_person.items() if len(own) >= config.min_thumbs)
    return [person for person in enough if trust[person] < config.threshold]
