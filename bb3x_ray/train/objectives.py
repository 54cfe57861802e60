"""What a labelled token's loss is: CRINGE, good replies only, or pairs (train.objective).

cringe            CE on tokens to imitate, contrast on tokens to avoid
sft               CE on tokens to imitate; nothing is learned from what is to be avoided
pairwise_cringe   g · [CE(y_w) + α · contrast(y_l)] for a better and a worse reply to one context
                  (arXiv 2312.16682): g = σ((b − M) / τ), M = log p(y_w|x) − log p(y_l|x), so that a pair
                  that the model tells apart already teaches little; g has no gradient of its own
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import torch
from torch import Tensor

from bb3x_ray.train.batches import Batch
from bb3x_ray.train.cringe import CringeSums
from bb3x_ray.train.linear_cringe import linear_cringe_loss, linear_log_probs
from bb3x_ray.train.rivals import token_seeds

Name = Literal["cringe", "sft", "pairwise_cringe"]


@dataclass(frozen=True, slots=True)
class Objective:
    """Call it with the hidden states that predict a batch's labelled tokens.

    pair_margin, pair_temperature   b and τ of pairwise CRINGE, in nats
    """

    name: Name = "cringe"
    alpha: float = 1.0
    k: int = 1
    detach_positives: bool = False
    contrast_positives: bool = False
    pair_margin: float = 0.0
    pair_temperature: float = 10.0
    seed: int = 0

    def __call__(
        self,
        hidden: Tensor,
        head_weight: Tensor,
        batch: Batch,
        step: int,
        soft_cap: float | None = None,
        scale: float = 1.0,
    ) -> CringeSums:
        """hidden [N, D], head_weight [V, D]; see `linear_cringe_loss` for the rest."""
        weights = batch.weights
        if self.name == "pairwise_cringe":
            log_p = linear_log_probs(hidden, head_weight, batch.targets, soft_cap=soft_cap, scale=scale)
            weights = weights * pair_gates(log_p, batch, self.pair_margin, self.pair_temperature)
        return linear_cringe_loss(
            hidden,
            head_weight,
            batch.targets,
            batch.imitate,
            batch.avoid,
            alpha=self.alpha,
            k=self.k,
            detach_positives=self.detach_positives,
            contrast_positives=self.contrast_positives,
            weights=weights,
            seeds=token_seeds(batch.row_seeds + self.seed, batch.places, step),
            soft_cap=soft_cap,
            scale=scale,
        )


def pair_gates(log_p: Tensor, batch: Batch, margin: float, temperature: float) -> Tensor:
    """g of each labelled token's row, [N]; 1 in rows that hold no pair.

    A conversation with turns of both kinds is none: they are replies to different contexts.

    log_p   [N] log-probabilities of the labelled tokens
    """
    count = int(batch.rows.max()) + 1
    better, worse = (_per_row(log_p, batch.rows, mask, count) for mask in (batch.imitate, batch.avoid))
    ones = torch.ones_like(log_p)
    has_both = torch.stack(
        [_per_row(ones, batch.rows, mask, count) > 0 for mask in (batch.imitate, batch.avoid)]
    ).all(0)
    gates = torch.sigmoid((margin - (better - worse)) / temperature)
    return torch.where(batch.paired & has_both[batch.rows], gates[batch.rows], 1.0)


def _per_row(values: Tensor, rows: Tensor, mask: Tensor, count: int) -> Tensor:
    return values.new_zeros(count).index_add_(0, rows[mask], values[mask])


def only_imitate(table: pa.Table) -> pa.Table:
    """The rows of a training set without anything to avoid: what `sft` learns from."""
    nothing = [[False] * len(mask) for mask in table["avoid"].to_pylist()]
    at = table.column_names.index("avoid")
    return table.set_column(at, "avoid", pa.array(nothing, table.schema.field("avoid").type))
