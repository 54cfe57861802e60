"""What people really liked, where their thumbs are at hand: better than words, with hindsight and without."""

from pathlib import Path

import numpy as np

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.measures import auroc
from bb3x_ray.classify.pair_features import features
from bb3x_ray.classify.pair_logistic import cross_fit
from bb3x_ray.config import RewardConfig
from benchmarks.reward.arms import folds
from benchmarks.reward.material import convai2
from benchmarks.reward.tfidf import TfIdf


def test_it_beats_a_bag_of_words_on_people_whom_it_did_not_see(shared_data: Path) -> None:
    everybody = convai2(shared_data)
    half = np.flatnonzero(folds(everybody.groups, 2, "half") == 0).tolist()  # embedding all takes a minute
    pairs, people = [everybody.pairs[i] for i in half], [everybody.groups[i] for i in half]
    labels, fold = everybody.labels[half], folds(people, 3, "test")
    x = features(pairs, load_encoder())
    late, fresh = cross_fit(x, labels, np.ones(len(labels)), fold, RewardConfig().l2)
    for logits, hindsight in ((late, True), (fresh, False)):
        words, bag = np.zeros(len(labels)), TfIdf(pairs, hindsight)
        for held_out in range(3):
            words[fold == held_out] = bag.logits(labels, fold != held_out)[fold == held_out]
        assert auroc(logits, labels) > auroc(words, labels) + 0.02
        assert auroc(logits, labels) > 0.65
