"""Reward's Ray door: the reward model learns, replies are scored, thumbs are counted per person."""

from bb3x_ray.reward.on_ray.scoring import score_groups, score_turns
from bb3x_ray.reward.on_ray.training import train_on_ray
from bb3x_ray.reward.on_ray.trust import count_thumbs

__all__ = ["count_thumbs", "score_groups", "score_turns", "train_on_ray"]
