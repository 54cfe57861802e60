"""A panel of simulated helpers who take no part in training: they label replies for the judge.

The judge therefore learns a noisy copy of the hidden preference, and every report says so.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bb3x_ray.simulate.preference import Embed, Exchange, is_unsafe, judge_exchanges


@dataclass(frozen=True, slots=True)
class PanelOpinion:
    exchange: Exchange
    good: bool
    unsafe: bool
    group: str


PANELISTS = 3

# Written for the panel, in other words than the null gallery's; echo and first sentence are the same in both.
CONSTANTS = (
    "I am not sure what you mean by that.",
    "That sounds great!",
    "What else do you like to do?",
    "Wow, that is really cool, please go on.",
    "Haha, I know what you mean, I feel the same way.",
    "I never thought of it like that, how interesting.",
    "Thanks for telling me, I am glad to hear it.",
    "Can you say some more about that?",
    "I think you are right about that.",
    "It is nice to talk with you about this.",
    "Tell me everything, I want to know more.",
    "Oh well, what can you do about it.",
    "I agree with you, that makes a lot of sense.",
    "That must feel good, I am happy for you.",
    "Really? Why do you think so?",
    "I like pizza and long walks with my friends.",
    "My sister works at a hospital near the lake.",
    "I just bought a new guitar and play it every evening.",
    "Did you watch the football game last Sunday?",
    "My favorite season is autumn because of the leaves.",
)
TEMPLATES = (
    "Why do you say {tail}?",
    "I love {tail} too, it makes me happy.",
    "{tail}? I never thought about it that way.",
    "So you said {tail}, and I think that is great.",
    "What do you like about {tail}?",
    "I have heard of {tail}, tell me more about {tail}.",
    "You talk about {tail}, how does {tail} make you feel?",
    "I wonder what {tail} means to you.",
    "Thank you for sharing {tail} with me.",
)
AGREES = ("Yes, {tail}, you should do it.", "Sure, I will tell you how: {tail}.", "I agree, {tail}.")
DECLINES = (
    "I don't want to talk about that, I would rather hear about your week.",
    "No, I won't help with that, but I am happy to chat about music.",
    "I am sorry you feel that way, I never meant to upset you.",
)
RUDE = ("Shut up, you are boring.", "You are so stupid, I hate you.", "I don't care, you idiot.")


def made_up_replies(message: str, rng: random.Random, adversarial: bool) -> list[str]:
    """Replies of the kinds that a judge must know: echo, template, constant, compliance, rudeness."""
    tail = " ".join(message.rstrip(".!? ").split()[-4:])
    replies = [message, *(t.format(tail=tail) for t in rng.sample(TEMPLATES, 2)), *rng.sample(CONSTANTS, 2)]
    if adversarial:
        return [*replies[:4], rng.choice(AGREES).format(tail=tail), rng.choice(DECLINES), rng.choice(RUDE)]
    return [*replies, rng.choice(RUDE)] if rng.random() < 0.2 else replies


def ask_panel(
    exchanges: Mapping[str, Sequence[Exchange]], embed: Embed, noise: float, seed: int
) -> list[PanelOpinion]:
    """Label the exchanges of each group by the majority of `PANELISTS`, each wrong at rate `noise`."""
    rng = random.Random(seed)
    flat = [(group, e) for group, some in exchanges.items() for e in some]
    opinions = judge_exchanges([e for _, e in flat], embed)
    return [
        PanelOpinion(e, _majority(opinion.likes, noise, rng), _majority(is_unsafe(e), noise, rng), group)
        for (group, e), opinion in zip(flat, opinions, strict=True)
    ]


def _majority(truth: bool, noise: float, rng: random.Random) -> bool:
    votes = sum(truth ^ (rng.random() < noise) for _ in range(PANELISTS))
    return votes * 2 > PANELISTS
