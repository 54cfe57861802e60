"""Poisoned rounds, cheap and many: what a curated set's labels are worth while some people troll.

Turns come from SafetyMix: half of them have a thumb, half have none. From there on it goes much as in a
round: trust by the thumbs, a reward model that learns from the thumbs of those who are trusted, a score for
every turn, moved by a trusted thumb, and two thresholds: imitate, avoid, or neither. Gold labels say how many
of either are right. The same turns with everybody honest, or with no thumbs of trolls, are the round without.

What a round does and this does not:

    groups           no accounts are looked for that do the same
    min_all_thumbs   people are distrusted however few thumbs there are (200 here, fewer without the trolls'),
                     and whether or not the models know anything
    Reliability      a thumb counts in full or by the method's weight, not by the person's trust beside the
                     typical person's
    SignalModel      a thumb is right in 85 of 100 cases, which is where that model starts; it learns nothing
    history          there is one round, and nobody has a past
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bb3x_ray.classify.newton import NewtonLogistic
from bb3x_ray.config import RewardConfig, TrustConfig
from bb3x_ray.reward.fold_judge import RowJudge
from bb3x_ray.reward.safety_mix import TRAIN, Example, Pools, build
from bb3x_ray.reward.signal_model import THUMB
from bb3x_ray.reward.trust.folds import fold_of_text, fold_predictions, thumbs_of_people
from bb3x_ray.reward.trust.methods import clean
from bb3x_ray.reward.trust_benchmark import L2, Features
from bb3x_ray.reward.turns import with_evidence


@dataclass(frozen=True, slots=True)
class Poisoned:
    """One round: share of the turns to imitate that are good by their gold labels, of those to avoid that are
    bad (nan where there are none), and how many turns there are of either.

    trolls   share of the thumbs that are trolls'
    people   honest (the same people and texts, nobody trolls) | absent (trolls press no thumb) | trolling
    trust    whether it was on
    """

    kind: str
    trolls: float
    seed: int
    people: str
    trust: bool
    imitate_right: float
    avoid_right: float
    imitate: int
    avoid: int


def poison(
    pools: Pools,
    features: Features,
    kinds: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
    *,
    noise: float = 0.0,
    trust: TrustConfig | None = None,
    reward: RewardConfig | None = None,
    corrupted: float = 0.8,
) -> Iterator[Poisoned]:
    """For every kind, share and seed: honest and absent with trust on, then trolling with trust on and off.

    features   texts -> [N, D], such as trust_benchmark.TextFeatures
    """
    trust, reward = trust or TrustConfig(), reward or RewardConfig()
    off = trust.model_copy(update={"method": "none"})
    for kind in kinds:
        for share in shares:
            for seed in seeds:
                honest, trolling = (
                    build(pools, kind, seed, trolls=share, corrupted=c, noise=noise, sizes=(TRAIN, 1, TRAIN))
                    for c in (0.0, corrupted)
                )
                x = features([e.text for e in (*trolling.train, *trolling.test)])
                everybody = list(range(TRAIN))
                helpers = [i for i in everybody if trolling.train[i].kind == "helper"]
                for people, mix, rated, config in (
                    ("honest", honest, everybody, trust),
                    ("absent", trolling, helpers, trust),
                    ("trolling", trolling, everybody, trust),
                    ("trolling", trolling, everybody, off),
                ):
                    good = _scores(x, mix.train, rated, config)
                    gold = np.array([e.gold for e in (*mix.train, *mix.test)])
                    imitate, avoid = good >= reward.imitate_above, good <= reward.avoid_below
                    yield Poisoned(
                        kind,
                        share,
                        seed,
                        people,
                        config is trust,
                        _mean(gold[imitate]),
                        _mean(1 - gold[avoid]),
                        int(imitate.sum()),
                        int(avoid.sum()),
                    )


def _scores(x: np.ndarray, train: Sequence[Example], rated: list[int], trust: TrustConfig) -> np.ndarray:
    """How good each turn is, much as the score step has it. The first turns are those of `train`, of which
    those numbered in `rated` have thumbs."""
    known = [train[i] for i in rated]
    labels, people = [e.label for e in known], [e.person for e in known]
    thumbs = thumbs_of_people(labels, people, [fold_of_text(e.text, trust.folds) for e in known])
    found = clean(thumbs, RowJudge(x[rated], L2), trust)
    rows = np.flatnonzero(found.weight > 0)
    if not len(rows):
        return np.full(len(x), 0.5)
    model = NewtonLogistic.fit(x[rated][rows], found.label[rows], found.weight[rows], L2)
    base_rate = float(np.average(found.label[rows], weights=found.weight[rows]))
    # The temperature is that of predictions for people whom the models did not see.
    by_person = replace(thumbs, fold=thumbs.person % 4)
    held_out = fold_predictions(by_person, RowJudge(x[rated], L2), found.label, found.weight)
    p = _cooled(model.predict(x), held_out[rows], found.label[rows])
    evidence: list[float | None] = [None] * len(x)
    for row in rows.tolist():
        evidence[rated[row]] = THUMB if found.label[row] > 0.5 else -THUMB
    return np.array([with_evidence(float(score), e, base_rate) for score, e in zip(p, evidence, strict=True)])


def _cooled(p: np.ndarray, held_out: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """p at the temperature, 1 or more, that fits predictions for unseen people best."""
    z, logits = _logit(held_out), _logit(p)
    grid = np.geomspace(1, 10, 41)
    losses = [(np.logaddexp(0, z / t) - labels * z / t).sum() for t in grid]
    return 1 / (1 + np.exp(-logits / grid[int(np.argmin(losses))]))


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
