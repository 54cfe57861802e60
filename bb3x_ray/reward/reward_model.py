"""The reward model: P(a trusted person likes this reply), learned from the thumbs of trusted people."""

import hashlib
from collections.abc import Sequence

import numpy as np

from bb3x_ray.classify.bag_of_words import BagOfWords, Logistic
from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pair_logistic import PairLogistic, features
from bb3x_ray.classify.pairs import Pair, auroc, balanced_accuracy
from bb3x_ray.config import RewardConfig
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import Trust
from bb3x_ray.schemas.errors import UserError

MIN_THUMBS = 8
FOLDS = 4
RESAMPLES = 200


def train_reward(
    signals: Sequence[Signal],
    trust: Trust,
    encoder: Encoder,
    config: RewardConfig,
    seed: int,
    weak: Sequence[Pair] = (),
) -> tuple[PairLogistic, dict[str, float]]:
    """A classifier of trusted thumbs, and a report on people whom its fold models did not see.

    Thumbs on replies that the length limit broke off are left out where there are enough others: they say
    that nobody likes half a sentence, and of what the model said, nothing.

    weak   pairs of little weight to learn from as well (see signals.weak_pairs); never validated on

    Raises UserError for fewer than 8 trusted thumbs, or when they all point one way.
    """
    trusted = _whole([s for s in signals if s.person not in trust.distrusted])
    _check(trusted)
    pairs = [Pair(s.context, s.reply, float(s.label)) for s in trusted]
    report, temperature = _validate(trusted, pairs, list(weak), encoder, config.l2, seed)
    model = PairLogistic.fit([*pairs, *weak], encoder, config.l2)
    model.temperature = temperature
    model.report = {**report, "temperature": temperature}
    return model, model.report


def reward_card(report: dict[str, float], version: str = "") -> str:
    """The model card of a reward model, in Markdown, from `train_reward`'s report."""
    measured = "\n".join(
        f"| {words} | {report[key]:.3f} |" for key, words in _MEASURED.items() if key in report
    )
    return f"""# Reward model {version}

P(a trusted person gives a thumb up), for a bot's reply and the two turns before it. Logistic regression
on a frozen sentence encoder's embeddings and on surface features, calibrated by a temperature.

Trained on {report["thumbs"]:.0f} thumbs ({report["thumbs_up"]:.0f} up) of {report["people"]:.0f} people who
are not distrusted, and {report["weak_pairs"]:.0f} replies with only their conversation's rating.

Measured on {report["validated"]:.0f} thumbs of people whom the measured models did not see. These
numbers are too low, as the thumbs are noisy themselves, and too high, as the thumbs of people who disagreed
with such models (the distrusted) are left out.

| | |
|---|---|
{measured}

Use it to choose what a chat model learns from, never to judge that model afterwards: whoever trains on a
score games it.
"""


_MEASURED = {
    "auroc": "AUROC",
    "auroc_se": "its standard error (bootstrap over people)",
    "balanced_accuracy": "balanced accuracy",
    "auroc_words": "AUROC of a bag of words, same folds",
    "auroc_length": "AUROC of reply length alone",
}


def _whole(trusted: list[Signal]) -> list[Signal]:
    whole = [s for s in trusted if not s.cut_off]
    up = sum(s.label for s in whole)
    return whole if len(whole) >= MIN_THUMBS and 0 < up < len(whole) else trusted


def _check(trusted: Sequence[Signal]) -> None:
    up = sum(s.label for s in trusted)
    if len(trusted) < MIN_THUMBS:
        raise UserError(
            f"only {len(trusted)} thumbs of trusted people, {MIN_THUMBS} are needed to train a reward model: "
            "let more people talk (talk.helpers, talk.thumb_rate), or ingest rated conversations."
        )
    if up in (0, len(trusted)):
        raise UserError(
            f"all {len(trusted)} thumbs of trusted people point {'up' if up else 'down'}, so there is "
            "nothing to tell apart: let more people talk (talk.helpers), or ingest rated conversations."
        )


