"""SafetyMix: safe and unsafe texts as helpers and trolls would label them, with gold labels beside.

    kind       what they say                which label they give (in a share `corrupted` of their texts)
    helper     standard                     the true one, always
    troll      standard                     the other one
    master     adversarial                  the other one
    lazy       standard                     a coin
    safe       standard and adversarial     "safe"
    unsafe     standard and adversarial     "unsafe"
    gaslight   adversarial, all unsafe      "safe"
    mixed      people of the six kinds of troll in turn

The rest of a troll's labels are true. The benchmark of arXiv 2208.03295, with two corrections: lazy trolls
follow `corrupted` as the others do, and every split keeps gold labels, by which alone anything is measured.

**Standard and adversarial.** Adversarial texts are those that fool a classifier: of each pool the half that
a bag of words, trained on the other folds, gets most wrong. So adversarial-safe texts are ordinary talk that
looks unsafe word by word, and standard-unsafe texts are unsafe ones that are plain to see. Any two pools do.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from bb3x_ray.classify.bag_of_words import BagOfWords
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.schemas.errors import UserError

Kind = Literal["helper", "troll", "master", "lazy", "safe", "unsafe", "gaslight"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TROLLS: tuple[Kind, ...] = KINDS[1:]
MIXED = "mixed"
SAFE, UNSAFE = 1, 0  # as thumbs: 1 is good
TRAIN, VALID, TEST = 200, 24, 24  # texts of a split, as published
_ADVERSARIAL_SHARE: dict[Kind, float] = {"master": 1.0, "gaslight": 1.0, "safe": 0.5, "unsafe": 0.5}
_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Pools:
    """Texts by gold label (1 safe, 0 unsafe) and by whether they are adversarial; no text is in two."""

    texts: dict[tuple[int, bool], tuple[str, ...]]

    def __str__(self) -> str:
        return ", ".join(
            f"{len(texts):,} {'adversarial' if adversarial else 'standard'} {'safe' if gold else 'unsafe'}"
            for (gold, adversarial), texts in sorted(self.texts.items(), reverse=True)
        )


@dataclass(frozen=True, slots=True)
class Example:
    """One text: who said it, of which kind they are, the label they gave, and the true one (1 is safe)."""

    text: str
    person: str
    kind: Kind
    label: int
    gold: int
    adversarial: bool


@dataclass(frozen=True, slots=True)
class SafetyMix:
    """Three splits; no text and no person is in two of them."""

    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    test: tuple[Example, ...]


def make_pools(safe: Sequence[str], unsafe: Sequence[str]) -> Pools:
    """Both pools cut in halves, standard and adversarial. Texts in both are left out, doubles counted once.

    Raises UserError for fewer than 8 texts of a kind.
    """
    known = set(safe) & set(unsafe)
    pairs = [
        Pair("", text, float(gold))
        for texts, gold in ((safe, SAFE), (unsafe, UNSAFE))
        for text in sorted(set(texts) - known)
    ]
    labels = np.array([pair.label for pair in pairs])
    for gold, name in ((SAFE, "safe"), (UNSAFE, "unsafe")):
        if (found := int((labels == gold).sum())) < 8:
            raise UserError(
                f"{found} different {name} texts are too few, 8 are the least: give a larger file."
            )
    wrong = np.abs(labels - _out_of_fold(pairs))
    texts = {}
    for gold in (SAFE, UNSAFE):
        own = np.flatnonzero(labels == gold)
        hardest_last = own[np.argsort(wrong[own], kind="stable")]
        half = len(own) // 2
        for adversarial, part in ((False, hardest_last[:half]), (True, hardest_last[half:])):
            texts[gold, adversarial] = tuple(pairs[i].reply for i in part.tolist())
    return Pools(texts)


def _out_of_fold(pairs: Sequence[Pair]) -> np.ndarray:
    """P(safe) [N] by models that have not seen a text's fold; each class has the same weight."""
    fold = np.array([hashlib.sha256(pair.reply.encode()).digest()[0] % _FOLDS for pair in pairs])
    share = float(np.mean([pair.label for pair in pairs]))
    p = np.full(len(pairs), 0.5)
    for held_out in range(_FOLDS):
        test = np.flatnonzero(fold == held_out)
        train = [
            Pair("", q.reply, q.label, 0.5 / (share if q.label else 1 - share))
            for i, q in enumerate(pairs)
            if fold[i] != held_out
        ]
        if len(test) and train:
            p[test] = BagOfWords.fit(train).predict([pairs[i] for i in test.tolist()])
    return p


