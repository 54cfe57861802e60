"""Which bot turns of a slice teach, and why the others do not: columns joined with scores, no texts kept."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.slices import Slice
from bb3x_ray.schemas.learning import Scored

# Why a bot turn teaches nothing, in the order in which they are looked at.
Reason = Literal[
    "judges_part", "not_ours", "taught_before", "empty", "not_scored", "score_error", "unsure", "unsafe"
]
REASONS: tuple[Reason, ...] = get_args(Reason)
TOO_MANY, UNFIT = "too_many_to_avoid", "cut_by_max_tokens"  # found later
_TRAINED_ON = pa.array(["model", "external"])
_IMITATE, _AVOID = 100, 101  # beside the numbers of REASONS


@dataclass(frozen=True, slots=True)
class Thresholds:
    """`imitate_above` and `avoid_below` are scores; `avoid_per_imitate` caps turns to avoid by those to
    imitate, of which there are `more` elsewhere."""

    imitate_above: float
    avoid_below: float
    avoid_per_imitate: float
    more: int = 0


@dataclass(frozen=True, slots=True)
class Labels:
    """The bot turns that teach, in the order of the slice.

    conversation   [N] row of the slice, over all groups
    message        [N] place in its conversation
    imitate        [N] to imitate; else to avoid
    weight         [N] 0 to 1
    """

    conversation: np.ndarray
    message: np.ndarray
    imitate: np.ndarray
    weight: np.ndarray

    def of(self, first: int, count: int) -> "Labels":
        """Of `count` conversations from `first` on, counted from there."""
        begin, end = np.searchsorted(self.conversation, [first, first + count])
        here = slice(int(begin), int(end))
        return Labels(
            self.conversation[here] - first, self.message[here], self.imitate[here], self.weight[here]
        )


@dataclass(frozen=True, slots=True)
class Labelled:
    """`seen` bot turns: each has a label or is counted in `dropped`."""

    labels: Labels
    seen: int
    dropped: Counter[str]


def label_turns(
    slice_: Slice,
    scored: Scored,
    thresholds: Thresholds,
    seed: int,
    weigh_by_trust: bool = False,
    learns: Callable[[str], bool] = lambda person: True,
) -> Labelled:
    """The labels of a slice, by its scores.

    learns           person -> whether what they were told may teach
    weigh_by_trust   what a person's own thumb labelled weighs as much as that person is trusted

    Of too many to avoid the lowest scored are kept; chance decides among equals, by `seed`.
    """
    turns = _turns(slice_, learns)
    outcome, good, place = _outcomes(turns, scored, thresholds)
    ids = turns["message_id"]
    capped = _too_many(outcome, good, ids, thresholds, seed)
    kept = np.flatnonzero((outcome >= _IMITATE) & ~capped)
    counts = np.bincount(outcome, minlength=len(REASONS))[: len(REASONS)].tolist()
    dropped: Counter[str] = Counter(
        {reason: count for reason, count in zip(REASONS, counts, strict=True) if count}
    )
    if capped.any():
        dropped[TOO_MANY] = int(capped.sum())
    labels = Labels(
        turns["conversation"].to_numpy()[kept],
        turns["message"].to_numpy()[kept],
        outcome[kept] == _IMITATE,
        _weights(scored, place[kept]) if weigh_by_trust else np.ones(len(kept), np.float32),
    )
    return Labelled(labels, len(turns), dropped)


def _turns(slice_: Slice, learns: Callable[[str], bool]) -> pa.Table:
    """One row a bot turn: conversation, message, message_id, and the first reason (-1: none) that needs no
    score."""
    fields = ("message_id", "author_kind", "text", "taught_before")
    columns = ["person", *(f"messages.list.element.{name}" for name in fields)]
    first, pieces = 0, [_no_turns()]
    for table in slice_.tables(columns):
        pieces.append(_turns_of(table, first, learns))
        first += len(table)
    return pa.concat_tables(pieces)


def _turns_of(table: pa.Table, first: int, learns: Callable[[str], bool]) -> pa.Table:
    lists = table["messages"].combine_chunks()
    messages, conversation = lists.flatten(), pc.list_parent_indices(lists).to_numpy()
    starts = (lists.offsets.to_numpy() - lists.offsets[0].as_py())[:-1]
    kind = messages.field("author_kind")
    bot = pc.not_equal(kind, "person").to_numpy(zero_copy_only=False)
    persons = table["person"].combine_chunks().dictionary_encode()
    left_out = np.array([not learns(person) for person in persons.dictionary.to_pylist()], bool)
    blank = pc.equal(pc.utf8_trim_whitespace(messages.field("text")), "")
    found = np.full(len(messages), -1, np.int8)
    masks: dict[Reason, np.ndarray] = {
        "judges_part": left_out[persons.indices.to_numpy()][conversation] if len(left_out) else bot,
        "not_ours": ~pc.is_in(kind, _TRAINED_ON).to_numpy(zero_copy_only=False),
        "taught_before": messages.field("taught_before").to_numpy(zero_copy_only=False),
        "empty": blank.to_numpy(zero_copy_only=False),
    }
    for reason, mask in masks.items():
        found[mask & (found < 0)] = REASONS.index(reason)
    place = np.arange(len(messages)) - starts[conversation] if len(messages) else conversation
    chosen = np.flatnonzero(bot)
    return pa.table(
        {
            "conversation": (conversation[chosen] + first).astype(np.int32),
            "message": place[chosen].astype(np.int32),
            "message_id": messages.field("message_id").take(pa.array(chosen)),
            "reason": found[chosen],
        },
        schema=_no_turns().schema,
    )


def _no_turns() -> pa.Table:
    numbers = [(name, pa.int32()) for name in ("conversation", "message")]
    return pa.schema([*numbers, ("message_id", pa.string()), ("reason", pa.int8())]).empty_table()


def _outcomes(
    turns: pa.Table, scored: Scored, thresholds: Thresholds
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([N] place in REASONS, _IMITATE or _AVOID; [N] score, .5 without; [N] row of `scored`, -1 without)"""
    known = scored.turns["message_id"].combine_chunks()
    place = pc.fill_null(pc.index_in(turns["message_id"], known), -1).to_numpy()
    outcome = turns["reason"].to_numpy().astype(np.int64)
    good = np.full(len(turns), 0.5)
    has = place >= 0
    good[has] = scored.turns["good"].to_numpy()[place[has]]
    failed = np.zeros(len(turns), bool)
    failed[has] = pc.not_equal(scored.turns["error"], "").to_numpy()[place[has]]
    labels = np.where(
        good >= thresholds.imitate_above,
        _IMITATE,
        np.where(good <= thresholds.avoid_below, _AVOID, REASONS.index("unsure")),
    )
    unsafe = np.zeros(len(turns))
    unsafe[has] = pc.fill_null(scored.turns["unsafe"], 0.0).to_numpy()[place[has]]
    unwanted = (labels == _IMITATE) & (unsafe > scored.unsafe_above)
    labels = np.where(unwanted, REASONS.index("unsafe"), labels)
    labels = np.where(failed, REASONS.index("score_error"), labels)
    labels = np.where(has, labels, REASONS.index("not_scored"))
    return np.where(outcome >= 0, outcome, labels), good, place


