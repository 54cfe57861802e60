"""The two layouts of the same labelled turns, and samples of them that look like the whole file.

rows    one a conversation (overlapping windows of longer ones): every turn labelled where it stands
pairs   one a labelled turn: context and reply, the reference's layout
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from benchmarks.train.conversations import LabelledTurn, Talk

Row: TypeAlias = dict[str, Any]  # a row of TRAINING_SCHEMA with "turns", how many are labelled
Pair: TypeAlias = dict[str, Any]  # row_id, prompt_ids, completion_ids, good
T = TypeVar("T")


def rows_of(talk: Talk, window: int) -> list[Row]:
    """Each turn is labelled in exactly one row; a later window begins with context without labels."""
    rows, todo, start = [], list(talk.turns), 0
    while todo:
        end = min(start + window, len(talk.input_ids))
        inside = [turn for turn in todo if turn.end <= end]
        if inside:
            rows.append(_row(talk, start, end, inside))
        todo = todo[len(inside) :]
        if todo:  # half a window of context before the next turn
            start = max(0, todo[0].start - window // 2)
    return rows


def _row(talk: Talk, start: int, end: int, turns: Sequence[LabelledTurn]) -> Row:
    masks = {True: [False] * (end - start), False: [False] * (end - start)}
    for turn in turns:
        masks[turn.good][turn.start - start : turn.end - start] = [True] * (turn.end - turn.start)
    return {
        "row_id": f"{talk.talk_id}/{start}",
        "input_ids": talk.input_ids[start:end],
        "imitate": masks[True],
        "avoid": masks[False],
        "turns": len(turns),
    }


def pairs_of(talk: Talk, window: int) -> list[Pair]:
    """Each turn with its whole context, as far back as the window reaches."""
    return [
        {
            "row_id": f"{talk.talk_id}/{turn.start}",
            "prompt_ids": talk.input_ids[max(0, turn.end - window) : turn.start],
            "completion_ids": talk.input_ids[turn.start : turn.end],
            "good": turn.good,
        }
        for turn in talk.turns
    ]


def length_of(item: Row | Pair) -> int:
    """Tokens of a row or a pair."""
    if "input_ids" in item:
        return len(item["input_ids"])
    return len(item["prompt_ids"]) + len(item["completion_ids"])


def turns_in(item: Row | Pair) -> int:
    """Labelled turns of a row; a pair is one."""
    return int(item.get("turns", 1))


def tokens_a_turn(groups: Iterable[Iterable[Row | Pair]]) -> float:
    items = [item for group in groups for item in group]
    return sum(map(length_of, items)) / sum(map(turns_in, items))


def spread(items: Sequence[T], size: Callable[[T], int], budget: int, seed: int) -> list[T]:
    """As many items as have `budget` tokens in all, in random order.

    Items are taken at equal steps through their order by size, so that a small sample has short and long
    ones as the whole has. At least one, at most all.
    """
    ordered = sorted(items, key=size)
    mean = sum(map(size, ordered)) / len(ordered)
    count = min(len(ordered), max(1, round(budget / mean)))
    chosen = [ordered[int((i + 0.5) * len(ordered) / count)] for i in range(count)]
    random.Random(seed).shuffle(chosen)
    return chosen


def steps_of(items: Sequence[T], per_step: int) -> list[list[T]]:
    """Steps of about equal size, at most `per_step` items each."""
    count = -(-len(items) // per_step)
    return [list(items[len(items) * i // count : len(items) * (i + 1) // count]) for i in range(count)]
