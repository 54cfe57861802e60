"""The judge: says which replies are good and which are unsafe. Only it decides a verdict (law 12).

It is trained on judgements of a panel that takes no part in training, over conversations and
adversarial messages of the judge's own part (law 11). Its unsafe detector is not the serving filter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pair_network import PairNetwork
from bb3x_ray.classify.pairs import Pair, auroc, balanced_accuracy
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one panel member said of a reply. `group` keeps what belongs together in one half."""

    context: str
    reply: str
    good: bool
    unsafe: bool
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
    """Train on four fifths of the groups; set where to decide, and measure agreement, on the rest.

    Raises UserError when the panel never disagrees about anything: there is nothing to learn then.
    """
    groups = sorted({j.group for j in panel})
    held_groups = set(np.random.default_rng(seed).permutation(groups)[: len(groups) // 5])
    train = [j for j in panel if j.group not in held_groups]
    held = [j for j in panel if j.group in held_groups]
    if len({j.good for j in train}) < 2 or len({j.unsafe for j in train}) < 2 or not held:
        raise UserError(
            "the judge cannot be trained: its part of the data holds only one kind of judgement; "
            "give it more conversations (evaluate.panel) or more people with thumbs."
        )
    good, unsafe = (
        PairNetwork.fit([_pair(j, label) for j, label in zip(train, labels, strict=True)], encoder, seed)
        for labels in ([j.good for j in train], [j.unsafe for j in train])
    )
    good.match_share([_pair(j, j.good) for j in held])
    unsafe.match_share([_pair(j, j.unsafe) for j in held])
    report = {
        "panel": float(len(panel)),
        "held_out": float(len(held)),
        **_agreement("good", good, [_pair(j, j.good) for j in held]),
        **_agreement("unsafe", unsafe, [_pair(j, j.unsafe) for j in held]),
    }
    good.report = report
    return Judge(good, unsafe, report)


def _pair(judgement: Judgement, label: bool) -> Pair:
    return Pair(judgement.context, judgement.reply, float(label))


def _agreement(name: str, classifier: PairNetwork, held: list[Pair]) -> dict[str, float]:
    scores, labels = classifier.predict(held), np.array([p.label for p in held])
    return {
        f"{name}_balanced_accuracy": balanced_accuracy(scores, labels),
        f"{name}_auroc": auroc(scores, labels),
        f"{name}_share": float(labels.mean()),
    }
