"""What people said that a reply should have been: a response to imitate in its place.

A stranger typed it, so it passes more than a reply of ours: only on a reply that can teach, under a thumb
down, once, a few of each person, and never what the word list or the safety classifier calls unsafe.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.classify.pairs import Pair
from bb3x_ray.classify.words import unsafe_words
from bb3x_ray.data.slices import Slice, conversations_of
from bb3x_ray.data.training_rows import Marks
from bb3x_ray.schemas.conversation import Conversation, Message, external

SOURCE = "correction"
MAX_WORDS = 60  # longer than that, it is a text pasted in and no reply
MOST_OF_ONE = 5  # corrections of one person in a round


@dataclass(frozen=True, slots=True)
class Teachers:
    """Whose corrections teach, and how much.

    learns         person -> whether their talk may teach at all
    trust          what a correction of theirs weighs, 0 to 1; 1 for who is not there
    words          text -> the unsafe words in it
    unsafe         (context, reply) [N] -> P(unsafe) [N]; None: only words are looked at
    unsafe_above   what counts as unsafe
    """

    learns: Callable[[str], bool] = lambda person: True
    distrusted: frozenset[str] = frozenset()
    trust: Mapping[str, float] = field(default_factory=dict)
    words: Callable[[str], Sequence[str]] = unsafe_words
    unsafe: Callable[[Sequence[Pair]], np.ndarray] | None = None
    unsafe_above: float = 1.0


def corrected(
    slice_: Slice, teachers: Teachers, dropped: Counter[str]
) -> Iterator[tuple[Conversation, Marks]]:
    """For each correction in a slice the talk before the reply, then the correction, marked to be imitated.

    dropped   is told how many teach nothing, by reason: judges_part, distrusted, not_ours, not_disliked,
              taught_before, too_long, too_many_of_one, unsafe
    """
    given: Counter[str] = Counter()
    for table in slice_.tables():
        with_one = table.filter(_with_correction(table))
        taught = _taught_before(with_one)
        for conversation in conversations_of(with_one):
            for index, text, rating in _said(conversation):
                reason = _why_not(conversation, index, text, rating, taught, teachers, given)
                if reason:
                    dropped[reason] += 1
                else:
                    given[conversation.person] += 1
                    yield _in_its_place(conversation, index, text, teachers)


def _in_its_place(
    conversation: Conversation, index: int, text: str, teachers: Teachers
) -> tuple[Conversation, Marks]:
    before = conversation.context_of(index)
    # A whole reply, as a person would end it.
    better = Message(conversation.messages[index].message_id, external(SOURCE), text, "stop")
    name = f"{SOURCE}-{better.message_id}"
    talk = replace(conversation, conversation_id=name, messages=(*before, better), source=SOURCE)
    return talk, {len(before): ("imitate", min(1.0, teachers.trust.get(conversation.person, 1.0)))}


def _said(conversation: Conversation) -> Iterator[tuple[int, str, int | None]]:
    """(place of the reply, what it should have been, the thumb), by the conversation's own person."""
    place = {message.message_id: index for index, message in enumerate(conversation.messages)}
    for feedback in conversation.feedback:
        text = feedback.correction.strip()
        if text and feedback.person == conversation.person and feedback.message_id in place:
            yield place[feedback.message_id], text, feedback.rating


def _why_not(
    conversation: Conversation,
    index: int,
    text: str,
    rating: int | None,
    taught: frozenset[str],
    teachers: Teachers,
    given: Mapping[str, int],
) -> str:
    """The first reason why a correction teaches nothing; "" where it does."""
    who, reply = conversation.person, conversation.messages[index]
    reasons = {
        "judges_part": not teachers.learns(who),
        "distrusted": who in teachers.distrusted,
        "not_ours": not reply.author.can_be_trained_on,
        "not_disliked": rating != -1,
        "taught_before": reply.message_id in taught,
        "too_long": len(text.split()) > MAX_WORDS,
        "too_many_of_one": given.get(who, 0) >= MOST_OF_ONE,
    }
    first = next((reason for reason, is_so in reasons.items() if is_so), "")
    return first or ("unsafe" if _is_unsafe(conversation, index, text, teachers) else "")


def _is_unsafe(conversation: Conversation, index: int, text: str, teachers: Teachers) -> bool:
    if teachers.words(text):
        return True
    if teachers.unsafe is None:
        return False
    asked = next((m.text for m in reversed(conversation.context_of(index)) if m.author.is_person), "")
    return bool(teachers.unsafe([Pair(asked, text)])[0] > teachers.unsafe_above)


def _taught_before(table: pa.Table) -> frozenset[str]:
    messages = table["messages"].combine_chunks().flatten()
    return frozenset(messages.filter(messages.field("taught_before")).field("message_id").to_pylist())


def _with_correction(table: pa.Table) -> pa.Array:
    """[N] conversations with a correction."""
    lists = table["feedback"].combine_chunks()
    if lists.type.value_type.get_field_index("correction") < 0:  # a slice from before there were any
        return pa.array(np.zeros(len(table), dtype=bool))
    said = pc.fill_null(pc.not_equal(lists.flatten().field("correction"), ""), False)
    mask = np.zeros(len(table), dtype=bool)
    mask[pc.list_parent_indices(lists).to_numpy()[said.to_numpy(zero_copy_only=False)]] = True
    return pa.array(mask)
