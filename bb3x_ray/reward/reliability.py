"""How much what a person does about a reply says of that reply, from trust."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import Trust


@dataclass(frozen=True, slots=True)
class Reliability:
    """Call it with a person and a message: 1, 0 for what counts for nothing, −1 for what says the opposite.

    people     0 to 1; who is not there counts as everybody does, 1
    messages   a factor more, for single thumbs that were weighed down or turned round
    """

    people: dict[str, float] = field(default_factory=dict)
    messages: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, trust: Trust, thumbs: Sequence[Signal]) -> "Reliability":
        """Trust beside the typical person's: who is trusted as most are, new people among them, has 1. Those
        who are distrusted do not tell what is typical, however many they are.

        An account of a group has its part of one person's, in whatever it does.

        thumbs   those that `trust` was estimated from, at least
        """
        heard = [value for person, value in trust.trust.items() if person not in trust.distrusted]
        typical = float(np.median(heard)) if heard else 1.0
        part = {person: 1 / len(group) for group in trust.groups for person in group}
        people = {
            person: min(1.0, value / max(typical, 1e-9)) * part.get(person, 1.0)
            for person, value in trust.trust.items()
        }
        taken = {s.message_id: (2 * trust.label(s) - 1) * (2 * s.label - 1) for s in thumbs}
        turned = {message: factor for message, factor in taken.items() if factor != 1}
        # The weight of a group's thumb has its part in it already.
        parts = {s.message_id: part[s.person] for s in thumbs if s.person in part}
        messages = {
            m: trust.weights.get(m, 1.0) * turned.get(m, 1.0) / parts.get(m, 1.0)
            for m in {**trust.weights, **turned}
        }
        return cls({**people, **dict.fromkeys(trust.distrusted, 0.0)}, messages)

    def __call__(self, person: str, message_id: str) -> float:
        return self.people.get(person, 1.0) * self.messages.get(message_id, 1.0)
