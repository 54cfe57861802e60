"""What people said that a reply should have been: a response to imitate in its place."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.classify.words import unsafe_words
from bb3x_ray.data.slices import Slice
from bb3x_ray.data.training_rows import Marks
from bb3x_ray.schemas.conversation import Conversation, Message, external

SOURCE = "correction"
MAX_WORDS = 60  # longer than that, it is a text pasted in and no reply


def corrected(
    slice_: Slice, trusted: Callable[[str], bool], dropped: Counter[str]
) -> Iterator[tuple[Conversation, Marks]]:
    """For each correction in a slice the talk before the reply, then the correction, marked to be imitated.

    trusted   person -> whether their corrections teach
    dropped   is told how many do not, by reason: distrusted, too_long, unsafe
    """
    for conversation in slice_.conversations(_with_correction):
        for index, text in _said(conversation):
            if reason := _why_not(text, conversation.person, trusted):
                dropped[reason] += 1
                continue
            before = conversation.context_of(index)
            # A whole reply, as a person would end it.
            better = Message(conversation.messages[index].message_id, external(SOURCE), text, "stop")
            yield (
                replace(
                    conversation,
                    conversation_id=f"{SOURCE}-{better.message_id}",
                    messages=(*before, better),
                    source=SOURCE,
                ),
                {len(before): ("imitate", 1.0)},
            )


def _said(conversation: Conversation) -> Iterator[tuple[int, str]]:
    """(place of the reply, what it should have been), by the conversation's own person."""
    place = {message.message_id: index for index, message in enumerate(conversation.messages)}
    for feedback in conversation.feedback:
        text = feedback.correction.strip()
        if text and feedback.person == conversation.person and feedback.message_id in place:
            yield place[feedback.message_id], text


def _why_not(text: str, who: str, trusted: Callable[[str], bool]) -> str:
    if not trusted(who):
        return "distrusted"
    if len(text.split()) > MAX_WORDS:
        return "too_long"
    return "unsafe" if unsafe_words(text) else ""


def _with_correction(table: pa.Table) -> pa.Array:
    """[N] conversations with a correction."""
    lists = table["feedback"].combine_chunks()
    if lists.type.value_type.get_field_index("correction") < 0:  # a slice from before there were any
        return pa.array(np.zeros(len(table), dtype=bool))
    said = pc.fill_null(pc.not_equal(lists.flatten().field("correction"), ""), False)
    mask = np.zeros(len(table), dtype=bool)
    mask[pc.list_parent_indices(lists).to_numpy()[said.to_numpy(zero_copy_only=False)]] = True
    return pa.array(mask)
