"""How often a person is right about good replies, and how often about bad ones.

Mean error, which the published methods go by, cannot see those who always press the same thumb: half of
their thumbs agree with the models by themselves, and where they are many, the models come to agree with
them. So trust is measured beyond chance, in two steps.

**Which models to believe** (`settle`). A person's agreement with the fold models is that of deviations from
the person's own means, which is 0 for somebody who always presses one thumb, or any thumb, and negative for
somebody who turns them round. Models learn again with people weighted by it, a few times over.

**Whom to trust** (`Population`). Of each person two numbers are unknown: the chance of a thumb up on a good
reply, and of a thumb down on a bad one. They have one prior for all people, which the people themselves teach
(empirical Bayes on a grid), so what passes for an ordinary helper is measured, not assumed. Trust is the
probability that a person tells good from bad at least half as well as the best quarter of people do.

What a person did is kept as counts of thumbs up and down by what the models said (`observe`): all that trust
needs to know, small enough to remember, and what Ray Data's group-by counts.
"""

from dataclasses import dataclass

import numpy as np

from bb3x_ray.reward.trust.folds import Judge, Thumbs, fold_predictions

LEVELS = np.array([0.02, 0.07, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.93, 0.98])
EDGES = np.array([0.04, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96])  # between levels
_GRID = np.array([0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98])
GOOD, BAD = (a.ravel() for a in np.meshgrid(_GRID, _GRID, indexing="ij"))  # [G] right about good, about bad
_SKILL = GOOD + BAD - 1  # 1 always right, 0 chance, −1 always wrong
PASSES, SETTLED = 6, 2  # with agreement beyond chance; then with trust
_PULL = 1.2  # thumbs' worth of the mean person's agreement that everybody begins with
_LEAST = 0.02  # weight of those whom nothing speaks for
_HELPERS, _RIGHT = (
    0.7,
    (9.0, 1.5),
)  # the prior before anybody taught it: a Beta for helpers, flat for the rest
_PRIOR_PEOPLE = 1.0  # how many people that is worth
_ROUNDS = 30
_HALF = 0.5
_TEMPERATURES = np.geomspace(0.3, 4, 14)


def level_of(p: np.ndarray) -> np.ndarray:
    """The number of the level of each probability."""
    return np.searchsorted(EDGES, p, side="right")


def observe(thumbs: Thumbs, p: np.ndarray) -> np.ndarray:
    """[P, 2 · levels] judged thumbs down, then up, of each person by what the models said."""
    width, new = 2 * len(LEVELS), thumbs.new
    place = thumbs.label[new].astype(np.int64) * len(LEVELS) + level_of(p[new])
    counts = np.bincount(thumbs.person[new] * width + place, minlength=thumbs.people * width)
    return counts.reshape(thumbs.people, width).astype(np.float64)


def settle(thumbs: Thumbs, judge: Judge, past: np.ndarray) -> np.ndarray:
    """p [N] of fold models that listen to people as far as these agree with them beyond chance.

    past   [P, 2 · levels] what people did before, as of `observe`
    """
    weights = Population.of(past).trust[thumbs.person] if past.any() else np.ones(len(thumbs))
    for _ in range(PASSES):
        p = fold_predictions(thumbs, judge, weights=weights)
        weights = beyond_chance(past + observe(thumbs, p))[thumbs.person]
    for _ in range(SETTLED):
        p = calibrated(fold_predictions(thumbs, judge, weights=weights), thumbs, weights)
        weights = np.maximum(Population.of(past + observe(thumbs, p)).trust, _LEAST)[thumbs.person]
    return p


def beyond_chance(counts: np.ndarray) -> np.ndarray:
    """[P] weights up to 1: how far people's thumbs move with what the models say, from their own means."""
    said = np.tile(2 * LEVELS - 1, 2)
    pressed = np.repeat([-1.0, 1.0], len(LEVELS))
    given = np.maximum(counts.sum(1, keepdims=True), 1e-9)
    moved = said - counts @ said[:, None] / given
    with_it = (counts * moved * (pressed - counts @ pressed[:, None] / given)).sum(1)
    possible = (counts * np.abs(moved)).sum(1)
    mean = max(float(with_it.sum() / max(possible.sum(), 1e-9)), 0.0)
    agreement = (with_it + _PULL * mean) / (possible + _PULL)
    return np.clip(agreement, _LEAST, 1) / max(float(agreement.max()), 0.1)


