"""Good replies only, and pairs with their gate."""

import pyarrow as pa
import torch

from bb3x_ray.schemas.learning import TRAINING_SCHEMA
from bb3x_ray.train.batches import Batch, collate
from bb3x_ray.train.cringe import cringe_loss
from bb3x_ray.train.objectives import Objective, only_imitate, pair_gates
from tests.train.test_batches import row


def pair(better: list[int], worse: list[int], row_id: str) -> dict[str, object]:
    """Two conversations in one row: a reply to imitate, and one to avoid, to the context [1, 2]."""
    n, m = len(better), len(worse)
    ids = [1, 2, *better, 1, 2, *worse]
    return row(ids, ".." + "x" * n + "." * (2 + m), "." * (n + 4) + "x" * m, row_id) | {"starts": [0, n + 2]}


def batch() -> Batch:
    return collate(
        [pair([3, 4], [5], "a"), pair([6], [7, 8, 9], "b"), row([1, 2, 3], "..x", row_id="human")], 0
    )


def test_the_gate_by_hand() -> None:
    log_p = torch.tensor([-1.0, -2.0, -4.0, -9.0, -1.0, -1.0, -1.0, -5.0])
    gates = pair_gates(log_p, batch(), margin=2.0, temperature=4.0)
    margins = torch.tensor([-3.0 + 4.0, -9.0 + 3.0])  # log p(better) − log p(worse)
    a, b = torch.sigmoid((2.0 - margins) / 4.0).tolist()
    torch.testing.assert_close(gates, torch.tensor([a, a, a, b, b, b, b, 1.0]))


def test_pairwise_is_cringe_weighed_by_the_gate_which_has_no_gradient() -> None:
    torch.manual_seed(0)
    b = batch()
    hidden = torch.randn(len(b.at), 6, requires_grad=True)
    head = torch.randn(11, 6, requires_grad=True)
    objective = Objective("pairwise_cringe", alpha=0.5, pair_margin=1.0, pair_temperature=2.0)
    sums = objective(hidden, head, b, 0)
    with torch.no_grad():
        log_p = (hidden @ head.T).log_softmax(1).gather(1, b.targets[:, None]).squeeze(1)
        gates = pair_gates(log_p, b, 1.0, 2.0)
    assert gates.min() < gates.max()
    full = cringe_loss(hidden @ head.T, b.targets, b.imitate, b.avoid, alpha=0.5, weights=gates)
    torch.testing.assert_close(sums.loss, full.loss)
    for ours, theirs in zip(
        *(torch.autograd.grad(x.loss, (hidden, head)) for x in (sums, full)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_conversation_with_good_and_bad_turns_is_no_pair() -> None:
    """Curation makes such rows: one turn to imitate, another to avoid."""
    mixed = row([1, 2, 3, 4, 5], ".x...", "...xx", "mixed")
    b = collate([mixed, pair([3], [4], "a")], 0)
    assert b.paired.tolist() == [False] * 3 + [True] * 2
    gates = pair_gates(torch.tensor([-1.0, -5.0, -5.0, -1.0, -5.0]), b, margin=0.0, temperature=1.0)
    g = torch.sigmoid(torch.tensor(-4.0)).item()
    torch.testing.assert_close(gates, torch.tensor([1.0, 1.0, 1.0, g, g]))


def test_a_pair_that_is_told_apart_teaches_less() -> None:
    b = collate([pair([3], [4], "a")], 0)
    gates = [pair_gates(torch.tensor([good, bad]), b, 0.0, 1.0)[0] for good, bad in ((-5, -1), (-1, -5))]
    assert gates[0] > 0.95 and gates[1] < 0.05


def test_good_replies_only() -> None:
    table = pa.Table.from_pylist([row([1, 2, 3], ".x.", "..x"), row([4, 5], "..", ".x")], TRAINING_SCHEMA)
    kept = only_imitate(table)
    assert kept["avoid"].to_pylist() == [[False] * 3, [False] * 2]
    assert kept.drop_columns("avoid") == table.drop_columns("avoid")