def _validate(
    signals: Sequence[Signal],
    pairs: Sequence[Pair],
    weak: list[Pair],
    encoder: Encoder,
    l2: float,
    seed: int,
) -> tuple[dict[str, float], float]:
    """(report, temperature) by folds over people: every thumb is predicted by a model that never saw its
    person."""
    fold = _person_folds(signals, seed)
    model_p, words_p = np.full(len(pairs), np.nan), np.full(len(pairs), np.nan)
    everything = [*pairs, *weak]
    x = features(everything, encoder)  # once: embedding costs far more than fitting
    y, w = (np.array([getattr(pair, name) for pair in everything]) for name in ("label", "weight"))
    for held_out in np.unique(fold):
        test = np.flatnonzero(fold == held_out)
        rest = np.setdiff1d(np.arange(len(everything)), test)
        if len(rest) > len(weak):
            model_p[test] = Logistic.fit(x[rest], y[rest], w[rest], l2).predict(x[test])
            words = BagOfWords.fit([everything[i] for i in rest.tolist()])
            words_p[test] = words.predict([everything[i] for i in test.tolist()])
    counts = {
        "thumbs": float(len(signals)),
        "thumbs_up": float(sum(s.label for s in signals)),
        "people": float(len({s.person for s in signals})),
        "weak_pairs": float(len(weak)),
    }
    labels = np.array([pair.label for pair in pairs])
    return {**counts, **_measure(signals, model_p, words_p, seed)}, _temperature(model_p, labels)


def _temperature(p: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest cross-entropy on held-out predictions; 1 or more, since few thumbs
    make a model too sure of itself, never too modest."""
    seen = ~np.isnan(p)
    if not seen.any():
        return 1.0
    p = np.clip(p[seen], 1e-6, 1 - 1e-6)
    grid = np.geomspace(1, 10, 41)
    scaled = 1 / (1 + np.exp(-np.log(p / (1 - p))[None] / grid[:, None]))
    return float(grid[np.where(labels[seen] > 0.5, -np.log(scaled), -np.log1p(-scaled)).sum(1).argmin()])


def _measure(
    signals: Sequence[Signal], model_p: np.ndarray, words_p: np.ndarray, seed: int
) -> dict[str, float]:
    seen = np.flatnonzero(~np.isnan(model_p)).tolist()
    if not seen:
        return {"validated": 0.0}
    labels = np.array([signals[i].label for i in seen], np.float64)
    lengths = np.array([len(signals[i].reply.split()) for i in seen], np.float64)
    return {
        "validated": float(len(seen)),
        "auroc": auroc(model_p[seen], labels),
        "auroc_se": _standard_error([signals[i].person for i in seen], model_p[seen], labels, seed),
        "balanced_accuracy": balanced_accuracy(model_p[seen], labels),
        "auroc_words": auroc(words_p[seen], labels),
        "auroc_length": max(auroc(lengths, labels), auroc(-lengths, labels)),
    }


def _standard_error(people: Sequence[str], p: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Of the AUROC, by a bootstrap over people: thumbs of one person are not independent."""
    own = [np.flatnonzero(np.array(people) == person) for person in sorted(set(people))]
    random = np.random.default_rng(seed)
    drawn = (
        np.concatenate([own[i] for i in random.integers(len(own), size=len(own))]) for _ in range(RESAMPLES)
    )
    return float(np.std([auroc(p[index], labels[index]) for index in drawn]))


def _person_folds(signals: Sequence[Signal], seed: int) -> np.ndarray:
    """[N] fold of each signal; a person is in one fold, and folds have about equally many people."""
    people = sorted(
        {s.person for s in signals}, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest()
    )
    home = {person: place % FOLDS for place, person in enumerate(people)}
    return np.array([home[s.person] for s in signals])
