"""From a training set to batches: which row goes into which step, and rows side by side as tensors."""

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import TRAINING_SCHEMA
from bb3x_ray.storage import read_json, write_json

Row: TypeAlias = dict[str, Any]  # one row of TRAINING_SCHEMA
Size: TypeAlias = tuple[int, ...]  # tokens of each conversation in a row
_NEEDED = ("row_id", "source", "person", "input_ids", "imitate", "avoid")


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rows each optimizer step sees: steps[step][slot] is a row index of the training set.

    It knows nothing of workers: slot i goes to rank i % world, so one and two workers take the same steps.
    """

    n_rows: int
    rows_per_step: int
    epochs: int
    seed: int
    steps: tuple[tuple[int, ...], ...]

    def rows_of(self, step: int, rank: int, world: int) -> tuple[int, ...]:
        return self.steps[step][rank::world]

    def micro_batches(
        self, step: int, world: int, sizes: Sequence[Size], micro_tokens: int, padded: bool = False
    ) -> int:
        """How many times every rank calls forward in this step: as often as the one that needs it most.

        sizes    of the rows of the training set
        padded   as in `pack`
        """
        shares = [self.rows_of(step, rank, world) for rank in range(world)]
        return max(len(pack([sizes[row] for row in share], micro_tokens, padded)) for share in shares)


def plan_batches(n_rows: int, rows_per_step: int, epochs: int, seed: int) -> Plan:
    """Every row once per epoch, in an order that depends on (seed, epoch) only.

    An epoch's rows are spread evenly over its steps, so that none is left with a lone, noisy row.
    """
    steps: list[tuple[int, ...]] = []
    count = -(-n_rows // rows_per_step)
    for epoch in range(epochs):
        order = list(range(n_rows))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        cuts = [n_rows * step // count for step in range(count + 1)]
        steps += [tuple(order[a:b]) for a, b in itertools.pairwise(cuts)]
    return Plan(n_rows, rows_per_step, epochs, seed, tuple(steps))


def save_plan(plan: Plan, path: Path) -> None:
    write_json(path, asdict(plan))


def load_plan(path: Path) -> Plan:
    row = read_json(path)
    return Plan(**{**row, "steps": tuple(tuple(step) for step in row["steps"])})


def read_rows(path: Path) -> pa.Table:
    """The training set, a Parquet file or a folder of them. Raises UserError for another schema."""
    if not path.exists():
        raise UserError(f"{path}: there is no training set; run the round again from its curate step.")
    table = pq.read_table(path)
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: not a training set, it lacks the columns {', '.join(missing)}.")
    for name in set(TRAINING_SCHEMA.names) - set(table.column_names):
        table = table.append_column(name, pa.nulls(table.num_rows, TRAINING_SCHEMA.field(name).type))
    return table.select(TRAINING_SCHEMA.names).cast(TRAINING_SCHEMA)


def check_rows(table: pa.Table, where: Path, vocab_size: int | None, max_tokens: int | None) -> int:
    """The number of tokens that can be learned from; a label on a row's first token is not one of them.

    Raises UserError with the number of the row (from 0) when masks do not fit, contradict each other or
    the model cannot read the row, and when nothing in the whole set is labelled.
    """
    labelled = 0
    for number, row in enumerate(table.to_pylist()):
        ids, imitate, avoid = row["input_ids"], row["imitate"], row["avoid"]
        if not ids or len(imitate) != len(ids) or len(avoid) != len(ids):
            raise UserError(f"{where}, row {number}: masks must be as long as input_ids; curate again.")
        weight, starts = row.get("weight"), row.get("starts")
        if weight and (len(weight) != len(ids) or not all(0 <= w <= 1 for w in weight)):
            raise UserError(f"{where}, row {number}: weights must be as long as input_ids, and from 0 to 1.")
        if starts and not (starts[0] == 0 and sorted(set(starts)) == starts and starts[-1] < len(ids)):
            raise UserError(f"{where}, row {number}: starts must rise from 0 to within the row.")
        if any(a and b for a, b in zip(imitate, avoid, strict=True)):
            raise UserError(f"{where}, row {number}: a token is both to imitate and to avoid; curate again.")
        if vocab_size is not None and not 0 <= min(ids) <= max(ids) < vocab_size:
            raise UserError(
                f"{where}, row {number}: a token id is outside the model's vocabulary of {vocab_size}; "
                "curate with the tokenizer of the model that is trained."
            )
        longest = max(end - start for start, end in _conversations(row))
        if max_tokens is not None and longest > max_tokens:
            raise UserError(
                f"{where}, row {number}: {longest} tokens, but the model reads {max_tokens}; "
                "lower curate.max_tokens."
            )
        labelled += sum(imitate[1:]) + sum(avoid[1:])
    if not labelled:
        raise UserError(
            f"{where}: no token to learn from ({table.num_rows} rows); collect more talk, or widen "
            "reward.imitate_above and reward.avoid_below."
        )
    return labelled


@dataclass(frozen=True, slots=True)
class Batch:
    """Conversations packed into one row of L tokens, N of them labelled.

    input_ids, position_ids   [1, L] int64; positions begin at 0 in every conversation
    segments                  (start, end) of each conversation in the row
    at                        [N] int64: the position whose hidden state predicts a labelled token
    targets                   [N] int64: the labelled tokens
    imitate, avoid            [N] bool
    weights                   [N] float32
    rows                      [N] int64: which of the batch's training rows a labelled token is of
    paired                    [N] bool: whether that row holds a pair, two conversations to be compared
    row_seeds, places         [N] int64: hash of that row's id, place of the token in the row; the same
                              wherever and whenever the row is seen
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: tuple[tuple[int, int], ...]
    at: Tensor
    targets: Tensor
    imitate: Tensor
    avoid: Tensor
    weights: Tensor
    rows: Tensor
    paired: Tensor
    row_seeds: Tensor
    places: Tensor

    @property
    def labelled_tokens(self) -> int:
        return int(self.imitate.sum() + self.avoid.sum())

    @property
    def labelled_turns(self) -> int:
        """Runs of neighbouring tokens of one row under one mask."""
        if not self.labelled_tokens:
            return 0
        goes_on = (self.at.diff() == 1) & (self.imitate.diff() == 0) & (self.rows.diff() == 0)
        return 1 + int((~goes_on).sum())

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[1]

    def to(self, device: torch.device) -> "Batch":
        moved: dict[str, Any] = {}
        for name in Batch.__slots__:
            if isinstance(value := getattr(self, name), Tensor):
                moved[name] = value.to(device)
        return replace(self, **moved)


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Rows one after the other, labels moved onto the position that predicts.

    Nothing predicts a conversation's first token, so a label on it is dropped. Without any label there is one
    position that is neither imitated nor avoided, and without any row one padding token: every rank must call
    the model and its head.
    """
    rows = rows or [{"row_id": "", "input_ids": [pad_id], "imitate": [False], "avoid": [False]}]
    ids: list[int] = []
    positions: list[int] = []
    segments: list[tuple[int, int]] = []
    labelled: list[tuple[int, ...]] = []  # at, target, imitate, avoid, row, paired, seed, place
    weights: list[float] = []
    for number, row in enumerate(rows):
        begin, seed = len(ids), _seed_of(row["row_id"])
        conversations = _conversations(row)
        is_pair = len(conversations) == 2
        for start, end in conversations:
            segments.append((begin + start, begin + end))
            positions += range(end - start)
            for place in range(start + 1, end):
                imitate, avoid = row["imitate"][place], row["avoid"][place]
                if imitate and avoid:
                    raise ValueError("a token is both to imitate and to avoid")
                if imitate or avoid:
                    target = row["input_ids"][place]
                    label = (imitate, avoid, number, is_pair, seed, place)
                    labelled.append((begin + place - 1, target, *label))
                    weights.append(row["weight"][place] if row.get("weight") else 1.0)
        ids += row["input_ids"]
    columns = torch.tensor(labelled or [(0,) * 8], dtype=torch.int64).T
    at, targets, imitated, avoided, of_row, paired, seeds, places = columns
    return Batch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        segments=tuple(segments),
        at=at,
        targets=targets,
        imitate=imitated.bool(),
        avoid=avoided.bool(),
        weights=torch.tensor(weights or [1.0]),
        rows=of_row,
        paired=paired.bool(),
        row_seeds=seeds,
        places=places,
    )


def micro_batches(
    rows: Sequence[Row], count: int, micro_tokens: int, pad_id: int, padded: bool = False
) -> list[Batch]:
    """Exactly `count` batches of at most `micro_tokens` tokens; a row that is longer is one by itself.

    padded   as in `pack`
    """
    packed = pack([_size(len(row["input_ids"]), row.get("starts")) for row in rows], micro_tokens, padded)
    packed += [[] for _ in range(count - len(packed))]
    return [collate([rows[i] for i in members], pad_id) for members in packed]


def pack(sizes: Sequence[Size], capacity: int, padded: bool = False) -> list[list[int]]:
    """Indices by bin: the longest first, each into the first bin that has room for it.

    padded   the model gets each conversation of a bin in a row of its own, as long as the longest of them
    """
    length = [max(size) if padded else sum(size) for size in sizes]
    takes = [len(size) if padded else sum(size) for size in sizes]
    bins: list[list[int]] = []
    room: list[int] = []  # in tokens, or in conversations as long as the bin's first
    for index in sorted(range(len(sizes)), key=lambda i: (-length[i], i)):
        place = next((b for b, free in enumerate(room) if free >= takes[index]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity // length[index] if padded else capacity)
        bins[place].append(index)
        room[place] -= takes[index]
    return bins


def sizes_of(table: pa.Table) -> list[Size]:
    """The size of every row of a training set."""
    totals = pa.compute.list_value_length(table["input_ids"]).to_pylist()
    return [_size(total, starts) for total, starts in zip(totals, table["starts"].to_pylist(), strict=True)]


def _size(tokens: int, starts: list[int] | None) -> Size:
    return tuple(end - start for start, end in itertools.pairwise([*(starts or [0]), tokens]))


def _conversations(row: Row) -> list[tuple[int, int]]:
    """(start, end) of the conversations in a row: one, or two where a pair is compared."""
    starts = row.get("starts") or [0]
    return list(itertools.pairwise([*starts, len(row["input_ids"])]))


def _seed_of(row_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(row_id.encode(), digest_size=8).digest(), "big", signed=True)
