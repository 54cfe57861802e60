"""What is told of a reward model: how well it predicts thumbs of people whom it did not see, and its card."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from bb3x_ray.classify.measures import auroc, balanced_accuracy, calibration_error, interval
from bb3x_ray.reward.signals import Signal

Measure = Callable[[np.ndarray, np.ndarray], float]
RESAMPLES = 200
VIEWS = {"": "with hindsight", "_fresh": "without"}


def measured(
    signals: Sequence[Signal], views: Mapping[str, np.ndarray], words: np.ndarray, seed: int
) -> dict[str, float]:
    """Counts and measures of predictions [N] of the signals by models that did not see their people.

    views   "" with hindsight, "_fresh" without: the names of their measures end so. A prediction that could
            not be made is nan in all of them
    words   the same by a bag of words

    auroc, balanced_accuracy and calibration_error each with the ends of its 95 % interval, `_low` and
    `_high`, by a bootstrap over people, whose thumbs are not independent; auroc_se; auroc_reason_* : thumbs
    down for that reason against all thumbs up.
    """
    counts = {
        "thumbs": float(len(signals)),
        "thumbs_up": float(sum(s.label for s in signals)),
        "people": float(len({s.person for s in signals})),
    }
    seen = np.flatnonzero(~np.isnan(words))
    if not len(seen):
        return {**counts, "validated": 0.0}
    own = [signals[i] for i in seen.tolist()]
    labels = np.array([s.label for s in own], np.float64)
    lengths = np.array([len(s.reply.split()) for s in own], np.float64)
    report = {
        **counts,
        "validated": float(len(own)),
        "auroc_words": auroc(words[seen], labels),
        "auroc_length": max(auroc(lengths, labels), auroc(-lengths, labels)),
    }
    for view, p in views.items():
        report |= {f"{name}{view}": value for name, value in _of_view(own, p[seen], labels, seed).items()}
    return report


def _of_view(signals: Sequence[Signal], p: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    people = [s.person for s in signals]
    measures: dict[str, Measure] = {
        "auroc": auroc,
        "balanced_accuracy": partial(balanced_accuracy, at=float(labels.mean())),
        "calibration_error": calibration_error,
    }
    report: dict[str, float] = {}
    for name, measure in measures.items():
        found = interval(partial(_at, measure, p, labels), people, seed, RESAMPLES)
        report |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    report["auroc_se"] = (report["auroc_high"] - report["auroc_low"]) / (2 * 1.96)
    for reason in sorted({reason for s in signals for reason in s.reasons if not s.label}):
        about = np.array([bool(s.label) or reason in s.reasons for s in signals])
        report[f"auroc_reason_{reason}"] = auroc(p[about], labels[about])
    return report


def _at(measure: Measure, p: np.ndarray, labels: np.ndarray, index: np.ndarray) -> float:
    return float(measure(p[index], labels[index]))


def reward_card(report: dict[str, float], version: str = "") -> str:
    """The model card of a reward model, in Markdown, from `train_reward`'s report."""
    return f"""# Reward model {version}

P(a trusted person gives a thumb up), for a bot's reply, the turns before it and, where it is known, what
the person said next. Logistic regression on numbers that are plain to see in the text and on a frozen
sentence encoder's embeddings, with small boosted trees on the numbers; calibrated by a temperature and a
shift, one of each with hindsight and without.

Trained on {report["thumbs"]:.0f} thumbs ({report["thumbs_up"]:.0f} up) of {report["people"]:.0f} people who
are not distrusted, and {report["weak_pairs"]:.0f} replies with only their conversation's rating.

Measured on {report["validated"]:.0f} thumbs of people whom the measured models did not see. These
numbers are too low, as the thumbs are noisy themselves, and too high, as the thumbs of people who disagreed
with such models (the distrusted) are left out. In brackets: 95 % intervals by a bootstrap over people.

| | with hindsight | without |
|---|---|---|
{_rows(report)}

Its word lists are English. Use it to choose what a chat model learns from, never to judge that model
afterwards: whoever trains on a score games it.
"""


def _rows(report: dict[str, float]) -> str:
    if not report["validated"]:
        return "| nothing could be measured | | |"
    names = {
        "auroc": "AUROC",
        "balanced_accuracy": "balanced accuracy, deciding at the share of thumbs up",
        "calibration_error": "calibration error",
    }
    reasons = sorted(
        name for name in report if name.startswith("auroc_reason_") and not name.endswith("_fresh")
    )
    names |= {name: f"AUROC, thumbs down as {name.removeprefix('auroc_reason_')}" for name in reasons}
    rows = [
        f"| {words} | {' | '.join(_cell(report, name, view) for view in VIEWS)} |"
        for name, words in names.items()
    ]
    return "\n".join(
        [
            *rows,
            f"| AUROC of a bag of words, same folds | | {report['auroc_words']:.3f} |",
            f"| AUROC of reply length alone | | {report['auroc_length']:.3f} |",
        ]
    )


def _cell(report: dict[str, float], name: str, view: str) -> str:
    low = report.get(f"{name}_low{view}")
    between = "" if low is None else f" ({low:.3f} to {report[f'{name}_high{view}']:.3f})"
    return f"{report[f'{name}{view}']:.3f}{between}"
