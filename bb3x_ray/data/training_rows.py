"""Rows of a training set: conversations as tokens, under two masks."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bb3x_ray.data.labels import Labels
from bb3x_ray.data.row_ids import window_id
from bb3x_ray.data.slices import Slice, conversations_of
from bb3x_ray.data.windows import Window, cut_into_windows
from bb3x_ray.language.chat_template import Rendered, Turn, known_words, render, turns_of
from bb3x_ray.schemas.conversation import Conversation, Message
from bb3x_ray.schemas.learning import TRAINING_SCHEMA

Label = Literal["imitate", "avoid"]
LABELS: tuple[Label, ...] = get_args(Label)
Marks = dict[int, tuple[Label, float]]  # place of the message -> label and weight
Words = dict[str, list[int]]
Row = dict[str, Any]  # a row of TRAINING_SCHEMA, its lists as arrays
_NAMES = ("row_id", "source", "person")
# Conversations whose words are tokenised at once.
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class RowsOfGroup:
    """`table` of TRAINING_SCHEMA, what it labels, and labelled turns that fit into no window.

    turns, tokens   under each mask
    """

    table: pa.Table
    turns: Counter[Label]
    tokens: Counter[Label]
    unfit: int


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Call it with a group of `slice_` for the rows of its labelled conversations. Pickles: any process may
    do any group.

    tokenizer   folder of the model whose tokens they are
    first       rows of the slice that lie before each group

    Raises UserError when the model's chat template cannot render a conversation.
    """

    slice_: Slice
    labels: Labels
    first: tuple[int, ...]
    tokenizer: Path
    system_prompt: str
    max_tokens: int

    def __call__(self, group: int) -> RowsOfGroup:
        return self.rows_of(self._labelled(group))

    def rows_of(self, labelled: Iterator[tuple[Conversation, Marks]]) -> RowsOfGroup:
        """The rows of conversations with marks on their messages."""
        tokenizer = _tokenizer(self.tokenizer)
        rows: list[Row] = []
        turns: Counter[Label] = Counter()
        unfit = 0
        while some := list(islice(labelled, _AT_ONCE)):
            known = known_words(
                tokenizer, (m.text for conversation, _ in some for m in conversation.messages)
            )
            for conversation, marks in some:
                windows, too_long = self._windows(tokenizer, conversation, marks, known)
                rows += [self._row(conversation, marks, window, n) for n, window in enumerate(windows)]
                turns.update(label for index, (label, _) in marks.items() if index not in too_long)
                unfit += len(too_long)
        tokens: Counter[Label] = Counter(
            {label: sum(int(row[label].sum()) for row in rows) for label in LABELS}
        )
        return RowsOfGroup(training_table(rows), turns, tokens, unfit)

    def _labelled(self, group: int) -> Iterator[tuple[Conversation, Marks]]:
        """The conversations of a group that teach anything."""
        table = self.slice_.table(group)
        labels = self.labels.of(self.first[group], len(table))
        marks: defaultdict[int, Marks] = defaultdict(dict)
        columns = (labels.conversation, labels.message, labels.imitate, labels.weight)
        for row, message, imitate, weight in zip(*(column.tolist() for column in columns), strict=True):
            marks[row][message] = ("imitate" if imitate else "avoid", weight)
        taught = table.take(pa.array(list(marks), pa.int64()))
        yield from zip(conversations_of(taught), marks.values(), strict=True)

    def _windows(
        self, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, marks: Marks, known: Words
    ) -> tuple[list[Window], list[int]]:
        messages = _until_answered(conversation, max(marks))

        def render_from(first: int) -> Rendered:
            rendered = render(tokenizer, turns_of(messages[first:], self.system_prompt), known)
            return Rendered(rendered.input_ids, rendered.spans[first - len(messages) :])

        return cut_into_windows(messages, sorted(marks), render_from, self.max_tokens)

    def _row(self, conversation: Conversation, marks: Marks, window: Window, number: int) -> Row:
        masks = _Masks(window.rendered, self.max_tokens)
        for index in window.labelled:
            label, weight = marks[index]
            stopped = conversation.messages[index].finish_reason == "stop"
            masks.mark(index - window.first, label, label == "imitate" and stopped, weight)
        row_id = window_id(conversation.conversation_id, number)
        return masks.row(row_id, conversation.source, conversation.person)


