"""What trust is worth: the error on gold labels of a classifier that learned from SafetyMix, by method.

Classifier and fold models are the same logistic regression on frozen embeddings, so methods differ only in
what they drop. `clean` learns from the same texts with gold labels, `none` from all labels as given. Only
`three_stage` has more: its classifier learns from what it keeps of the validation set too, 24 more texts
at most, as published, so some of its lead may be theirs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.newton import NewtonLogistic
from bb3x_ray.classify.pairs import surface
from bb3x_ray.config import TrustConfig, TrustMethod
from bb3x_ray.reward.fold_judge import RowJudge
from bb3x_ray.reward.safety_mix import TRAIN, VALID, Example, Pools, SafetyMix, build
from bb3x_ray.reward.trust.folds import Thumbs, fold_of_text, thumbs_of_people
from bb3x_ray.reward.trust.methods import METHODS, Cleaned, clean, three_stage

CLEAN = "clean"
SCALE, L2 = 4.0, 1.0  # of embeddings of length 1, beside plain features; and the penalty on weights
TEST = 240  # texts to test on: more than were published, which only makes the error surer

Features = Callable[[Sequence[str]], np.ndarray]


class TextFeatures:
    """Features of texts [N, D], of a frozen encoder's embeddings and of what is plain to see in a text. All
    `texts` are embedded at once; then call it with some of them."""

    def __init__(self, texts: Sequence[str], encoder: Encoder) -> None:
        distinct = sorted(set(texts))
        plain = np.array([surface("", text) for text in distinct])
        x = np.hstack([encoder.embed(distinct) * SCALE, plain])
        self._rows = dict(zip(distinct, x, strict=True))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self._rows[text] for text in texts])


@dataclass(frozen=True, slots=True)
class Measured:
    """One method on one mix: share of test texts that are classified wrongly by their gold labels, share of
    helpers who were distrusted, and of trolls. The latter two are nan where there are none."""

    kind: str
    seed: int
    method: str
    error: float
    helpers_distrusted: float
    trolls_distrusted: float


def measure(
    pools: Pools,
    features: Features,
    kinds: Sequence[str],
    seeds: Sequence[int],
    methods: Sequence[TrustMethod] = METHODS,
    *,
    trolls: float = 0.5,
    corrupted: float = 0.8,
    noise: float = 0.0,
    test: int = TEST,
    config: TrustConfig | None = None,
) -> Iterator[Measured]:
    """Every method on every kind and seed; those of one mix come one after the other, `clean` first.

    features   texts -> [N, D]; asked anew for each mix, so it should remember texts, as TextFeatures does
    """
    config = config or TrustConfig()
    for kind in kinds:
        for seed in seeds:
            sizes = (TRAIN, VALID, test)
            mix = build(pools, kind, seed, trolls=trolls, corrupted=corrupted, noise=noise, sizes=sizes)
            yield from measure_mix(mix, kind, seed, features, methods, config)


def measure_mix(
    mix: SafetyMix,
    kind: str,
    seed: int,
    features: Features,
    methods: Sequence[TrustMethod],
    config: TrustConfig,
) -> Iterator[Measured]:
    known = [*mix.train, *mix.valid]
    x = features([e.text for e in known])
    x_test = features([e.text for e in mix.test])
    gold = np.array([e.gold for e in mix.test])
    train, valid = (_thumbs(split, config.folds) for split in (mix.train, mix.valid))
    judge = RowJudge(x, L2)

    def error(labels: np.ndarray, weights: np.ndarray) -> float:
        rows = np.arange(len(labels))
        if not weights.sum() > 0:
            return 0.5  # nothing left to learn from
        model = NewtonLogistic.fit(x[rows], labels, weights, L2)
        return float(((model.predict(x_test) > 0.5) != gold).mean())

    nan = float("nan")
    truth = np.array([e.gold for e in mix.train], np.float64)
    yield Measured(kind, seed, CLEAN, error(truth, np.ones(len(truth))), nan, nan)
    for method in methods:
        asked = config.model_copy(update={"method": method})
        if method == "three_stage":
            found, validation = three_stage(train, valid, judge, asked)
            labels = np.concatenate([found.label, valid.label])
            value = error(labels, np.concatenate([found.weight, validation]))
        else:
            found = clean(train, judge, asked)
            value = error(found.label, found.weight)
        yield Measured(kind, seed, method, value, *_distrusted(mix.train, train, found))


def _thumbs(examples: Sequence[Example], folds: int) -> Thumbs:
    return thumbs_of_people(
        [e.label for e in examples],
        [e.person for e in examples],
        [fold_of_text(e.text, folds) for e in examples],
    )


def _distrusted(examples: Sequence[Example], thumbs: Thumbs, found: Cleaned) -> tuple[float, float]:
    helps = np.zeros(thumbs.people, bool)
    helps[thumbs.person] = [e.kind == "helper" for e in examples]
    return tuple(float(found.distrusted[w].mean()) if w.any() else float("nan") for w in (helps, ~helps))  # type: ignore[return-value]
