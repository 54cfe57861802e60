"""Reward's Ray door: bot turns are scored, and thumbs are counted per person, where Ray Data runs."""

from bb3x_ray.reward.on_ray.scoring import score_groups, score_turns
from bb3x_ray.reward.on_ray.trust import count_thumbs

__all__ = ["count_thumbs", "score_groups", "score_turns"]
