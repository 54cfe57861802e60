"""One optimizer step on the tiny model, with an engine that does on one rank what DeepSpeed does."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train import export
from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.batches import Batch, collate, micro_batches, pack
from bb3x_ray.train.objectives import Objective
from bb3x_ray.train.step import ConversationLoss, Schedule, hidden_states, train_step
from tests.train.test_batches import row


class PlainEngine:
    """Accumulates gradients and steps with SGD; keeps the gradient of the last step."""

    def __init__(self, module: ConversationLoss, lr: float = 0.0) -> None:
        self.module, self.lr, self.skipped_steps, self.half = module, lr, 0, False
        self.refuse = 0  # so many updates, as DeepSpeed does after an overflow
        self.boundaries: list[bool] = []
        self.gradient: dict[str, Tensor] = {}

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        return self.module(batch, step)

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        self.boundaries.append(is_boundary)

    def backward(self, loss: Tensor, *, scale_wrt_gas: bool) -> None:
        assert not scale_wrt_gas
        loss.backward()

    def step(self) -> None:
        if self.skipped_steps < self.refuse:
            self.skipped_steps += 1
            self.module.zero_grad()
            return
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if parameter.grad is not None:
                    self.gradient[name] = parameter.grad
                    parameter -= self.lr * parameter.grad
                    parameter.grad = None

    def get_global_grad_norm(self) -> Any:
        return None

    def zero_optimization_stage(self) -> int:
        return 0

    def fp16_enabled(self) -> bool:
        return self.half

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.module.parameters()


def module_of(folder: Path, autocast: bool = False, packed: bool = True, **options: Any) -> ConversationLoss:
    model = export.load_parent(folder)
    packing = choose_packing(model, torch.device("cpu"), half=False) if packed else "none"
    return ConversationLoss(model, Objective(**options), packing, autocast)


def talk(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of different lengths; every third has no label at all."""
    made = random.Random(seed)
    rows = []
    for i in range(n):
        length = made.randint(6, 25)
        marks = [made.choice("x.") if i % 3 else "." for _ in range(length)]
        imitate = "".join(m if t % 5 else "." for t, m in enumerate(marks))
        avoid = "".join("." if t % 5 else m for t, m in enumerate(marks))
        ids = [made.randrange(3, 250) for _ in range(length)]
        rows.append(row(ids, imitate, avoid, row_id=f"r{i}"))
    return rows


def expected_gradient(module: ConversationLoss, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """From whole logits, row by row and token by token, divided by the labelled tokens of all rows."""
    losses, labelled = [], 0
    for r in rows:
        logits = module.model(input_ids=torch.tensor([r["input_ids"]])).logits[0]
        for t in range(1, len(r["input_ids"])):
            target, scores = r["input_ids"][t], logits[t - 1]
            if r["imitate"][t]:
                losses.append(scores.logsumexp(0) - scores[target])
            if r["avoid"][t]:
                others = scores.index_fill(0, torch.tensor([target]), -torch.inf)
                losses.append(torch.log1p(torch.exp(scores[target] - others.max())))
            labelled += r["imitate"][t] or r["avoid"][t]
    (torch.stack(losses).sum() / labelled).backward()
    gradient = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return gradient


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("micro_tokens", [1, 40, 500])
def test_gradient_is_the_mean_over_labelled_tokens_however_rows_are_packed(
    tiny_model: Path, micro_tokens: int, packed: bool
) -> None:
    rows = talk(7)
    module = module_of(tiny_model, packed=packed)
    expected = expected_gradient(module, rows)
    engine = PlainEngine(module)
    # The last one is empty, as on a rank with fewer rows.
    count = len(pack([(len(r["input_ids"]),) for r in rows], micro_tokens, padded=not packed)) + 1
    batches = micro_batches(rows, count, micro_tokens, pad_id=0, padded=not packed)
    seen: list[torch.Size] = []
    module.model.base_model.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["input_ids"].shape), with_kwargs=True
    )
    metrics = train_step(engine, batches, 0)
    assert all(shape.numel() <= micro_tokens or shape[0] == 1 for shape in seen)
    assert engine.boundaries == [False] * (count - 1) + [True]
    assert engine.gradient.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(engine.gradient[name], gradient, rtol=1e-4, atol=1e-6)
    norm = torch.stack([g.norm() for g in expected.values()]).norm()
    assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert metrics["tokens"] == sum(len(r["input_ids"]) for r in rows) + 1
    assert metrics["labelled_tokens"] == metrics["ce_target_tokens"] + metrics["ct_target_tokens"]
    assert {"forward_seconds", "backward_seconds", "update_seconds"} <= metrics.keys()


def test_k_above_one_does_not_depend_on_packing(tiny_model: Path) -> None:
    module = module_of(tiny_model, k=5, seed=3)
    gradients = []
    for count, micro_tokens in ((7, 1), (1, 500)):
        engine = PlainEngine(module)
        train_step(engine, micro_batches(talk(7), count, micro_tokens, 0), 4)
        gradients.append(engine.gradient)
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-4, atol=1e-6)


