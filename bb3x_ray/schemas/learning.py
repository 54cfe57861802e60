"""What a round makes of conversations: scored turns, a training set, a candidate, a verdict."""

from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

# One row a bot turn, and what the reward model thinks of it.
# person    of the conversation
# good      how good the turn is, 0 to 1: the reward model's probability with hindsight, moved by a trusted
#           thumb
# fresh     the same without hindsight and without the thumb: what a reply as this would be given today
# unsafe    how unsafe the reply is, 0 to 1; null where nobody was asked
# unsafe_heard   how unsafe the message is that it answers
# rating    the standing thumb of a trusted person (1, -1) or null
# trusted   False when the person of this conversation is distrusted: the thumb was left out
# error     why the turn could not be scored ("" when it could; then good and fresh are 0.5)
# reward_version   of the model that scored it
SCORED_SCHEMA = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("message_id", pa.string()),
        ("person", pa.string()),
        ("good", pa.float64()),
        ("fresh", pa.float64()),
        ("unsafe", pa.float64()),
        ("unsafe_heard", pa.float64()),
        ("rating", pa.int8()),
        ("trusted", pa.bool_()),
        ("error", pa.string()),
        ("reward_version", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Scored:
    """Result of the score step: turns of a slice (SCORED_SCHEMA), and trust per person.

    trust          an account of a group has its part of the group's
    unsafe_above   replies whose `unsafe` is above are never imitated; by which classifier: safety_version
    """

    turns: pa.Table
    trust: dict[str, float]
    distrusted: frozenset[str]
    reward_version: str
    metrics: dict[str, float]
    unsafe_above: float = 1.0
    safety_version: str = ""


# One row a conversation. Masks are as long as input_ids; a token under neither gets no loss (law 6).
# weight   how much each token's loss counts, 0 to 1; null: 1 everywhere
# starts   where conversations begin in the row; null: one, at 0. A pair to compare is two of them, whose
#          better reply is to imitate and whose worse one is to avoid.
TRAINING_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("source", pa.string()),
        ("person", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("imitate", pa.list_(pa.bool_())),
        ("avoid", pa.list_(pa.bool_())),
        ("weight", pa.list_(pa.float32())),
        ("starts", pa.list_(pa.int32())),
    ]
)

# What a candidate says to messages of its round, between two iterations. One row an answer.
# context_id      the logged reply in whose place it stands
# conversation_id, context   as the reward model reads them; prompt_ids: as the candidate does
# good, unsafe, error   as in SCORED_SCHEMA; null before they are scored
ANSWERS_SCHEMA = pa.schema(
    [
        ("answer_id", pa.string()),
        ("context_id", pa.string()),
        ("conversation_id", pa.string()),
        ("person", pa.string()),
        ("context", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("good", pa.float64()),
        ("unsafe", pa.float64()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class CurationReport:
    """How many bot turns were seen, kept under each mask, and dropped for which reason (law 5).

    corrections   what people said that a reply should have been, imitated in its place
    """

    seen: int
    imitate: int
    avoid: int
    dropped: dict[str, int]
    human_rows: int = 0
    imitate_tokens: int = 0
    avoid_tokens: int = 0
    corrections: int = 0
    corrections_dropped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seen != self.imitate + self.avoid + sum(self.dropped.values()):
            raise ValueError("curation does not add up: seen != imitate + avoid + dropped")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that was trained in this round, published, and not yet judged."""

    version: str
    parent: str
    round: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interval:
    """A share or a difference with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Gate:
    """One bound of one interval: `value` is that bound, `passed` whether it lies on the right side.

    false_reject_rate, false_pass_rate   how often the gate would reject, or pass, an unchanged model, as
    measured by v0001 against itself. The quality gate has the second, the others the first.
    """

    name: str
    passed: bool
    value: float
    limit: float
    reason: str
    false_reject_rate: float | None = None
    false_pass_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer about one candidate against one champion. Only this moves the champion alias.

    Law 8: a promotion needs a verdict for that very candidate that passed.
    """

    candidate: str
    champion: str
    passed: bool
    gates: tuple[Gate, ...]
    numbers: dict[str, Any]
    judge_version: str
    words: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Verdict":
        return cls(**{**row, "gates": tuple(Gate(**gate) for gate in row["gates"])})
