"""The replies of a slice as the reward model reads them, a group at a time, in any process."""

from dataclasses import dataclass, field

import pyarrow as pa

from bb3x_ray.data.slices import Slice, conversations_of
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.reward.signal_model import SignalModel
from bb3x_ray.reward.turns import turns_table


@dataclass(frozen=True, slots=True)
class TurnsOfSlice:
    """Call it with the number of a group for its turns (reward.turns.TURNS_SCHEMA).

    distrusted             people whose thumbs are dropped
    left_out               people whose conversations are not scored at all
    signals, reliability   how feedback and annotations become evidence, see `turns_table`
    """

    slice_: Slice
    distrusted: frozenset[str]
    left_out: frozenset[str]
    signals: SignalModel = field(default_factory=SignalModel)
    reliability: Reliability = field(default_factory=Reliability)

    def __call__(self, group: int) -> pa.Table:
        conversations = conversations_of(self.slice_.table(group))
        return turns_table(
            (c for c in conversations if c.person not in self.left_out),
            self.distrusted,
            self.signals,
            self.reliability,
        )
