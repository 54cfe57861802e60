"""How much what a person does about a reply says of that reply, from trust."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import Trust


@dataclass(frozen=True, slots=True)
class Reliability:
    """Call it with a person and a message: 1, 0 for what counts for nothing, −1 for what says the opposite.

    messages   −1 to 1, of thumbs that the trust method looked at: its word on each is the last
    people     0 to 1, of whatever else people do; who is not there counts as everybody does, 1
    """

    people: dict[str, float] = field(default_factory=dict)
    messages: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, trust: Trust, thumbs: Sequence[Signal]) -> "Reliability":
        """Of thumbs what the method made of them, weighed down or turned round; of all else people's trust
        beside the typical person's: who is trusted as most are, new people among them, has 1. Those who are
        distrusted do not tell what is typical, however many they are, and count for nothing.

        An account of a group has its part of one person's, in whatever it does.

        thumbs   those that `trust` was estimated from, at least
        """
        heard = [value for person, value in trust.trust.items() if person not in trust.distrusted]
        typical = float(np.median(heard)) if heard else 1.0
        parts = trust.parts()
        people = {
            person: min(1.0, value / max(typical, 1e-9)) * parts.get(person, 1.0)
            for person, value in trust.trust.items()
        }
        # A group's part is in the weight of its thumbs already.
        messages = {
            s.message_id: trust.weight(s) * (2 * trust.label(s) - 1) * (2 * s.label - 1) for s in thumbs
        }
        return cls({**people, **dict.fromkeys(trust.distrusted, 0.0)}, messages)

    def __call__(self, person: str, message_id: str) -> float:
        said = self.messages.get(message_id)
        return self.people.get(person, 1.0) if said is None else said
