"""A conversation, its messages and the feedback on them.

Conversation("c1", messages=(
    Message("m1", person("ada"), "Do you like tea?"),
    Message("m2", model("v0001"), "I do, green tea most of all.", finish_reason="stop"),
), person="ada", source="served", consent_basis="store")
"""

from dataclasses import dataclass
from typing import Literal

AuthorKind = Literal["model", "external", "person", "canned", "unverified"]
AUTHOR_KINDS: tuple[AuthorKind, ...] = ("model", "external", "person", "canned", "unverified")

# What a person can say of a reply that they did not like (BlenderBot 3's reasons).
REASONS: tuple[str, ...] = ("off_topic", "nonsensical", "rude", "spam", "other")

# What an annotator can say of a message (BlenderBot 3x's rubric).
LABELS: tuple[str, ...] = (
    "good",
    "inappropriate",
    "off_topic",
    "nonsensical",
    "ignoring",
    "repeating",
    "other",
)


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote a message. There is no default (law 7).

    kind "model": `name` is a version such as v0001; "external": the name of a bot of an ingested
    source; "person": a pseudonym; "canned": a safety reply; "unverified": assistant text that a
    client sent as history, which is never trained on.
    """

    kind: AuthorKind
    name: str

    def __post_init__(self) -> None:
        if self.kind not in AUTHOR_KINDS:
            raise ValueError(f"author kind must be one of {', '.join(AUTHOR_KINDS)}")
        if not self.name:
            raise ValueError("an author needs a name")

    @property
    def is_person(self) -> bool:
        return self.kind == "person"

    @property
    def is_bot(self) -> bool:
        return self.kind != "person"

    @property
    def can_be_trained_on(self) -> bool:
        return self.kind in ("model", "external")


def model(version: str) -> Author:
    return Author("model", version)


def external(name: str) -> Author:
    return Author("external", name)


def person(pseudonym: str) -> Author:
    return Author("person", pseudonym)


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `finish_reason` is "stop" or "length" for replies that we generated, else None.

    is_feedback   the person answers "what went wrong?" here: feedback on an earlier reply (its comment says
                  the same), no conversation
    """

    message_id: str
    author: Author
    text: str
    finish_reason: str | None = None
    is_feedback: bool = False


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a person said of one bot message. `rating` is 1 (thumb up), -1 (down) or None (taken back).

    comment      the answer to "what went wrong?"
    correction   what the bot should have said instead
    """

    event_id: str
    message_id: str
    person: str
    rating: int | None
    reasons: tuple[str, ...] = ()
    comment: str = ""
    correction: str = ""

    def __post_init__(self) -> None:
        if self.rating not in (1, -1, None):
            raise ValueError("rating must be 1, -1 or null")


@dataclass(frozen=True, slots=True)
class Annotation:
    """What an annotator (`rater`, a pseudonym) said of one message: one of LABELS.

    weight   how many messages this one stands for, of a sample that was not drawn evenly; 1 on average
    """

    message_id: str
    rater: str
    label: str
    event_id: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"label must be one of {', '.join(LABELS)}")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, with the feedback that stands (the latest per message and person) and the
    annotations that do (the latest per message and rater)."""

    conversation_id: str
    person: str
    messages: tuple[Message, ...]
    source: str
    consent_basis: str
    simulated: bool = False
    feedback: tuple[Feedback, ...] = ()
    annotations: tuple[Annotation, ...] = ()

    def context_of(self, index: int) -> tuple[Message, ...]:
        """The messages before message `index`."""
        return self.messages[:index]
