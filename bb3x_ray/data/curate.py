"""From scored conversations to a training set: one row a conversation, two masks, a reason for every drop."""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from bb3x_ray.config import CurateConfig
from bb3x_ray.data.windows import Window, cut_into_windows
from bb3x_ray.language.chat_template import Rendered, Turn, render, turns_of
from bb3x_ray.schemas.conversation import Conversation, Message
from bb3x_ray.schemas.learning import TRAINING_SCHEMA, CurationReport, Scored, ScoredTurn

Label = Literal["imitate", "avoid"]
# Why a bot turn teaches nothing; `too_many_to_avoid` and `cut_by_max_tokens` are found later.
Reason = Literal["not_ours", "taught_before", "empty", "not_scored", "score_error", "unsure"]


@dataclass(slots=True)
class _Row:
    """A conversation under way, and the bot turns of it that are labelled."""

    conversation: Conversation
    labels: dict[int, Label] = field(default_factory=dict)  # index of the message


@dataclass(frozen=True, slots=True)
class _Thresholds:
    imitate_above: float
    avoid_below: float


def curate(
    conversations: Sequence[Conversation],
    scored: Scored,
    tokenizer: PreTrainedTokenizerBase,
    human: Sequence[Sequence[str]],
    config: CurateConfig,
    system_prompt: str,
    imitate_above: float,
    avoid_below: float,
    seed: int,
    taught_before: frozenset[str] = frozenset(),
) -> tuple[pa.Table, CurationReport]:
    """(rows of TRAINING_SCHEMA, what was kept and why the rest was dropped). The same input, the same rows.

    human           conversations between people, as texts of alternating speakers: the second speaker's
                    are imitated; `config.human_rows` of them are drawn
    taught_before   ids of bot messages that an earlier round was given (see slices.taught_before)

    A bot turn to imitate ends with its end of turn only when the model stopped there by itself. Of a
    conversation longer than `config.max_tokens` there are several rows, overlapping windows that label
    each turn once. Turns to avoid are capped at `config.max_avoid_per_imitate` per turn to imitate, where
    a human row counts as one turn; the lowest scored ones are kept. With `config.weigh_by_trust`, what a
    person's own thumb labelled weighs as much as that person is trusted.

    Raises UserError when the model's chat template cannot render a conversation.
    """
    thresholds = _Thresholds(imitate_above, avoid_below)
    scores = {turn.message_id: turn for turn in scored.turns}
    human_rows = _human_rows(human, tokenizer, config, system_prompt, seed)
    rows: list[_Row] = []
    dropped: Counter[str] = Counter()
    for conversation in conversations:
        row = _Row(conversation)
        for index, message in enumerate(conversation.messages):
            if message.author.is_bot:
                label = _label(message, scores, thresholds, taught_before)
                if label == "imitate" or label == "avoid":
                    row.labels[index] = label
                else:
                    dropped[label] += 1
        rows.append(row)
    _cap_avoid(rows, scores, config.max_avoid_per_imitate, len(human_rows), seed, dropped)
    table: list[dict[str, Any]] = []
    for row in rows:
        windows, unfit = _windows(row, tokenizer, system_prompt, config.max_tokens)
        for index in unfit:
            del row.labels[index]
            dropped["cut_by_max_tokens"] += 1
        weights = _weights(row, scores, scored.trust) if config.weigh_by_trust else {}
        table += [_to_row(row, window, n, config.max_tokens, weights) for n, window in enumerate(windows)]
    table += human_rows
    return pa.Table.from_pylist(table, schema=TRAINING_SCHEMA), _report(rows, dropped, table, len(human_rows))


def _windows(
    row: _Row, tokenizer: PreTrainedTokenizerBase, system_prompt: str, max_tokens: int
) -> tuple[list[Window], list[int]]:
    messages = row.conversation.messages
    if not row.labels:
        return [], []

    def render_from(first: int) -> Rendered:
        rendered = render(tokenizer, turns_of(messages[first:], system_prompt))
        return Rendered(rendered.input_ids, rendered.spans[first - len(messages) :])

    return cut_into_windows(messages, sorted(row.labels), render_from, max_tokens)


def _label(
    message: Message,
    scores: dict[str, ScoredTurn],
    thresholds: _Thresholds,
    taught_before: frozenset[str],
) -> Label | Reason:
    """imitate, avoid, or the reason why this bot turn teaches nothing."""
    score = scores.get(message.message_id)
    if not message.author.can_be_trained_on:
        return "not_ours"
    if message.message_id in taught_before:
        return "taught_before"
    if not message.text.strip():
        return "empty"
    if score is None:
        return "not_scored"
    if score.error:
        return "score_error"
    if score.good >= thresholds.imitate_above:
        return "imitate"
    return "avoid" if score.good <= thresholds.avoid_below else "unsure"


def _weights(row: _Row, scores: dict[str, ScoredTurn], trust: dict[str, float]) -> dict[int, float]:
    """Message index -> trust, for turns that the person's own thumb labelled; the others weigh 1."""
    messages = row.conversation.messages
    thumbed = (i for i in row.labels if scores[messages[i].message_id].rating is not None)
    return {i: trust.get(row.conversation.person, 1.0) for i in thumbed}


