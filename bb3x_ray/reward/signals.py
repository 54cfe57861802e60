"""From conversations to signals: bot messages with the thumb that stands on them."""

from collections.abc import Sequence
from dataclasses import dataclass

from bb3x_ray.schemas.conversation import Conversation, Message

TURNS = 16  # of the context


@dataclass(frozen=True, slots=True)
class Signal:
    """One thumb: `label` is 1 for up and 0 for down. `cut_off`: the length limit broke the reply off.

    after   what the person said next, "" for nothing any more (see `after_text`)
    reasons what the person gave as reasons for the thumb, mostly none
    """

    conversation_id: str
    message_id: str
    person: str
    context: str
    reply: str
    label: int
    cut_off: bool = False
    after: str | None = ""
    reasons: tuple[str, ...] = ()


def after_text(conversation: Conversation, index: int) -> str | None:
    """What the person said between message `index` and the bot's next one, as one line; "" for nothing.

    None in simulated talk: what simulated people say next was recorded elsewhere, and is no reaction. An
    answer to "what went wrong?" is feedback, which no reply ever gets unless a thumb asked for it: seen here,
    it would give the label away.
    """
    if conversation.simulated:
        return None
    said = []
    for message in conversation.messages[index + 1 :]:
        if message.author.is_bot:
            break
        if not message.is_feedback:
            said.append(message.text)
    return " ".join(" ".join(said).split())


def context_text(before: Sequence[Message]) -> str:
    """The last turns before a reply, *newest first*, one a line; "" at the start of a conversation.

    Newest first, because encoders cut long texts at their end, and what a reply answers matters most. So many
    turns, because a bot repeats itself. Neighbouring messages of one side are one turn; the first line is the
    person's, empty when the bot spoke last, so that lines tell whose they are.
    """
    turns: list[list[str]] = []
    side: bool | None = None
    for message in reversed(before):
        if message.author.is_person != side:
            if side is None and not message.author.is_person:
                turns.append([])
            if len(turns) == TURNS:
                break
            side = message.author.is_person
            turns.append([])
        turns[-1].append(message.text)
    return "\n".join(" ".join(" ".join(reversed(texts)).split()) for texts in turns)


def thumbs_of(conversation: Conversation) -> dict[str, int]:
    """message_id -> 1 or -1: the thumbs of the conversation's own person that stand."""
    latest = {f.message_id: f.rating for f in conversation.feedback if f.person == conversation.person}
    return {message_id: rating for message_id, rating in latest.items() if rating is not None}