def calibrated(p: np.ndarray, thumbs: Thumbs, weights: np.ndarray) -> np.ndarray:
    """p with the temperature at which those who are listened to are least surprising."""
    labels = thumbs.label
    z = np.log(np.clip(p, 1e-6, 1 - 1e-6) / np.clip(1 - p, 1e-6, 1))
    losses = [(weights * (np.logaddexp(0, z * t) - labels * z * t)).sum() for t in _TEMPERATURES]
    return np.clip(1 / (1 + np.exp(-z * _TEMPERATURES[int(np.argmin(losses))])), 0.01, 0.99)


@dataclass(frozen=True, slots=True)
class Population:
    """P people against each other.

    trust        [P] probability that a person tells good from bad at least half as well as the best quarter
    distrusted   [P] trust below the threshold, by enough thumbs that say enough against the person
    right        [P, 2] expected chance of being right about good replies, and about bad ones
    """

    trust: np.ndarray
    distrusted: np.ndarray
    right: np.ndarray

    @classmethod
    def of(
        cls, counts: np.ndarray, threshold: float = 0.5, min_thumbs: int = 1, evidence: float = 1.0
    ) -> "Population":
        """counts [P, 2 · levels] as of `observe`; they need not be whole numbers.

        evidence   the Bayes factor against a person that distrust takes. The prior alone, which all people
                   taught, distrusts nobody: where most thumbs are down, three thumbs down say next to nothing
        """
        likelihood = counts @ _log_likelihood()
        likelihood = np.exp(likelihood - likelihood.max(1, keepdims=True))
        prior = _prior(likelihood)
        posterior = likelihood * prior
        posterior /= posterior.sum(1, keepdims=True)
        skill = posterior @ _SKILL
        best = np.sort(skill)[-max(1, len(skill) // 4) :].mean()
        tells = _SKILL >= _HALF * best - 1e-9
        trust, before = posterior[:, tells].sum(1), prior[tells].sum()
        against = (1 - trust) * before >= evidence * trust * (1 - before)
        enough = counts.sum(1) >= min_thumbs
        right = np.stack([posterior @ GOOD, posterior @ BAD], 1)
        return cls(trust, (trust < threshold) & against & enough, right)

    def meant(self, thumbs: Thumbs, p: np.ndarray) -> np.ndarray:
        """[N] probability that a reply is good, from the models and from the thumb of such a person."""
        good, bad = self.right[thumbs.person].T
        up = thumbs.label == 1
        for_good, for_bad = np.where(up, good, 1 - good) * p, np.where(up, 1 - bad, bad) * (1 - p)
        return for_good / (for_good + for_bad)


def _log_likelihood() -> np.ndarray:
    """[2 · levels, G] log chance of a thumb down, then up, at each level, for each place of the grid."""
    up = LEVELS[:, None] * GOOD + (1 - LEVELS[:, None]) * (1 - BAD)
    return np.log(np.concatenate([1 - up, up]))


def _prior(likelihood: np.ndarray) -> np.ndarray:
    """[G] of how people are, by maximum likelihood; before anybody taught it: mostly helpers."""
    a, b = _RIGHT
    helper = (GOOD * BAD) ** (a - 1) * ((1 - GOOD) * (1 - BAD)) ** (b - 1)
    start = _HELPERS * helper / helper.sum() + (1 - _HELPERS) / len(GOOD)
    # People who did the same share a row: with many people, far fewer rows.
    prior = start
    for _ in range(_ROUNDS):
        share = likelihood * prior
        share /= share.sum(1, keepdims=True)
        prior = (share.sum(0) + _PRIOR_PEOPLE * start) / (len(share) + _PRIOR_PEOPLE)
    return prior