def _cap_avoid(
    rows: list[_Row],
    scores: dict[str, ScoredTurn],
    per_imitate: float,
    human_rows: int,
    seed: int,
    dropped: Counter[str],
) -> None:
    """Take the label from the best of the turns to avoid, where there are too many."""
    imitated = sum(label == "imitate" for row in rows for label in row.labels.values()) + human_rows
    worst_first = sorted(
        (scores[row.conversation.messages[index].message_id].good, _tie(seed, row, index), at, index)
        for at, row in enumerate(rows)
        for index, label in row.labels.items()
        if label == "avoid"
    )
    for _, _, at, index in worst_first[int(per_imitate * imitated) :]:
        del rows[at].labels[index]
        dropped["too_many_to_avoid"] += 1


def _tie(seed: int, row: _Row, index: int) -> str:
    """Equal scores are common (a short reply is scored alike everywhere): order them by no property."""
    name = f"{seed}:{row.conversation.messages[index].message_id}"
    return hashlib.sha256(name.encode()).hexdigest()


def _to_row(
    row: _Row, window: Window, number: int, max_tokens: int, weights: dict[int, float]
) -> dict[str, Any]:
    masks = _Masks(window.rendered, max_tokens)
    for index in window.labelled:
        label = row.labels[index]
        stopped = row.conversation.messages[index].finish_reason == "stop"
        end_of_turn = label == "imitate" and stopped
        masks.mark(index - window.first, label, end_of_turn, weights.get(index, 1.0))
    name = row.conversation.conversation_id
    row_id = f"{name}#{number + 1}" if number else name
    return masks.row(row_id, row.conversation.source, row.conversation.person)


def _human_rows(
    human: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    config: CurateConfig,
    system_prompt: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Up to `config.human_rows` rows, drawn by `seed`, each with at least one reply to imitate."""
    order = random.Random(seed).sample(range(len(human)), len(human))
    rows: list[dict[str, Any]] = []
    for number in order:
        if len(rows) == config.human_rows:
            break
        row = talk_row(
            human[number], tokenizer, config.max_tokens, system_prompt, f"human-{number:05d}", "human"
        )
        rows += [row] if row else []
    return rows


def talk_row(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    system_prompt: str,
    row_id: str,
    source: str,
) -> dict[str, Any] | None:
    """A conversation whose every second text is to imitate; None where none of them fits."""
    system = [Turn("system", system_prompt)] if system_prompt.strip() else []
    talk = [Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    rendered = render(tokenizer, [*system, *talk])
    masks = _Masks(rendered, max_tokens)
    for index in range(len(system) + 1, len(rendered.spans), 2):
        masks.mark(index, "imitate", end_of_turn=True)
    return masks.row(row_id, source, "") if masks.any else None


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
    return pa.Table.from_pylist([row for row in rows if row], schema=TRAINING_SCHEMA)


class _Masks:
    """The two masks of a row, as long as its first `max_tokens` tokens."""

    def __init__(self, rendered: Rendered, max_tokens: int) -> None:
        self._rendered = rendered
        self._length = min(max_tokens, len(rendered.input_ids))
        self._masks: dict[Label, list[bool]] = {
            "imitate": [False] * self._length,
            "avoid": [False] * self._length,
        }
        self._weight = [1.0] * self._length

    def mark(self, index: int, label: Label, end_of_turn: bool, weight: float = 1.0) -> None:
        """Label the words of span `index`, unless they do not fit whole."""
        span = self._rendered.spans[index]
        if span.end > self._length or span.start == span.end:
            return
        mask = self._masks[label]
        mask[span.start : span.end] = [True] * (span.end - span.start)
        self._weight[span.start : span.end] = [weight] * (span.end - span.start)
        if end_of_turn and span.end_of_turn is not None and span.end_of_turn < self._length:
            mask[span.end_of_turn] = True
            self._weight[span.end_of_turn] = weight

    @property
    def any(self) -> bool:
        return any(any(mask) for mask in self._masks.values())

    def row(self, row_id: str, source: str, person: str) -> dict[str, Any]:
        """Cut behind the last labelled token: what follows would be computed for nothing."""
        labelled = [i for mask in self._masks.values() for i, marked in enumerate(mask) if marked]
        length = max(labelled, default=-1) + 1
        return {
            "row_id": row_id,
            "source": source,
            "person": person,
            "input_ids": self._rendered.input_ids[:length],
            "imitate": self._masks["imitate"][:length],
            "avoid": self._masks["avoid"][:length],
            "weight": None if min(self._weight, default=1.0) == 1 else self._weight[:length],
            "starts": None,
        }


def _report(
    rows: Sequence[_Row], dropped: Counter[str], table: Sequence[dict[str, Any]], human_rows: int
) -> CurationReport:
    kept = Counter(label for row in rows for label in row.labels.values())
    return CurationReport(
        seen=sum(message.author.is_bot for row in rows for message in row.conversation.messages),
        imitate=kept["imitate"],
        avoid=kept["avoid"],
        dropped=dict(sorted(dropped.items())),
        human_rows=human_rows,
        imitate_tokens=sum(sum(row["imitate"]) for row in table),
        avoid_tokens=sum(sum(row["avoid"]) for row in table),
    )
