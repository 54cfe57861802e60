"""Exchanges between people to imitate: those whose reply the reward model likes best among replies of its
length, so that what people thumbed decides here too, and brevity does not."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bb3x_ray.classify.pair_model import load_pair_model
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.config import CurateConfig

Exchange = tuple[str, str]


def rank_exchanges(
    exchanges: Sequence[Exchange], config: CurateConfig, reward_folder: Path, seed: int
) -> list[Exchange]:
    """`exchanges`, best first; in an order by chance where `config.human_candidates` is 0."""
    ranked = list(exchanges)
    random.Random(seed).shuffle(ranked)
    if not config.human_candidates:
        return ranked
    ranked = ranked[: config.human_candidates]
    model = load_pair_model(reward_folder)
    good = model.predict([Pair(said, reply) for said, reply in ranked])
    return [ranked[i] for i in best_at_equal_length([len(reply.split()) for _, reply in ranked], good)]


def best_at_equal_length(words: Sequence[int], good: np.ndarray) -> list[int]:
    """Indices of replies: the best of each of ten bins of about one length, then the second best, ..."""
    bins = np.array_split(np.argsort(words, kind="stable"), 10)
    ranked = [members[np.argsort(-good[members], kind="stable")] for members in bins]
    return [
        int(members[place]) for place in range(len(ranked[0])) for members in ranked if place < len(members)
    ]