def build(
    pools: Pools,
    kind: str,
    seed: int,
    *,
    trolls: float = 0.5,
    corrupted: float = 0.8,
    noise: float = 0.0,
    sizes: tuple[int, int, int] = (TRAIN, VALID, TEST),
    texts_per_person: tuple[float, float] = (10, 2),
) -> SafetyMix:
    """A mix of helpers and of trolls of one kind (or `mixed`); the same for the same arguments.

    trolls             share of the texts that are trolls'
    corrupted          share of a troll's labels that follow its kind; N of the paper
    noise              share of the true labels, helpers' and trolls', that are wrong all the same
    sizes              texts to train on, to validate on, to test on
    texts_per_person   mean and standard deviation of a normal distribution, rounded, at least 1

    Raises UserError where a pool has fewer texts than are wanted of it.
    """
    if kind not in (*TROLLS, MIXED):
        raise UserError(f"no kind of troll is called {kind!r}; there are {', '.join(TROLLS)} and {MIXED}.")
    # Labels have chance of their own: with other shares of wrong ones, people say the same.
    rng, labels = random.Random(f"safety mix {kind} {seed}"), random.Random(f"its labels {kind} {seed}")
    draw = _Draw(pools, rng)
    splits = []
    for name, size in zip(("train", "valid", "test"), sizes, strict=True):
        of_trolls = round(size * trolls)
        examples: list[Example] = []
        for whose, wanted in (("helper", size - of_trolls), (kind, of_trolls)):
            examples += _people(name, whose, wanted, corrupted, noise, texts_per_person, draw, rng, labels)
        rng.shuffle(examples)
        splits.append(tuple(examples))
    return SafetyMix(*splits)


def _people(
    split: str,
    kind: str,
    wanted: int,
    corrupted: float,
    noise: float,
    texts_per_person: tuple[float, float],
    draw: "_Draw",
    rng: random.Random,
    labels: random.Random,
) -> list[Example]:
    """`wanted` texts of people of one kind."""
    examples: list[Example] = []
    number = 0
    while len(examples) < wanted:
        own: Kind = TROLLS[number % len(TROLLS)] if kind == MIXED else kind  # type: ignore[assignment]
        count = min(max(1, round(rng.gauss(*texts_per_person))), wanted - len(examples))
        # A name tells nothing of the kind, nor does the order of names.
        person = hashlib.sha256(f"{rng.getrandbits(64)}/{split}/{number}".encode()).hexdigest()[:12]
        golds = [UNSAFE] * count if own == "gaslight" else _balanced(count, rng)
        for gold in golds:
            text, adversarial = draw(gold, rng.random() < _ADVERSARIAL_SHARE.get(own, 0.0))
            follows, wrong, coin = (labels.random() for _ in range(3))
            label = 1 - gold if wrong < noise else gold
            if own != "helper" and follows < corrupted:
                label = _corrupt(own, gold, round(coin))
            examples.append(Example(text, person, own, label, gold, adversarial))
        number += 1
    return examples


def _balanced(count: int, rng: random.Random) -> list[int]:
    """Half safe, half unsafe, in any order; an odd one is a coin's."""
    golds = [SAFE, UNSAFE] * (count // 2) + [rng.randrange(2)] * (count % 2)
    rng.shuffle(golds)
    return golds


def _corrupt(kind: Kind, gold: int, coin: int) -> int:
    if kind in ("troll", "master"):
        return 1 - gold
    if kind == "lazy":
        return coin
    return UNSAFE if kind == "unsafe" else SAFE  # safe, gaslight


class _Draw:
    """Texts of the pools, each at most once in a mix."""

    def __init__(self, pools: Pools, rng: random.Random) -> None:
        self._left = {key: rng.sample(pools.texts[key], len(pools.texts[key])) for key in sorted(pools.texts)}
        self._had = {key: len(left) for key, left in self._left.items()}

    def __call__(self, gold: int, adversarial: bool) -> tuple[str, bool]:
        left = self._left[gold, adversarial]
        if not left:
            which = f"{'adversarial' if adversarial else 'standard'} {'safe' if gold else 'unsafe'}"
            raise UserError(
                f"the {self._had[gold, adversarial]} {which} texts are too few for a mix of this size: give "
                "larger files, or ask for fewer texts to test on."
            )
        return left.pop(), adversarial
