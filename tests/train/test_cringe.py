"""The loss against a naive reference, by hand, and what must not change it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train.cringe import COUNTS, cringe_loss, summarize
from bb3x_ray.train.rivals import token_seeds


def naive_loss(
    logits: Tensor,
    targets: Tensor,
    imitate: Tensor,
    avoid: Tensor,
    alpha: float,
    rival: list[int],
    *,
    detach_positives: bool = False,
    contrast_positives: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Token by token, as the definition reads; `rival[i]` is the index of s* for token i.

    In the contrast of a token to imitate it is s* that is the negative.
    """
    loss = logits.sum() * 0
    for i, target in enumerate(targets.tolist()):
        weight = 1.0 if weights is None else weights[i]
        own, other = logits[i, target].exp(), logits[i, rival[i]].exp()
        other = other.detach() if detach_positives else other
        if imitate[i]:
            loss = loss - weight * torch.log(own / logits[i].exp().sum())
            if contrast_positives:
                loss = loss - weight * alpha * torch.log(own / (own + other))
        if avoid[i]:
            loss = loss - weight * alpha * torch.log(other / (other + own))
    return loss


def best_others(logits: Tensor, targets: Tensor, k: int) -> list[list[int]]:
    """The k best vocabulary entries that are not the target, for each token."""
    ranked = logits.argsort(dim=1, descending=True).tolist()
    return [
        [entry for entry in row if entry != target][:k]
        for row, target in zip(ranked, targets.tolist(), strict=True)
    ]


def example(n: int, v: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, v, generator=made, dtype=torch.float64) * 3).requires_grad_()
    kind = torch.randint(0, 3, (n,), generator=made)
    return logits, torch.randint(0, v, (n,), generator=made), kind == 1, kind == 2


