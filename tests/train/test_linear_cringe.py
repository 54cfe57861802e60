"""The fused loss is the loss of all logits: values, gradients, every option, whatever the chunk."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train.cringe import CringeSums, cringe_loss
from bb3x_ray.train.linear_cringe import linear_cringe_loss
from tests.train.test_cringe import best_others, naive_loss

OPTIONS = [
    dict(zip(("k", "detach_positives", "contrast_positives", "weighed"), values, strict=True))
    for values in itertools.product((1, 3), (False, True), (False, True), (False, True))
]


def example(t: int, d: int, v: int, labelled: str = "some") -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(t * d + v)
    kind = torch.randint(0, 3, (t,), generator=made)
    share = {"none": kind * 0, "all": kind % 2 + 1, "one": (torch.arange(t) == t // 2) * 2, "some": kind}
    return {
        "hidden": torch.randn(t, d, generator=made),
        "head_weight": torch.randn(v, d, generator=made) / d**0.5 * 3,
        "targets": torch.randint(0, v, (t,), generator=made),
        "imitate": share[labelled] == 1,
        "avoid": share[labelled] == 2,
        "seeds": torch.arange(t) * 101,
        "weights": torch.rand(t, generator=made),
    }


def capped(logits: Tensor, soft_cap: float | None, scale: float) -> Tensor:
    logits = logits * scale
    return logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)


def both(
    case: dict[str, Tensor],
    soft_cap: float | None = None,
    scale: float = 1.0,
    chunk: int = 50,
    **options: object,
) -> list[tuple[CringeSums, Tensor, Tensor]]:
    """(sums, gradient of hidden, gradient of the head) of the full form and of the fused one."""
    weighed = options.pop("weighed", True)
    shared = {name: case[name] for name in ("targets", "imitate", "avoid", "seeds")}
    shared |= {"weights": case["weights"]} if weighed else {}
    found = []
    for fused in (False, True):
        hidden, head = (case[name].clone().requires_grad_() for name in ("hidden", "head_weight"))
        if fused:
            sums = linear_cringe_loss(
                hidden, head, soft_cap=soft_cap, scale=scale, chunk_logits=chunk, **shared, **options
            )
        else:
            sums = cringe_loss(capped(hidden @ head.T, soft_cap, scale), **shared, **options)
        gradients = torch.autograd.grad(sums.loss * 0.3, (hidden, head), allow_unused=True)
        found.append((sums, *(torch.zeros(1) if g is None else g for g in gradients)))
    return found


def check(pair: list[tuple[CringeSums, Tensor, Tensor]], tolerance: float = 1e-5) -> None:
    (full, *full_gradients), (fused, *fused_gradients) = pair
    torch.testing.assert_close(fused.counts(), full.counts(), rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(fused_gradients, full_gradients, strict=True):
        torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option(options: dict[str, object]) -> None:
    check(both(example(31, 12, 47), alpha=0.7, **options))


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("contrast_positives", [False, True])
@pytest.mark.parametrize("detach_positives", [False, True])
@pytest.mark.parametrize(("soft_cap", "scale"), [(None, 1.0), (2.0, 1.0), (None, 0.25), (3.0, 2.0)])
def test_every_option_against_the_definition(
    soft_cap: float | None, scale: float, detach_positives: bool, contrast_positives: bool, weighed: bool
) -> None:
    """The logits that a model with such a head gives, and the loss of each of their tokens by itself."""
    case = example(31, 12, 47)
    options: dict[str, Any] = {
        "detach_positives": detach_positives,
        "contrast_positives": contrast_positives,
        "weights": case["weights"] if weighed else None,
    }
    hidden, head = (case[name].clone().requires_grad_() for name in ("hidden", "head_weight"))
    masks = (case["targets"], case["imitate"], case["avoid"])
    ours = linear_cringe_loss(
        hidden, head, *masks, alpha=0.7, soft_cap=soft_cap, scale=scale, chunk_logits=50, **options
    ).loss
    raw = torch.einsum("td,vd->tv", hidden, head) * scale
    logits = raw if soft_cap is None else soft_cap * torch.tanh(raw / soft_cap)
    rivals = [others[0] for others in best_others(logits, case["targets"], 1)]
    theirs = naive_loss(logits, *masks, 0.7, rivals, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, (hidden, head)) for loss in (ours, theirs)]
    for mine, naive in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, naive, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 47, 31), (31, 5, 123)], ids=str)
@pytest.mark.parametrize("labelled", ["none", "one", "some", "all"])
def test_odd_shapes_and_any_share_of_labels(shape: tuple[int, int, int], labelled: str) -> None:
    check(both(example(*shape, labelled), k=3))


@pytest.mark.parametrize(
    "options", [{"soft_cap": 2.0}, {"scale": 0.25}, {"soft_cap": 3.0, "scale": 2.0}], ids=str
)
@pytest.mark.parametrize("contrast_positives", [False, True])
def test_capped_and_scaled_logits(options: dict[str, float], contrast_positives: bool) -> None:
    check(both(example(23, 9, 41), contrast_positives=contrast_positives, **options))


@pytest.mark.parametrize("chunk", [1, 47, 100, 10**6])
def test_the_chunk_changes_nothing(chunk: int) -> None:
    case = example(29, 8, 47)
    check([both(case, k=3)[1], both(case, k=3, chunk=chunk)[1]], 1e-6)


def test_in_float64_both_agree_to_the_last_digits() -> None:
    case = {n: x.double() if x.is_floating_point() else x for n, x in example(31, 12, 47).items()}
    check(both(case, k=3, contrast_positives=True, soft_cap=4.0), 1e-12)


def test_bfloat16_inputs_are_summed_in_float32() -> None:
    case = example(200, 32, 64)
    half = {n: x.bfloat16() if n in ("hidden", "head_weight") else x for n, x in case.items()}
    exact = {n: x.float() if x.dtype == torch.bfloat16 else x for n, x in half.items()}
    (_, _, wanted), (sums, _, got) = both(exact)[0], both(half)[1]
    assert sums.loss.dtype == torch.float32 and got.dtype == torch.bfloat16
    assert float((got.float() - wanted).norm() / wanted.norm()) < 0.01


def test_autocast_multiplies_in_bfloat16_and_keeps_float32_gradients() -> None:
    case = example(64, 32, 64)
    hidden, head = (case[name].clone().requires_grad_() for name in ("hidden", "head_weight"))
    with torch.autocast("cpu", torch.bfloat16):
        sums = linear_cringe_loss(hidden, head, case["targets"], case["imitate"], case["avoid"])
    sums.loss.backward()
    exact = linear_cringe_loss(
        case["hidden"], case["head_weight"], case["targets"], case["imitate"], case["avoid"]
    )
    assert hidden.grad is not None and hidden.grad.dtype == torch.float32
    assert 0 < float((sums.loss.detach() - exact.loss).abs() / exact.loss) < 0.02


def test_a_tied_head_gets_both_gradients() -> None:
    """The embedding's and the head's gradient meet in one weight, as they do with all logits."""
    case = example(17, 6, 19)
    found = []
    for fused in (False, True):
        tied = case["head_weight"].clone().requires_grad_()
        hidden = torch.tanh(tied[case["targets"]])
        shared = (case["targets"], case["imitate"], case["avoid"])
        sums = linear_cringe_loss(hidden, tied, *shared) if fused else cringe_loss(hidden @ tied.T, *shared)
        found.append(torch.autograd.grad(sums.loss, tied)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", ["hidden", "head_weight"])
def test_what_does_not_learn_costs_no_gradient(frozen: str) -> None:
    case = example(9, 4, 11)
    learns = {n: case[n].clone().requires_grad_(n != frozen) for n in ("hidden", "head_weight")}
    sums = linear_cringe_loss(*learns.values(), case["targets"], case["imitate"], case["avoid"])
    sums.loss.backward()
    assert learns[frozen].grad is None
    assert all(x.grad is not None for n, x in learns.items() if n != frozen)


def test_wrong_k() -> None:
    case = example(4, 3, 5)
    with pytest.raises(UserError, match=r"train\.k"):
        linear_cringe_loss(
            case["hidden"], case["head_weight"], case["targets"], case["imitate"], case["avoid"], k=5
        )
