"""From a scored slice to a training set: one row a conversation, two masks, a reason for every drop."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bb3x_ray.classify.pairs import Pair
from bb3x_ray.classify.words import unsafe_words
from bb3x_ray.config import CurateConfig
from bb3x_ray.data.corrections import Teachers, corrected
from bb3x_ray.data.labels import UNFIT, Thresholds, label_turns
from bb3x_ray.data.slices import Slice
from bb3x_ray.data.training_rows import (
    Label,
    Row,
    RowsOfGroup,
    TrainingRows,
    labelled_tokens,
    talk_row,
    training_table,
)
from bb3x_ray.schemas.learning import CurationReport, Scored

# How groups become rows, in order: one after the other here, or `on_ray.in_order.on_all_cores`.
Each = Callable[[TrainingRows, int], Iterable[RowsOfGroup]]


def one_by_one(rows_of: TrainingRows, groups: int) -> Iterator[RowsOfGroup]:
    return map(rows_of, range(groups))


def curate(
    slice_: Slice,
    scored: Scored,
    tokenizer: Path,
    human: Sequence[Sequence[str]],
    config: CurateConfig,
    system_prompt: str,
    imitate_above: float,
    avoid_below: float,
    seed: int,
    write: Callable[[pa.Table], object],
    learns: Callable[[str], bool] = lambda person: True,
    each: Each = one_by_one,
    unsafe: Callable[[Sequence[Pair]], np.ndarray] | None = None,
    words: Callable[[str], Sequence[str]] = unsafe_words,
) -> CurationReport:
    """Hand the rows of TRAINING_SCHEMA to `write`, a table at a time; returns what was kept and why the rest
    was dropped. The same input, the same rows.

    tokenizer   folder of the model whose chat template and tokens the rows are made with
    human       conversations between people, as texts of alternating speakers: the second speaker's
                are imitated; `config.human_rows` of them are drawn
    learns      see `label_turns`
    unsafe, words   asked about corrections, see `corrections.Teachers`

    A bot turn to imitate ends with its end of turn only when the model stopped there by itself. Of a
    conversation longer than `config.max_tokens` there are several rows, overlapping windows that label
    each turn once. What a trusted person says that a reply should have been is imitated in its place, in a
    row of the source "correction". Turns to avoid are capped at `config.max_avoid_per_imitate` per turn to
    imitate, where a human row, or a correction, counts as one turn; the lowest scored ones are kept. With
    `config.weigh_by_trust`, what a person's own thumb labelled weighs as much as that person is trusted.

    In memory are the scores, and a group of conversations for each process that renders them. Raises
    UserError when the model's chat template cannot render a conversation.
    """
    human_rows = _human_rows(human, AutoTokenizer.from_pretrained(tokenizer), config, system_prompt, seed)
    not_taught: Counter[str] = Counter()
    teachers = Teachers(learns, scored.distrusted, scored.trust, words, unsafe, scored.unsafe_above)
    better = list(corrected(slice_, teachers, not_taught))
    more = len(human_rows) + len(better)
    thresholds = Thresholds(imitate_above, avoid_below, config.max_avoid_per_imitate, more)
    labelled = label_turns(slice_, scored, thresholds, seed, config.weigh_by_trust, learns)
    sizes = [len(table) for table in slice_.tables(["conversation_id"])]
    first = tuple(accumulate(sizes, initial=0))[:-1]
    rows_of = TrainingRows(slice_, labelled.labels, first, tokenizer, system_prompt, config.max_tokens)
    turns: Counter[Label] = Counter()
    tokens: Counter[Label] = Counter()
    dropped = labelled.dropped
    for made in each(rows_of, len(sizes)):
        turns.update(made.turns)
        tokens.update(made.tokens)
        dropped += Counter({UNFIT: made.unfit})
        write(made.table)
    made = rows_of.rows_of(iter(better))
    not_taught += Counter({UNFIT: made.unfit})
    tokens.update(made.tokens)
    if better:
        write(made.table)
    write(training_table(human_rows))
    tokens.update(labelled_tokens(human_rows))
    return CurationReport(
        seen=labelled.seen,
        imitate=turns["imitate"],
        avoid=turns["avoid"],
        dropped=dict(sorted(dropped.items())),
        human_rows=len(human_rows),
        imitate_tokens=tokens["imitate"],
        avoid_tokens=tokens["avoid"],
        corrections=made.turns["imitate"],
        corrections_dropped=dict(sorted(not_taught.items())),
    )


def _human_rows(
    human: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    config: CurateConfig,
    system_prompt: str,
    seed: int,
) -> list[Row]:
    """Up to `config.human_rows` rows, drawn by `seed`, each with at least one reply to imitate."""
    order = random.Random(seed).sample(range(len(human)), len(human))
    rows: list[Row] = []
    for number in order:
        if len(rows) == config.human_rows:
            break
        row = talk_row(
            human[number], tokenizer, config.max_tokens, system_prompt, f"human-{number:05d}", "human"
        )
        rows += [row] if row else []
    return rows
