"""What is told of a reward model: how well it predicts thumbs of people whom it did not see, and its card."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from bb3x_ray.classify.measures import auroc, balanced_accuracy, calibration_error, interval
from bb3x_ray.classify.pair_model import PairModel
from bb3x_ray.classify.pairs import without_hindsight
from bb3x_ray.reward.examples import Example

Measure = Callable[[np.ndarray, np.ndarray], float]
RESAMPLES = 200
VIEWS = {"": "with hindsight", "_fresh": "without"}


def measured(
    examples: Sequence[Example], views: Mapping[str, np.ndarray], seed: int, words: np.ndarray | None = None
) -> dict[str, float]:
    """Counts and measures of predictions [N] of labelled examples, by models that did not see their people.

    views   "" with hindsight, "_fresh" without: the names of their measures end so. A prediction that could
            not be made is nan in all of them
    words   the same by a bag of words, to be beaten

    auroc, balanced_accuracy and calibration_error each with the ends of its 95 % interval, `_low` and
    `_high`, by a bootstrap over people, whose labels are not independent; auroc_se; auroc_reason_* : thumbs
    down for that reason against everything good.
    """
    counts = {
        "labels": float(len(examples)),
        "labels_good": float(sum(bool(e.label) for e in examples)),
        "people": float(len({e.person for e in examples})),
    }
    seen = np.flatnonzero(~np.isnan(views[""]))
    if not len(seen):
        return {**counts, "validated": 0.0}
    own = [examples[i] for i in seen.tolist()]
    labels = np.array([e.label for e in own], np.float64)
    lengths = np.array([len(e.pair.reply.split()) for e in own], np.float64)
    report = {**counts, "validated": float(len(own))}
    report["auroc_length"] = max(auroc(lengths, labels), auroc(-lengths, labels))
    if words is not None:
        report["auroc_words"] = auroc(words[seen], labels)
    for view, p in views.items():
        report |= {f"{name}{view}": value for name, value in _of_view(own, p[seen], labels, seed).items()}
    return report


def measured_on(examples: Sequence[Example], model: PairModel, seed: int) -> dict[str, float]:
    """The same of a model on labelled examples of other people than it learned from."""
    pairs = [e.pair for e in examples]
    late, fresh = model.predict(pairs), model.predict([without_hindsight(pair) for pair in pairs])
    return measured(examples, {"": late, "_fresh": fresh}, seed)


def _of_view(examples: Sequence[Example], p: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    people = [e.person for e in examples]
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
    for reason in sorted({reason for e in examples for reason in e.reasons if not e.label}):
        about = np.array([bool(e.label) or reason in e.reasons for e in examples])
        found = interval(
            partial(_at, auroc, p[about], labels[about]),
            [person for person, one in zip(people, about.tolist(), strict=True) if one],
            seed,
            RESAMPLES,
        )
        name = f"auroc_reason_{reason}"
        report |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return report


def _at(measure: Measure, p: np.ndarray, labels: np.ndarray, index: np.ndarray) -> float:
    return float(measure(p[index], labels[index]))


def reward_card(report: Mapping[str, float], version: str, backbone: str = "head") -> str:
    """The model card of a reward model, in Markdown, from `train_reward`'s report.

    backbone   config.learn
    """
    return f"""# Reward model {version}

P(a trusted person likes a reply), for a bot's reply, the turns before it and, where it is known, what the
person said next. {_MADE[backbone]}; calibrated by a temperature and a shift, one of each with
hindsight and without.

Learned from {report["examples"]:.0f} replies. {report["labels"]:.0f} of them, to {report["people"]:.0f}
people, were annotated or got a thumb of somebody who is not distrusted ({report["labels_good"]:.0f} good);
the others are known by a reaction, a correction or their conversation's rating.

Measured on {report["validated"]:.0f} labels of people whom the measured models did not see. These
numbers are too low, as the labels are noisy themselves, and too high, as the thumbs of people who disagreed
with such models (the distrusted) are left out.

{measures_table(report)}

Its word lists are English. Use it to choose what a chat model learns from, never to judge that model
afterwards: whoever trains on a score games it.
"""


_MADE = {
    "head": "Logistic regression on numbers that are plain to see in the text and on a frozen sentence\n"
    "encoder's embeddings, with small boosted trees on the numbers",
    "all": "A transformer that learned with all its weights",
}


def measures_table(report: Mapping[str, float]) -> str:
    """What `measured` found as a table in Markdown, with 95 % intervals by a bootstrap over people."""
    return f"""| 95 % intervals in brackets | with hindsight | without |
|---|---|---|
{_rows(report)}"""


def _rows(report: Mapping[str, float]) -> str:
    if not report["validated"]:
        return "| nothing could be measured | | |"
    names = {
        "auroc": "AUROC",
        "balanced_accuracy": "balanced accuracy, deciding at the share of thumbs up",
        "calibration_error": "calibration error",
    }
    reasons = sorted(name for name in report if name.startswith("auroc_reason_") and f"{name}_low" in report)
    names |= {name: f"AUROC, thumbs down as {name.removeprefix('auroc_reason_')}" for name in reasons}
    rows = [
        f"| {words} | {' | '.join(_cell(report, name, view) for view in VIEWS)} |"
        for name, words in names.items()
    ]
    if "auroc_words" in report:
        rows.append(f"| AUROC of a bag of words, same folds | | {report['auroc_words']:.3f} |")
    return "\n".join([*rows, f"| AUROC of reply length alone | | {report['auroc_length']:.3f} |"])


def _cell(report: Mapping[str, float], name: str, view: str) -> str:
    low = report.get(f"{name}_low{view}")
    between = "" if low is None else f" ({low:.3f} to {report[f'{name}_high{view}']:.3f})"
    return f"{report[f'{name}{view}']:.3f}{between}"
