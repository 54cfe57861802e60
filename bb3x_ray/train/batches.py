"""From a training set to batches: which row goes into which step, and rows side by side as tensors."""

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import TRAINING_SCHEMA
from bb3x_ray.storage import read_json, write_json

Row: TypeAlias = dict[str, Any]  # one row of TRAINING_SCHEMA


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

    def micro_batches(self, step: int, world: int, micro_rows: int) -> int:
        """How many times every rank calls forward in this step: as often as the one with most rows."""
        most = -(-len(self.steps[step]) // world)
        return -(-most // micro_rows)


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
    missing = [name for name in TRAINING_SCHEMA.names if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: not a training set, it lacks the columns {', '.join(missing)}.")
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
        if any(a and b for a, b in zip(imitate, avoid, strict=True)):
            raise UserError(f"{where}, row {number}: a token is both to imitate and to avoid; curate again.")
        if vocab_size is not None and not 0 <= min(ids) <= max(ids) < vocab_size:
            raise UserError(
                f"{where}, row {number}: a token id is outside the model's vocabulary of {vocab_size}; "
                "curate with the tokenizer of the model that is trained."
            )
        if max_tokens is not None and len(ids) > max_tokens:
            raise UserError(
                f"{where}, row {number}: {len(ids)} tokens, but the model reads {max_tokens}; "
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
    """B rows of at most L tokens, padded on the right.

    input_ids, attention_mask   [B, L] int64
    targets                     [B, L] int64: the token that position t predicts, input_ids[:, t + 1]
    imitate, avoid              [B, L] bool, of the target: True at t says "token t + 1 is labelled so"
    row_seeds                   [B] int64, from row_id: the same wherever and whenever the row is seen
    """

    input_ids: Tensor
    attention_mask: Tensor
    targets: Tensor
    imitate: Tensor
    avoid: Tensor
    row_seeds: Tensor

    @property
    def labelled_tokens(self) -> int:
        return int(self.imitate.sum() + self.avoid.sum())

    @property
    def tokens(self) -> int:
        return int(self.attention_mask.sum())

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{name: getattr(self, name).to(device) for name in Batch.__slots__})


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Rows side by side, masks moved onto the position that predicts.

    Nothing predicts a row's first token, so a label on it is dropped. With no rows at all: one padding
    token without a label, because every rank must call the model.
    """
    rows = rows or [{"row_id": "", "input_ids": [pad_id], "imitate": [False], "avoid": [False]}]
    shape = (len(rows), max(len(row["input_ids"]) for row in rows))
    ids = torch.full(shape, pad_id, dtype=torch.int64)
    attention = torch.zeros(shape, dtype=torch.int64)
    imitate, avoid = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[i, :length] = torch.tensor(row["input_ids"])
        attention[i, :length] = 1
        imitate[i, : length - 1] = torch.tensor(row["imitate"][1:], dtype=torch.bool)
        avoid[i, : length - 1] = torch.tensor(row["avoid"][1:], dtype=torch.bool)
    if bool((imitate & avoid).any()):
        raise ValueError("a token is both to imitate and to avoid")
    seeds = torch.tensor([_seed_of(row["row_id"]) for row in rows], dtype=torch.int64)
    return Batch(ids, attention, ids.roll(-1, dims=1), imitate, avoid, seeds)


def micro_batches(rows: Sequence[Row], count: int, micro_rows: int, pad_id: int) -> list[Batch]:
    """Exactly `count` batches of at most `micro_rows` rows, longest first: neighbours need little padding."""
    ordered = sorted(rows, key=lambda row: (-len(row["input_ids"]), row["row_id"]))
    return [collate(ordered[i * micro_rows : (i + 1) * micro_rows], pad_id) for i in range(count)]


def _seed_of(row_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(row_id.encode(), digest_size=8).digest(), "big", signed=True)
