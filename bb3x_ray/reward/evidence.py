"""All that is known of a reply, from whatever people did about it."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from bb3x_ray.reward.reaction import Reaction, reactions
from bb3x_ray.reward.signals import Signal, after_text, context_text
from bb3x_ray.schemas.conversation import Annotation, Conversation, Feedback

# Labels of the rubric: the one for a reply that is all right, and the one for what is unsafe.
GOOD, INAPPROPRIATE = "good", "inappropriate"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reply of a bot and what is known of it.

    thumb, reasons   of the conversation's own person; None and () without
    explained        they said what was wrong with it
    correction       what it should have said, "" without
    reactions        signs in what the person said next
    annotations      a label of the rubric for each rater who annotated it; their mean weight says how many
                     replies this one stands for (a sample is not drawn evenly)
    cut_off          the length limit broke the reply off
    """

    conversation_id: str
    message_id: str
    person: str
    context: str
    reply: str
    after: str | None
    thumb: int | None = None
    reasons: tuple[str, ...] = ()
    explained: bool = False
    correction: str = ""
    reactions: frozenset[Reaction] = frozenset()
    annotations: tuple[str, ...] = ()
    cut_off: bool = False
    annotations_weight: float = 1.0

    @property
    def is_rated(self) -> bool:
        """Somebody said what they think of it; otherwise there are reactions at most."""
        return self.thumb is not None or bool(self.annotations or self.correction)

    @property
    def share_good(self) -> float | None:
        """Of the annotations; None without any."""
        if not self.annotations:
            return None
        return sum(label == GOOD for label in self.annotations) / len(self.annotations)


def evidence_of(conversations: Iterable[Conversation]) -> list[Evidence]:
    """Of every reply of a model or an ingested bot about which something is known.

    Canned replies are left out: a thumb on one says whether the topic was sensitive, not whether the
    model is good. So are replies without text (no consent to store them). A conversation that went on
    may be given twice: the later one counts.
    """
    found: dict[str, Evidence] = {}
    for conversation in conversations:
        for evidence in _of_one(conversation):
            found.pop(evidence.message_id, None)
            if evidence.is_rated or evidence.reactions:
                found[evidence.message_id] = evidence
    return list(found.values())


def rated_in(conversation: Conversation) -> list[Evidence]:
    """Of the replies of one conversation that somebody rated."""
    about = {f.message_id for f in conversation.feedback} | {a.message_id for a in conversation.annotations}
    return [e for e in _of_one(conversation, about) if e.is_rated] if about else []


def thumbs(evidence: Iterable[Evidence]) -> list[Signal]:
    """The thumbs among the evidence, for trust."""
    return [
        Signal(
            e.conversation_id,
            e.message_id,
            e.person,
            e.context,
            e.reply,
            int(e.thumb > 0),
            e.cut_off,
            e.after,
        )
        for e in evidence
        if e.thumb is not None
    ]


def signals_of(conversations: Iterable[Conversation]) -> list[Signal]:
    """The thumbs in conversations; see `evidence_of`."""
    return thumbs(evidence_of(conversations))


def _of_one(conversation: Conversation, about: Collection[str] | None = None) -> Iterator[Evidence]:
    """`about`: message ids; None: of all replies."""
    standing = {f.message_id: f for f in conversation.feedback if f.person == conversation.person}
    annotated: dict[str, list[Annotation]] = {}
    for annotation in conversation.annotations:
        annotated.setdefault(annotation.message_id, []).append(annotation)
    for index, message in enumerate(conversation.messages):
        if not message.author.can_be_trained_on or not message.text:
            continue
        if about is not None and message.message_id not in about:
            continue
        context, after = context_text(conversation.context_of(index)), after_text(conversation, index)
        said = standing.get(message.message_id, _NOTHING)
        raters = annotated.get(message.message_id, [])
        yield Evidence(
            conversation.conversation_id,
            message.message_id,
            conversation.person,
            context,
            message.text,
            after,
            said.rating,
            said.reasons if said.rating == -1 else (),
            bool(said.comment) and said.rating == -1,
            said.correction,
            reactions(context.partition("\n")[0], after or ""),
            tuple(annotation.label for annotation in raters),
            message.finish_reason == "length",
            sum(annotation.weight for annotation in raters) / len(raters) if raters else 1.0,
        )


_NOTHING = Feedback("-", "-", "-", None)