def _until_answered(conversation: Conversation, last: int) -> tuple[Message, ...]:
    """The messages up to the last labelled one, and those of its side right behind it, which belong to its
    turn; what comes then would be rendered for nothing."""
    later = range(last + 1, len(conversation.messages))
    end = next((i for i in later if conversation.messages[i].author.is_person), len(conversation.messages))
    return conversation.messages[:end]


@lru_cache(maxsize=2)
def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def talk_row(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    system_prompt: str,
    row_id: str,
    source: str,
) -> Row | None:
    """A conversation whose every second text is to imitate; None where none of them fits."""
    system = [Turn("system", system_prompt)] if system_prompt.strip() else []
    talk = [Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    rendered = render(tokenizer, [*system, *talk])
    masks = _Masks(rendered, max_tokens)
    for index in range(len(system) + 1, len(rendered.spans), 2):
        masks.mark(index, "imitate", end_of_turn=True)
    return masks.row(row_id, source, "") if masks.end else None


def talk_rows(
    talks: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    system_prompt: str,
    source: str,
    first: int = 0,
) -> pa.Table:
    """Rows of TRAINING_SCHEMA for conversations that need no score, numbered from `first` on."""
    rows = (
        talk_row(texts, tokenizer, max_tokens, system_prompt, f"{source}-{first + i:05d}", source)
        for i, texts in enumerate(talks)
    )
    return training_table([row for row in rows if row])


def labelled_tokens(rows: Sequence[Row]) -> Counter[Label]:
    """How many tokens are under each mask."""
    return Counter({label: sum(int(row[label].sum()) for row in rows) for label in LABELS})


def training_table(rows: Sequence[Row]) -> pa.Table:
    """Rows of `_Masks` as a table of TRAINING_SCHEMA."""
    offsets = np.cumsum([0, *(len(row["input_ids"]) for row in rows)]).astype(np.int32)
    weighted = [row["weight"] is not None for row in rows]
    weight_offsets = np.cumsum([0, *(n * w for n, w in zip(np.diff(offsets), weighted, strict=True))])

    def lists(name: str, of: Sequence[Row], at: np.ndarray, mask: list[bool] | None = None) -> pa.Array:
        type_ = TRAINING_SCHEMA.field(name).type
        values = np.concatenate([row[name] for row in of]) if of else np.zeros(0, np.int32)
        absent = None if mask is None or all(mask) else pa.array([not there for there in mask])
        typed = pa.array(values).cast(type_.value_type)
        return pa.ListArray.from_arrays(at.astype(np.int32), typed, mask=absent)

    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in _NAMES}
    columns |= {name: lists(name, rows, offsets) for name in ("input_ids", *LABELS)}
    with_weight = [row for row, there in zip(rows, weighted, strict=True) if there]
    columns["weight"] = lists("weight", with_weight, weight_offsets, weighted)
    columns["starts"] = pa.nulls(len(rows), TRAINING_SCHEMA.field("starts").type)
    return pa.table([columns[name] for name in TRAINING_SCHEMA.names], schema=TRAINING_SCHEMA)


class _Masks:
    """The two masks of a row, as long as its first `max_tokens` tokens.

    end   behind the last labelled token; 0 where none is
    """

    def __init__(self, rendered: Rendered, max_tokens: int) -> None:
        self._rendered = rendered
        self._length = min(max_tokens, len(rendered.input_ids))
        self._masks = {label: np.zeros(self._length, bool) for label in LABELS}
        self._weight = np.ones(self._length, np.float32)
        self.end = 0

    def mark(self, index: int, label: Label, end_of_turn: bool, weight: float = 1.0) -> None:
        """Label the words of span `index`, unless they do not fit whole."""
        span = self._rendered.spans[index]
        if span.end > self._length or span.start == span.end:
            return
        marked = [slice(span.start, span.end)]
        if end_of_turn and span.end_of_turn is not None and span.end_of_turn < self._length:
            marked.append(slice(span.end_of_turn, span.end_of_turn + 1))
        for tokens in marked:
            self._masks[label][tokens] = True
            self._weight[tokens] = weight
            self.end = max(self.end, tokens.stop)

    def row(self, row_id: str, source: str, person: str) -> Row:
        """Cut behind the last labelled token: what follows would be computed for nothing."""
        weight = self._weight[: self.end]
        return {
            "row_id": row_id,
            "source": source,
            "person": person,
            "input_ids": np.array(self._rendered.input_ids[: self.end], np.int32),
            **{label: mask[: self.end] for label, mask in self._masks.items()},
            "weight": None if (weight == 1).all() else weight,
        }
