"""What people thought of a candidate that some of them talked to, and what follows from it."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

CanaryDecision = Literal["promote", "rollback", "go on"]


@dataclass(frozen=True, slots=True)
class Canary:
    """The end of a canary, or where it stands.

    decision   by people's thumbs; or rollback, early, by the scores and safety of all its replies
    words      one sentence with the numbers that led to it
    numbers    floats by name, of both arms: no text of anybody
    """

    candidate: str
    champion: str
    decision: CanaryDecision
    words: str
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Canary":
        return cls(**row)