def masks(which: str, n: int) -> tuple[Tensor, Tensor]:
    none = torch.zeros(n, dtype=torch.bool)
    one = none.clone()
    one[n // 2] = True
    return {
        "none": (none, none),
        "all imitate": (~none, none),
        "all avoid": (none, ~none),
        "one imitate": (one, none),
        "one avoid": (none, one),
    }[which]


@pytest.mark.parametrize("shape", [(1, 2), (7, 5), (33, 101)])
def test_value_and_gradient_are_those_of_the_definition(shape: tuple[int, int]) -> None:
    logits, targets, imitate, avoid = example(*shape)
    sums = cringe_loss(logits, targets, imitate, avoid, alpha=0.7)
    rivals = [others[0] for others in best_others(logits, targets, 1)]
    expected = naive_loss(logits, targets, imitate, avoid, 0.7, rivals)
    torch.testing.assert_close(sums.loss, expected, rtol=1e-12, atol=1e-12)
    (ours,) = torch.autograd.grad(sums.loss, logits)
    (theirs,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("contrast_positives", [False, True])
@pytest.mark.parametrize("detach_positives", [False, True])
def test_every_option_against_the_definition(
    detach_positives: bool, contrast_positives: bool, weighed: bool
) -> None:
    exact, targets, imitate, avoid = example(33, 21, seed=7)
    logits = exact.detach().float().requires_grad_()
    options: dict[str, Any] = {
        "detach_positives": detach_positives,
        "contrast_positives": contrast_positives,
        "weights": torch.rand(33, generator=torch.Generator().manual_seed(1)) if weighed else None,
    }
    ours = cringe_loss(logits, targets, imitate, avoid, alpha=0.7, **options).loss
    rivals = [others[0] for others in best_others(logits, targets, 1)]
    theirs = naive_loss(logits, targets, imitate, avoid, 0.7, rivals, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("which", ["none", "all imitate", "all avoid", "one imitate", "one avoid"])
def test_any_share_of_labelled_tokens(which: str, k: int) -> None:
    logits, targets, _, _ = example(9, 11)
    imitate, avoid = masks(which, 9)
    sums = cringe_loss(logits, targets, imitate, avoid, k=k, seeds=torch.arange(9))
    assert (int(sums.imitate_tokens), int(sums.avoid_tokens)) == (int(imitate.sum()), int(avoid.sum()))
    (gradient,) = torch.autograd.grad(sums.loss, logits)
    touched = gradient.abs().sum(1) > 0
    assert torch.equal(touched, imitate | avoid), "exactly the labelled tokens get a gradient"
    if which == "none":
        assert sums.loss.item() == 0


def test_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    targets = torch.tensor([0, 0, 1])
    imitate, avoid = torch.tensor([True, False, False]), torch.tensor([False, True, True])
    sums = cringe_loss(logits, targets, imitate, avoid, alpha=2.0)
    cross_entropy = math.log(math.exp(2) + math.exp(1) + 1) - 2
    # Token 0 is the best: its rival is token 1. Token 1 is not: its rival is token 0.
    contrast = math.log1p(math.exp(2 - 1)) + math.log1p(math.exp(1 - 2))
    assert sums.ce_sum.item() == pytest.approx(cross_entropy, rel=1e-6)
    assert sums.contrast_sum.item() == pytest.approx(contrast, rel=1e-6)
    assert sums.loss.item() == pytest.approx(cross_entropy + 2 * contrast, rel=1e-6)
    metrics = summarize(sums.counts())
    assert metrics["loss"] == pytest.approx((cross_entropy + 2 * contrast) / 3, rel=1e-6)
    assert metrics["ct_target_tokens"] == 2
    assert metrics["token_acc_pos"] == 1 and metrics["token_acc_neg"] == 0.5
    assert metrics["ppl_pos"] == pytest.approx(math.exp(cross_entropy), rel=1e-6)


@pytest.mark.parametrize("target", [0, 1, 100])
def test_any_token_id_is_pushed_down(target: int) -> None:
    """Ids 0 and 1 are where the reference's ignore_index silences the loss."""
    logits = torch.zeros(1, 101, dtype=torch.float64, requires_grad=True)
    yes = torch.ones(1, dtype=torch.bool)
    cringe_loss(logits, torch.tensor([target]), ~yes, yes).loss.backward()
    assert logits.grad is not None
    assert float(logits.grad[0, target]) == pytest.approx(0.5)


def test_detached_rival_is_not_raised() -> None:
    logits, targets, _, _ = example(5, 7)
    imitate, avoid = masks("all avoid", 5)
    (both,) = torch.autograd.grad(cringe_loss(logits, targets, imitate, avoid).loss, logits)
    loss = cringe_loss(logits, targets, imitate, avoid, detach_positives=True).loss
    (only_down,) = torch.autograd.grad(loss, logits)
    assert (both < 0).sum() == 5 and (only_down < 0).sum() == 0
    torch.testing.assert_close(both.clamp(min=0), only_down)


def test_k_draws_only_among_the_k_best_others_and_follows_their_softmax() -> None:
    """Target at rank 1 (it is taken out), at rank 4 (k + 1), and far behind (the (k+1)-th goes)."""
    one = torch.tensor([5.0, 4.5, 4.0, 3.5, 3.0, -9.0], dtype=torch.float64)
    draws = 4000
    for target in (0, 3, 5):
        logits = one.repeat(draws, 1).requires_grad_()
        yes = torch.ones(draws, dtype=torch.bool)
        seeds = token_seeds(torch.arange(draws), torch.zeros(draws, dtype=torch.int64), 0)
        targets = torch.full((draws,), target)
        loss = cringe_loss(logits, targets, ~yes, yes, k=3, seeds=seeds).loss
        (gradient,) = torch.autograd.grad(loss, logits)
        drawn = gradient.argmin(1)  # only s* is pushed up
        allowed = best_others(one[None], torch.tensor([target]), 3)[0]
        assert set(drawn.tolist()) == set(allowed)
        share = torch.stack([(drawn == entry).double().mean() for entry in allowed])
        expected = torch.softmax(one[allowed], dim=0)
        assert float((share - expected).abs().max()) < 0.03  # four standard errors of a share


def test_k_values_against_the_definition_given_the_draw() -> None:
    logits, targets, imitate, avoid = example(31, 17, seed=3)
    sums = cringe_loss(logits, targets, imitate, avoid, k=3, seeds=torch.arange(31))
    only = cringe_loss(logits, targets, imitate & False, avoid, k=3, seeds=torch.arange(31)).loss
    (gradient,) = torch.autograd.grad(only, logits)
    rivals = gradient.argmin(1).tolist()
    for i in avoid.nonzero().flatten().tolist():
        assert rivals[i] in best_others(logits, targets, 3)[i]
    expected = naive_loss(logits, targets, imitate, avoid, 1.0, rivals)
    torch.testing.assert_close(sums.loss, expected, rtol=1e-12, atol=1e-12)
    (theirs,) = torch.autograd.grad(expected, logits)
    (ours,) = torch.autograd.grad(sums.loss, logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_draw_belongs_to_its_token_not_to_its_neighbours() -> None:
    logits, targets, imitate, avoid = example(40, 23, seed=5)
    seeds = token_seeds(torch.arange(40) * 77, torch.arange(40), 3)

    def per_token(order: Tensor) -> Tensor:
        chosen = logits[order]
        loss = cringe_loss(chosen, targets[order], imitate[order], avoid[order], k=4, seeds=seeds[order]).loss
        return torch.autograd.grad(loss, chosen)[0]

    straight = per_token(torch.arange(40))
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(per_token(shuffled), straight[shuffled])
    halves = [per_token(torch.arange(0, 40, 2)), per_token(torch.arange(1, 40, 2))]
    assert torch.equal(torch.stack(halves, dim=1).flatten(0, 1), straight)


def test_seeds_differ_by_row_place_and_step() -> None:
    rows, places = torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij")
    seeds = torch.stack([token_seeds(rows, places, step) for step in range(30)])
    assert seeds.unique().numel() == seeds.numel()


def test_two_ranks_add_up_to_one() -> None:
    logits, targets, imitate, avoid = example(20, 13, seed=2)
    whole = cringe_loss(logits, targets, imitate, avoid)
    parts = [
        cringe_loss(logits[at], targets[at], imitate[at], avoid[at]) for at in (slice(0, 9), slice(9, 20))
    ]
    torch.testing.assert_close(whole.counts(), parts[0].counts() + parts[1].counts())
    labelled = whole.imitate_tokens + whole.avoid_tokens
    (one,) = torch.autograd.grad(whole.loss / labelled, logits)
    (two,) = torch.autograd.grad((parts[0].loss + parts[1].loss) / labelled, logits)
    torch.testing.assert_close(one, two)


def test_half_precision_is_raised_first() -> None:
    logits, targets, imitate, avoid = example(50, 31)
    half = logits.detach().bfloat16()
    sums = cringe_loss(half, targets, imitate, avoid)
    expected = cringe_loss(half.float(), targets, imitate, avoid)
    assert sums.loss.dtype == torch.float32 and torch.equal(sums.loss, expected.loss)


def test_wrong_k_and_missing_seeds() -> None:
    logits, targets, imitate, avoid = example(4, 5)
    with pytest.raises(UserError, match=r"train\.k"):
        cringe_loss(logits, targets, imitate, avoid, k=5)
    with pytest.raises(ValueError, match="seed"):
        cringe_loss(logits, targets, imitate, avoid, k=2)


def test_metrics_without_tokens_of_a_kind_are_left_out() -> None:
    counts = torch.zeros(len(COUNTS), dtype=torch.float64)
    assert summarize(counts) == {"ct_target_tokens": 0.0, "ce_target_tokens": 0.0}
