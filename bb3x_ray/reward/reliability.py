"""How much what a person does about a reply says of that reply, from trust."""

from dataclasses import dataclass, field

import numpy as np

from bb3x_ray.reward.trust import Trust


@dataclass(frozen=True, slots=True)
class Reliability:
    """Call it with a person and a message: 0, counts for nothing, to 1.

    people     who is not there counts as everybody does, 1
    messages   a factor more, for single thumbs that were weighed down
    """

    people: dict[str, float] = field(default_factory=dict)
    messages: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, trust: Trust) -> "Reliability":
        """Trust beside the typical person's: who is trusted as most are, new people among them, has 1."""
        typical = float(np.median(list(trust.trust.values()))) if trust.trust else 1.0
        people = {person: min(1.0, value / max(typical, 1e-9)) for person, value in trust.trust.items()}
        return cls({**people, **dict.fromkeys(trust.distrusted, 0.0)}, dict(trust.weights))

    def __call__(self, person: str, message_id: str) -> float:
        return self.people.get(person, 1.0) * self.messages.get(message_id, 1.0)