def pairwise(conversation: dict[str, Any], turns: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """A row for each turn (start, end): all that came before it, and labels on that turn alone."""
    rows = []
    for start, end in turns:
        masks = {n: [False] * start + conversation[n][start:end] for n in ("imitate", "avoid")}
        rows.append(conversation | {"input_ids": conversation["input_ids"][:end]} | masks)
    return rows


@pytest.mark.parametrize("k", [1, 4])
def test_one_row_a_conversation_has_the_gradient_of_one_row_a_turn(tiny_model: Path, k: int) -> None:
    made = random.Random(2)
    talks, turned = [], []
    for number in range(3):
        ids = [made.randrange(3, 250) for _ in range(40)]
        turns = [(4, 9), (13, 20), (22, 30), (33, 40)]
        marks = ["." * 40, "." * 40]
        for turn, (start, end) in enumerate(turns):
            kind = (turn + number) % 2
            marks[kind] = marks[kind][:start] + "x" * (end - start) + marks[kind][end:]
        talks.append(row(ids, *marks, row_id=f"talk {number}"))
        turned += pairwise(talks[-1], turns)
    gradients = []
    for rows in (talks, turned):
        engine = PlainEngine(module_of(tiny_model, k=k))
        metrics = train_step(engine, micro_batches(rows, 1, 1000, pad_id=0), 0)
        gradients.append(engine.gradient)
        assert metrics["labelled_tokens"] == 81 and metrics["tokens"] == sum(
            len(r["input_ids"]) for r in rows
        )
    assert metrics["tokens"] == 297, "the pairwise layout reads every context again"
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mask", ["imitate", "avoid"])
def test_steps_push_avoided_tokens_down_and_imitated_tokens_up(tiny_model: Path, mask: str) -> None:
    module = module_of(tiny_model)
    other = {"imitate": "avoid", "avoid": "imitate"}[mask]
    rows = [r | {other: [False] * len(r[other])} for r in talk(12)]
    batch = collate(rows, pad_id=0)
    targets = batch.targets[:, None]

    def log_probabilities() -> Tensor:
        with torch.no_grad():
            hidden = hidden_states(module.model, batch, module.packing)[batch.at]
            return module.head.logits(hidden).log_softmax(1).gather(1, targets)

    before = log_probabilities()
    engine = PlainEngine(module, lr=0.3)
    losses = [train_step(engine, [batch], step)["loss"] for step in range(10)]
    rise = (log_probabilities() - before) * (1 if mask == "imitate" else -1)
    assert losses[-1] < losses[0]
    assert rise.mean() > 0.2
    assert len(rise) > 10 and (rise > 0).float().mean() > 0.8  # they share weights: not every single one


def test_a_step_without_labels_leaves_the_weights(tiny_model: Path) -> None:
    engine = PlainEngine(module_of(tiny_model), lr=1.0)
    batch = collate([row([5, 6, 7], "...")], pad_id=0)
    assert train_step(engine, [batch], 0) == {"tokens": 3.0, "labelled_tokens": 0.0}
    assert not engine.gradient


def test_a_batch_without_labels_still_calls_the_head(tiny_model: Path) -> None:
    """Under ZeRO stage 3 the other ranks would wait for it for ever."""
    module = module_of(tiny_model)
    loss, counts = module(collate([], pad_id=0), 0)
    loss.backward()
    assert loss.item() == 0 and not counts.any()
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())


def test_only_labelled_positions_meet_the_head(tiny_model: Path) -> None:
    module = module_of(tiny_model)
    seen: list[tuple[int, ...]] = []
    module.head.register_forward_hook(lambda *args: seen.append(args[1][0].shape))
    batch = collate(talk(6), pad_id=0)
    module(batch, 0)
    assert [shape[0] for shape in seen] == [batch.labelled_tokens]


def test_a_loss_that_is_not_finite_names_the_step_and_the_cure(tiny_model: Path) -> None:
    module = module_of(tiny_model)
    with torch.no_grad():
        module.model.get_output_embeddings().weight[7] = torch.inf
    with pytest.raises(UserError, match=r"training step 3: .* lower train\.lr"):
        train_step(PlainEngine(module), [collate(talk(6), pad_id=0)], 2)


def test_a_refused_update_is_an_error(tiny_model: Path) -> None:
    engine = PlainEngine(module_of(tiny_model))
    engine.refuse = 1
    with pytest.raises(UserError, match="training step 1: the gradient is inf"):
        train_step(engine, [collate(talk(6), pad_id=0)], 0)


def test_in_float16_a_step_that_overflows_is_made_again(tiny_model: Path) -> None:
    batch = collate(talk(6), pad_id=0)
    engines = [PlainEngine(module_of(tiny_model), lr=0.1) for _ in range(2)]
    engines[1].half, engines[1].refuse = True, 3
    first, second = (train_step(engine, [batch], 0) for engine in engines)
    assert first["grad_norm"] == second["grad_norm"]
    assert all(torch.equal(engines[0].gradient[n], engines[1].gradient[n]) for n in engines[0].gradient)
    engines[1].refuse = 100
    with pytest.raises(UserError, match="the gradient is inf"):
        train_step(engines[1], [batch], 1)


def test_bfloat16_multiplies_but_keeps_float32_weights(tiny_model: Path) -> None:
    batch = collate(talk(6), pad_id=0)
    full, half = (
        train_step(PlainEngine(module_of(tiny_model, autocast=on)), [batch], 0) for on in (False, True)
    )
    assert half["loss"] != full["loss"]
    assert half["loss"] == pytest.approx(full["loss"], rel=0.01)
    assert half["grad_norm"] == pytest.approx(full["grad_norm"], rel=0.05)
    assert {p.dtype for p in module_of(tiny_model, autocast=True).parameters()} == {torch.float32}


def test_the_rate_warms_up_and_decays() -> None:
    rates = [Schedule(lr=1.0, warmup=2, total=6).at(step) for step in range(6)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, 0.75, 0.5, 0.25])
    assert Schedule(lr=1.0, warmup=5, total=2).at(1) == pytest.approx(1 / 3)
    assert Schedule(lr=1.0, warmup=0, total=1).at(0) == 1.0
