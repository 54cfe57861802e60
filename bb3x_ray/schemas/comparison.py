"""What a person said of two versions that answered them, without knowing which was which."""

from dataclasses import dataclass
from typing import Literal

Choice = Literal["a", "b", "both", "neither"]
# The key of an event's `details` under which a comparison lies.
COMPARISON = "comparison"


@dataclass(frozen=True, slots=True)
class HumanChoice:
    """`choice`: "a" where the person prefers what version_a said, "both" or "neither" where none is better.

    at   microseconds since 1970, UTC
    """

    version_a: str
    version_b: str
    choice: Choice
    person: str
    conversation_id: str
    simulated: bool
    at: int

    def for_version(self, version: str) -> int:
        """1 where `version` is preferred, -1 where the other one is, 0 where neither is."""
        if self.choice not in ("a", "b"):
            return 0
        preferred = self.version_a if self.choice == "a" else self.version_b
        return 1 if preferred == version else -1
