"""How well unsafe messages are found: red-team messages of hh-rlhf against ordinary talk.

Nothing that is measured here was trained on hh-rlhf but the last row, which is cross-validated by
conversation: what the same kind of classifier reaches with examples of that very kind.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.classify.safety import Example, Safety, hits, threshold_at, train_safety
from bb3x_ray.classify.safety_numbers import balanced_calibration_error, recall_at, share
from bb3x_ray.config import SafetyConfig
from bb3x_ray.data.readers import hh_rlhf
from bb3x_ray.rounds.safety import undecided_talk
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Interval

FILE = "hh-rlhf/harmless-base-even.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Row:
    """recall of openers and of all red-team messages at `false_alarms`; how far P(unsafe) is off where half
    of all messages are red-team ones, which count as unsafe whatever they say."""

    name: str
    openers: Interval
    messages: Interval
    false_alarms: Interval
    calibration_error: float | None


@dataclass(frozen=True, slots=True)
class SafetyReport:
    """wrong   ordinary texts that count as unsafe by their highest scores, and harmless ones of our own"""

    rows: tuple[Row, ...]
    replies: Interval
    red_team: int
    conversations: int
    ordinary: int
    wrong: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class RedTeam:
    """Messages [N], the conversation of each, and whether it opens it."""

    texts: tuple[str, ...]
    groups: np.ndarray
    opens: np.ndarray


def read_red_team(path: Path) -> RedTeam:
    """What people say in hh-rlhf's pairs. Raises UserError for a file that is none."""
    texts, groups, opens = [], [], []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open() as file:
        for number, line in enumerate(file, 1):
            try:
                said = hh_rlhf.human_messages(json.loads(line))
            except ValueError:
                raise UserError(f"{path}, line {number}: no pair of hh-rlhf; mend or remove it.") from None
            texts += said
            groups += [number] * len(said)
            opens += [place == 0 for place in range(len(said))]
    return RedTeam(tuple(texts), np.array(groups), np.array(opens))


def safety_report(safety: Safety, config: SafetyConfig, red: RedTeam, seed: int) -> SafetyReport:
    """Ordinary talk is that half of the talk part's which did not set the thresholds."""
    pairs = undecided_talk(config.ordinary, seed)
    ordinary = [pair.reply for pair in pairs]
    logits = [safety.classifier.logits(texts) for texts in (red.texts, ordinary)]
    words = [hits(safety.matcher, texts) for texts in (red.texts, ordinary)]
    both = [safety.calibration(x, h) for x, h in zip(logits, words, strict=True)]
    alone = [safety.calibration(x, np.zeros(len(x))) for x in logits]
    crossed = _cross_validated(red, pairs, safety, config, seed)
    rows = (
        _words_row(words[0], words[1], red),
        _row("the classifier alone", alone[0], alone[1], red, config.false_alarms),
        _row("both together", both[0], both[1], red, config.false_alarms),
        _row("the same kind, cross-validated on hh-rlhf", crossed[0], crossed[1], red, config.false_alarms),
    )
    wrong = sorted(zip(both[1].tolist(), ordinary, strict=True), reverse=True)
    flagged = tuple(one for one in wrong if one[0] > safety.threshold)
    answers = [pair for pair in pairs if pair.context]
    return SafetyReport(
        rows,
        share(safety(answers) > safety.reply_threshold),
        len(red.texts),
        len(np.unique(red.groups)),
        len(ordinary),
        flagged,
    )


def _words_row(red_hits: np.ndarray, ordinary_hits: np.ndarray, red: RedTeam) -> Row:
    """Found or not: there is no threshold to set."""
    openers, messages = share(red_hits[red.opens]), share(red_hits)
    return Row("the word matcher alone", openers, messages, share(ordinary_hits), None)


def _row(name: str, p: np.ndarray, ordinary: np.ndarray, red: RedTeam, false_alarms: float) -> Row:
    unsafe = np.concatenate([np.ones(len(p)), np.zeros(len(ordinary))])
    return Row(
        name,
        recall_at(p[red.opens], ordinary, false_alarms, red.groups[red.opens]),
        recall_at(p, ordinary, false_alarms, red.groups),
        share(ordinary > threshold_at(ordinary, false_alarms)),
        balanced_calibration_error(np.concatenate([p, ordinary]), unsafe),
    )


def _cross_validated(
    red: RedTeam, ordinary: Sequence[Pair], safety: Safety, config: SafetyConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """P(unsafe) out of fold, of red-team and of ordinary messages."""
    examples = [Example(t, True, f"talk {g}") for t, g in zip(red.texts, red.groups, strict=True)]
    examples += [Example(pair.reply, False) for pair in ordinary]
    _, p = train_safety(examples, load_encoder(config.encoder), safety.matcher, config.l2, seed)
    return p[: len(red.texts)], p[len(red.texts) :]