def _too_many(
    outcome: np.ndarray, good: np.ndarray, ids: pa.ChunkedArray, thresholds: Thresholds, seed: int
) -> np.ndarray:
    """[N] turns to avoid beyond the cap: the best of them."""
    capped = np.zeros(len(outcome), bool)
    allowed = int(thresholds.avoid_per_imitate * (int((outcome == _IMITATE).sum()) + thresholds.more))
    bad = np.flatnonzero(outcome == _AVOID)
    if len(bad) > allowed:
        ties = np.fromiter(_ties(seed, ids.take(pa.array(bad)).to_pylist()), np.uint64, len(bad))
        capped[bad[np.lexsort((ties, good[bad]))[allowed:]]] = True
    return capped


def _ties(seed: int, ids: Iterable[str]) -> Iterator[int]:
    """Equal scores are common (a short reply is scored alike everywhere): order them by no property."""
    for one in ids:
        yield int.from_bytes(hashlib.sha256(f"{seed}:{one}".encode()).digest()[:8], "big")


def _weights(scored: Scored, place: np.ndarray) -> np.ndarray:
    """[N] trust of the person whose own thumb labelled the turn; 1 where none did."""
    turns = scored.turns.select(["person", "rating"]).take(pa.array(place))
    persons = turns["person"].combine_chunks().dictionary_encode()
    trust = np.array([scored.trust.get(person, 1.0) for person in persons.dictionary.to_pylist()], np.float32)
    weights = np.ones(len(place), np.float32)
    thumbed = pc.is_valid(turns["rating"]).to_numpy()
    weights[thumbed] = trust[persons.indices.to_numpy()[thumbed]]
    return weights
