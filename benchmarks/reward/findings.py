"""What predictions come to, for a table and for a line of results."""

from dataclasses import dataclass

import numpy as np

from bb3x_ray.classify.measures import Interval, auroc, balanced_accuracy, calibration_error
from benchmarks.reward.arms import OURS, PLAIN, TFIDF, Predictions
from benchmarks.reward.compare import (
    Measure,
    corrected_t,
    difference,
    preferred,
    preferred_at_length,
    ranked,
    ranked_at_length,
    with_interval,
)
from benchmarks.reward.material import Material


@dataclass(frozen=True, slots=True)
class View:
    """With hindsight, or without.

    arms          arm -> measure
    gains         arm -> ours minus it, by a bootstrap over people; `corrected` the same by folds
    at_length     arm -> measure among replies of one length
    by_reason     reason -> AUROC of thumbs down for it against all thumbs up
    calibrated    calibration error of held-out probabilities, mean over splits; `uncalibrated` of what
                  the model gives as it was learned
    """

    arms: dict[str, Interval]
    gains: dict[str, Interval]
    corrected: dict[str, Interval]
    at_length: dict[str, Interval]
    by_reason: dict[str, float]
    calibrated: float
    uncalibrated: float
    balanced: float


@dataclass(frozen=True, slots=True)
class Findings:
    measure: str
    views: dict[str, View]


def findings_of(material: Material, predictions: Predictions, seed: int) -> Findings:
    labels, pairs = material.labels, material.pairs
    if material.name == "convai2":
        name, measures = "AUROC", (ranked(labels), ranked_at_length(pairs, labels))
    else:
        name, measures = "chosen above rejected", (preferred(labels), preferred_at_length(pairs, labels))
    views = {}
    if predictions.late:
        views["with hindsight"] = _view(
            material, predictions.late, predictions.p_late, predictions.fold, measures, seed
        )
    views["without"] = _view(
        material, predictions.fresh, predictions.p_fresh, predictions.fold, measures, seed
    )
    return Findings(name, views)


def _view(
    material: Material,
    logits: dict[str, np.ndarray],
    p: np.ndarray,
    fold: np.ndarray,
    measures: tuple[Measure, Measure],
    seed: int,
) -> View:
    measure, at_length = measures
    labels, groups = material.labels, material.groups
    others = [arm for arm in logits if arm != OURS]
    sure = 1 / (1 + np.exp(-logits[OURS]))
    return View(
        arms={arm: with_interval(own, measure, groups, seed) for arm, own in logits.items()},
        gains={arm: difference(logits[OURS], logits[arm], measure, groups, seed) for arm in others},
        corrected={arm: corrected_t(logits[OURS], logits[arm], measure, fold) for arm in others},
        at_length={arm: with_interval(logits[arm], at_length, groups, seed) for arm in (OURS, TFIDF, PLAIN)},
        by_reason=_by_reason(material, logits[OURS]),
        calibrated=float(np.mean([calibration_error(own, labels) for own in p])),
        uncalibrated=float(np.mean([calibration_error(own, labels) for own in sure])),
        balanced=float(np.mean([balanced_accuracy(own, labels, at=float(labels.mean())) for own in p])),
    )


def _by_reason(material: Material, logits: np.ndarray) -> dict[str, float]:
    labels, found = material.labels, {}
    for reason in sorted({reason for own in material.reasons for reason in own}):
        about = np.array(
            [up > 0.5 or reason in own for up, own in zip(labels, material.reasons, strict=True)]
        )
        found[reason] = float(np.mean([auroc(own[about], labels[about]) for own in logits]))
    return found
