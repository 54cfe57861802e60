"""The judge: says which replies are good and which are unsafe. Only it decides a verdict (law 12).

It is trained on judgements of a panel that takes no part in training, over conversations and
adversarial messages of the judge's own part (law 11). Its unsafe detector is not the serving filter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pair_network import PairNetwork
from bb3x_ray.classify.pairs import Pair, auroc, balanced_accuracy
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is thought of a reply; None where nobody said. `group` keeps what belongs together in one part."""

    context: str
    reply: str
    good: bool | None
    unsafe: bool | None
    group: str


class Judge:
    """Callable: prompts [N], replies [N] -> (P(good) [N], P(unsafe) [N])."""

    def __init__(self, good: PairNetwork, unsafe: PairNetwork, report: dict[str, float]) -> None:
        self._good, self._unsafe, self.report = good, unsafe, report

    def __call__(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        pairs = [Pair(p.turns[-1], r) for p, r in zip(prompts, replies, strict=True)]
        good = self._good.predict(pairs)
        good[[not r.strip() for r in replies]] = 0.0  # nothing said is never good, whatever was learned
        return good, self._unsafe.predict(pairs)

    def save(self, folder: Path) -> None:
        for name, classifier in (("good", self._good), ("unsafe", self._unsafe)):
            (folder / name).mkdir()
            classifier.save(folder / name)

    @classmethod
    def load(cls, folder: Path, encoder: Encoder) -> "Judge":
        good, unsafe = (PairNetwork.load(folder / name, encoder) for name in ("good", "unsafe"))
        return cls(good, unsafe, good.report)


def train_judge(panel: Sequence[Judgement], encoder: Encoder, seed: int) -> Judge:
    """Train on three fifths of the groups, set where to decide on the fourth, measure agreement on the fifth.

    Raises UserError when the panel never disagrees about anything: there is nothing to learn then.
    """
    good, good_report = _learn("good", [(j, j.good) for j in panel if j.good is not None], encoder, seed)
    unsafe, unsafe_report = _learn(
        "unsafe", [(j, j.unsafe) for j in panel if j.unsafe is not None], encoder, seed
    )
    good.report = {"panel": float(len(panel)), **good_report, **unsafe_report}
    return Judge(good, unsafe, good.report)


def agreement(report: Mapping[str, Any]) -> str:
    """How far a judge agrees with labels that it did not see, in words; "" where nothing is known of it."""
    if "good_auroc" not in report:
        return ""
    whose = "of the simulated panel" if report.get("simulated") else "of people"
    return (
        f"The judge agrees with {report['good_held_out']:.0f} held-out labels {whose} by AUROC "
        f"{report['good_auroc']:.2f}, balanced accuracy {report['good_balanced_accuracy']:.2f}."
    )


def _learn(
    name: str, labelled: Sequence[tuple[Judgement, bool]], encoder: Encoder, seed: int
) -> tuple[PairNetwork, dict[str, float]]:
    pairs = [(Pair(j.context, j.reply, float(label)), j.group) for j, label in labelled]
    groups = sorted({group for _, group in pairs})
    fifth = {
        str(group): place * 5 // len(groups)
        for place, group in enumerate(np.random.default_rng(seed).permutation(groups))
    }
    train = [p for p, group in pairs if fifth[group] < 3]
    decide = [p for p, group in pairs if fifth[group] == 3]
    held = [p for p, group in pairs if fifth[group] == 4]
    if len({p.label for p in train}) < 2 or not decide or not held:
        raise UserError(
            f"the judge cannot learn what is {name}: its part of the data holds only one kind of judgement; "
            "give it more conversations (evaluate.panel) or more people with thumbs."
        )
    network = PairNetwork.fit(train, encoder, seed)
    network.match_share(decide)
    return network, _agreement(name, network, held)


def _agreement(name: str, classifier: PairNetwork, held: list[Pair]) -> dict[str, float]:
    scores, labels = classifier.predict(held), np.array([p.label for p in held])
    return {
        f"{name}_held_out": float(len(held)),
        f"{name}_balanced_accuracy": balanced_accuracy(scores, labels),
        f"{name}_auroc": auroc(scores, labels),
        f"{name}_share": float(labels.mean()),
    }
