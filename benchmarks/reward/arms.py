"""Every arm's predictions on the same folds: no person is on both sides, and nothing is chosen on what is
told."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bb3x_ray.classify.bag_of_words import Logistic
from bb3x_ray.classify.pair_features import AFTER_WIDTH, REPLY_WIDTH
from bb3x_ray.classify.pair_logistic import calibrate, cross_fit
from bb3x_ray.classify.two_views import TwoViews, without_hindsight
from benchmarks.reward.material import Material
from benchmarks.reward.tfidf import TfIdf

FOLDS, INNER = 5, 4
OURS, TFIDF, MINILM, PLAIN = "ours", "tf-idf", "frozen MiniLM", "length and turn"
# Penalties of the arms beside ours, the best of a few on both files; ours is the product's default.
_MINILM_L2, _PLAIN_L2 = 10.0, 0.1


@dataclass(frozen=True, slots=True)
class Predictions:
    """
    late     arm -> logits [splits, N] with hindsight; empty where there is none
    fresh    the same without
    p_late   ours, calibrated, [splits, N]; `p_fresh` without hindsight
    fold     [splits, N]
    """

    late: dict[str, np.ndarray]
    fresh: dict[str, np.ndarray]
    p_late: np.ndarray
    p_fresh: np.ndarray
    fold: np.ndarray


def predict(
    material: Material, x: np.ndarray, l2: float, splits: int, seed: int, say: Callable[[str], None]
) -> Predictions:
    """Of every pair by models that saw nobody of its fold, on `splits` ways to cut people into 5 folds.

    x   rows of features, [N, D]
    """
    y, count = material.labels, len(material.pairs)
    views = (True, False) if material.has_hindsight else (False,)
    words = {late: TfIdf(material.pairs, late) for late in views}
    fold = np.stack([folds(material.groups, FOLDS, f"{seed}:{split}") for split in range(splits)])
    names = (OURS, TFIDF, MINILM, PLAIN)
    logits = {late: {name: np.zeros((splits, count)) for name in names} for late in views}
    p_late, p_fresh = np.zeros((splits, count)), np.zeros((splits, count))
    for split in range(splits):
        for held_out in range(FOLDS):
            test, train = fold[split] == held_out, fold[split] != held_out
            for late in views:
                found = logits[late]
                found[TFIDF][split, test] = words[late].logits(y, train)[test]
                found[MINILM][split, test] = _regression(_embedded(x, late), y, train, test, _MINILM_L2)
                found[PLAIN][split, test] = _regression(_plain(material), y, train, test, _PLAIN_L2)
            late_p, fresh_p, *own = _ours(material, x, train, test, l2)
            p_late[split, test], p_fresh[split, test] = late_p, fresh_p
            for late, ours in zip((True, False), own, strict=True):
                if late in views:
                    logits[late][OURS][split, test] = ours
        say(f"{material.name}: split {split + 1} of {splits}")
    return Predictions(logits.get(True, {}), logits[False], p_late, p_fresh, fold)


def folds(groups: Sequence[str], count: int, seed: str) -> np.ndarray:
    """[N]; who is in which fold depends on names and seed alone."""
    people = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    home = {name: place % count for place, name in enumerate(people)}
    return np.array([home[name] for name in groups])


def _ours(
    material: Material, x: np.ndarray, train: np.ndarray, test: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(p, p without hindsight, logits, logits without) of the rows of `test`.

    As `train_reward` does it: calibrated on folds of the training people, then learned from all of these.
    """
    y, ones = material.labels[train], np.ones(int(train.sum()))
    inner = folds([group for group, own in zip(material.groups, train, strict=True) if own], INNER, "inner")
    calibrations = calibrate(*cross_fit(x[train], y, ones, inner, l2), y, ones)
    model = TwoViews.fit(x[train], y, ones, l2)
    late, fresh = model.logits(x[test]), model.logits(without_hindsight(x[test]))
    return calibrations.hindsight(late), calibrations.fresh(fresh), late, fresh


def _regression(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, l2: float) -> np.ndarray:
    return Logistic.fit(x[train], y[train], np.ones(int(train.sum())), l2).logits(x[test])


def _embedded(x: np.ndarray, late: bool) -> np.ndarray:
    """Only the embeddings of rows: message × reply, reply, and next message."""
    width = (x.shape[1] - REPLY_WIDTH - AFTER_WIDTH) // 3
    at = REPLY_WIDTH + 2 * width
    parts = [x[:, REPLY_WIDTH:at]] + ([x[:, at + AFTER_WIDTH :]] if late else [])
    return np.hstack(parts)


def _plain(material: Material) -> np.ndarray:
    """The logarithms of a reply's words and of the turns before it, centred."""
    rows = [
        (np.log1p(len(pair.reply.split())), np.log1p(pair.context.count("\n") + bool(pair.context)))
        for pair in material.pairs
    ]
    x: np.ndarray = np.array(rows)
    return x - x.mean(0)
