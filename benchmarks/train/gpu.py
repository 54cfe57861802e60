"""The same table on one GPU, in bfloat16, for a model built from a config: `python -m benchmarks.train.gpu`.

Needs torch and transformers only, and this repository's loss and attention (neither Ray nor DeepSpeed, no
model, no data). Conversations are random tokens: 3 to 33 messages of 4 to 40, every reply labelled, two
of three to imitate. Weights and AdamW's moments are in bfloat16; the micro-batch is filled with packed
conversations. Every arm is timed on the same conversations, the pairwise one on a sample of their turns.

MFU is what a step needs at least (limit.py) in a second, over the card's peak; `--peak` gives the peak of a
card that is not known here.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from bb3x_ray.train.attention import choose_packing, segment_arguments
from bb3x_ray.train.cringe import cringe_loss
from bb3x_ray.train.linear_cringe import linear_cringe_loss
from benchmarks.train import limit

# Dense bfloat16, FLOPs a second, from the makers' data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
SIZES = {  # hidden, MLP, layers, heads, groups
    "tiny": (64, 128, 2, 4, 2),
    "0.5b": (1024, 4096, 24, 16, 8),
    "1.5b": (2048, 8192, 20, 16, 8),
}


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation's tokens; spans (start, end, good) of the replies, all labelled."""

    ids: list[int]
    spans: list[tuple[int, int, bool]]


@dataclass(frozen=True, slots=True)
class Packed:
    """Conversations side by side: ids, positions [1, L]; at, targets, imitate, avoid [N]."""

    ids: Tensor
    positions: Tensor
    segments: tuple[tuple[int, int], ...]
    at: Tensor
    targets: Tensor
    imitate: Tensor
    avoid: Tensor
    turns: int


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    config = _config(options.size, options.vocabulary)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(device).train()
    if options.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
    bench = Bench(model, optimizer, config, device, options.steps, _peak(options.peak, device))
    talks = conversations(options.tokens, config.vocab_size, seed=0)
    found = bench.table(talks)
    if not options.no_fit:
        found["largest"] = {name: bench.largest(name) for name in ("ours", "plain")}
    found["setting"] = {name: str(value) for name, value in vars(options).items()} | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "packing": bench.packing,
    }
    _say(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


class Bench:
    """One model and optimizer for all arms; an arm is a way from batch to the sum of its loss."""

    def __init__(
        self, model: Any, optimizer: Any, config: Any, device: torch.device, steps: int, peak: float | None
    ) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.device, self.steps, self.peak = device, steps, peak
        self.own_attention = model.config._attn_implementation  # as transformers would choose it
        self.packing = choose_packing(model, device, half=True)
        self.packed_attention = model.config._attn_implementation
        self.losses: dict[str, Callable[[Packed], Tensor]] = {
            "ours": self._ours,
            "fused": self._fused,
            "plain": self._plain,
        }

    def table(self, talks: list[Talk]) -> dict[str, Any]:
        """Each packed arm in turn, `steps` times over, then pairs; medians, spreads and ratios."""
        batch = pack(talks, self.device)
        seconds: dict[str, list[float]] = {name: [] for name in self.losses}
        for name in self.losses:
            self._step(name, batch)
        for _ in range(self.steps):
            for name, times in seconds.items():
                times.append(self._timed(lambda name=name: self._step(name, batch)))  # type: ignore[misc]
        arms = {name: self._line(times, batch) for name, times in seconds.items()}
        arms["pairwise"] = self._pairwise(talks)
        each = {name: line["turns_per_second"] for name, line in arms.items()}
        ratios = {f"turns/s, ours ÷ {n}": each["ours"] / rate for n, rate in each.items() if n != "ours"}
        rate = limit.matmul_rate(dtype=torch.bfloat16, device=str(self.device))
        flops = self._flops(talks)
        mine = arms["ours"]["seconds"]
        ratios["arithmetic rate ÷ large products"] = flops / mine / rate
        if self.device.type == "cuda":
            needed = {name: self._memory(name, batch) for name in self.losses}
            ratios["peak memory, ours ÷ full logits"] = needed["ours"] / needed["plain"]
        if self.peak:
            ratios["MFU"] = flops / mine / self.peak
        return {"arms": arms, "ratios": ratios, "matmul_flops_per_second": rate, "flops": flops}

    def largest(self, name: str) -> int:
        """Tokens of the largest packed micro-batch with which a whole step fits, to an eighth."""
        fits, tokens = 0, 1024
        while self._fits(name, tokens):
            fits, tokens = tokens, tokens * 2
            if self.device.type != "cuda":  # main memory has no clear end
                break
        for eighth in range(7, 0, -1):
            if fits and self.device.type == "cuda" and self._fits(name, fits + fits * eighth // 8):
                return fits + fits * eighth // 8
        return fits

    def _fits(self, name: str, tokens: int) -> bool:
        try:
            self._step(name, pack(conversations(tokens, self.config.vocab_size, 1), self.device))
        except torch.OutOfMemoryError:
            return False
        finally:
            self.optimizer.zero_grad()
            _free(self.device)
        return True

    def _step(self, name: str, batch: Packed) -> None:
        self.losses[name](batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _memory(self, name: str, batch: Packed) -> int:
        """Peak bytes above weights, gradients and optimizer."""
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.losses[name](batch).backward()
        gradients = sum(p.grad.nbytes for p in self.model.parameters() if p.grad is not None)
        self.optimizer.zero_grad()
        return int(torch.cuda.max_memory_allocated() - before - gradients)

    def _timed(self, work: Callable[[], None]) -> float:
        _wait(self.device)
        began = time.perf_counter()
        work()
        _wait(self.device)
        return time.perf_counter() - began

    def _line(self, times: list[float], batch: Packed) -> dict[str, float]:
        middle = statistics.median(times)
        line = {"seconds": middle, "lowest": min(times), "highest": max(times)}
        return line | {
            "turns_per_second": batch.turns / middle,
            "tokens_per_second": batch.ids.numel() / middle,
        }

    def _hidden(self, batch: Packed) -> Tensor:
        """[L, D] of the packed conversations, which do not see each other."""
        extra = segment_arguments(self.packing, batch.segments, self.device)
        out = self.model.base_model(
            input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **extra
        )
        return out.last_hidden_state.squeeze(0)

    def _ours(self, batch: Packed) -> Tensor:
        hidden, head = self._hidden(batch)[batch.at], self.model.get_output_embeddings().weight
        sums = linear_cringe_loss(hidden, head, batch.targets, batch.imitate, batch.avoid)
        return sums.loss / len(batch.at)

    def _fused(self, batch: Packed) -> Tensor:
        hidden, head = self._hidden(batch)[batch.at], self.model.get_output_embeddings().weight
        labelled = batch.imitate | batch.avoid
        sums = linear_cringe_loss(hidden, head, batch.targets, labelled, torch.zeros_like(labelled))
        return sums.loss / len(batch.at)

    def _plain(self, batch: Packed) -> Tensor:
        logits = self.model.get_output_embeddings()(self._hidden(batch))
        targets = batch.ids[0].roll(-1)
        targets[[end - 1 for _, end in batch.segments]] = -100
        return F.cross_entropy(logits.float(), targets, ignore_index=-100)

    def _pairwise(self, talks: list[Talk]) -> dict[str, float]:
        """A padded row a turn with its whole context, four side by side, all logits: a step of 32 turns."""
        self.model.set_attn_implementation(self.own_attention)
        turns = sorted(
            ((end, start, good, talk) for talk in talks for start, end, good in talk.spans),
            key=lambda turn: turn[0],
        )
        chosen = [turns[int((i + 0.5) * len(turns) / 32)] for i in range(32)]
        groups = [chosen[i : i + 4] for i in range(0, 32, 4)]
        labelled = sum(end - start for end, start, *_ in chosen)

        def step() -> None:
            for group in groups:
                ids, seen, imitate, avoid = _pad(group, self.device)
                logits = self.model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
                masks = imitate[:, 1:].flatten(), avoid[:, 1:].flatten()
                loss = cringe_loss(logits.flatten(0, 1), ids[:, 1:].flatten(), *masks).loss
                (loss / labelled).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

        step()
        times = [self._timed(step) for _ in range(self.steps)]
        self.model.set_attn_implementation(self.packed_attention)
        middle = statistics.median(times)
        line = {"seconds": middle, "lowest": min(times), "highest": max(times)}
        return line | {"turns_per_second": len(chosen) / middle}

    def _flops(self, talks: list[Talk]) -> float:
        total = 0.0
        for talk in talks:
            good = sum(end - start for start, end, is_good in talk.spans if is_good)
            bad = sum(end - start for start, end, is_good in talk.spans if not is_good)
            total += 3 * limit.body_flops(self.config, len(talk.ids))
            total += limit.head_flops(self.config, good, bad)
        return total


def conversations(tokens: int, vocabulary: int, seed: int) -> list[Talk]:
    """Random conversations of at most 1,024 tokens, `tokens` in all or a little less."""
    draw = random.Random(seed)
    talks: list[Talk] = []
    left = tokens
    while left > 0 or not talks:
        ids: list[int] = []
        spans: list[tuple[int, int, bool]] = []
        for message in range(draw.randint(3, 33)):
            said = [draw.randrange(vocabulary) for _ in range(draw.randint(4, 40))]
            if len(ids) + len(said) > min(left, 1024) and spans:
                break
            if message % 2:
                spans.append((len(ids), len(ids) + len(said), draw.random() < 2 / 3))
            ids += said
        talks.append(Talk(ids, spans))
        left -= len(ids)
        if left < 100:
            break
    return talks


def pack(talks: list[Talk], device: torch.device) -> Packed:
    """All of them in one row."""
    ids: list[int] = []
    positions: list[int] = []
    segments: list[tuple[int, int]] = []
    labelled: list[tuple[int, bool]] = []  # place of the token, good
    for talk in talks:
        begin = len(ids)
        ids += talk.ids
        positions += range(len(talk.ids))
        segments.append((begin, len(ids)))
        labelled += [(begin + i, good) for start, end, good in talk.spans for i in range(start, end)]
    place = torch.tensor([at for at, _ in labelled], device=device)
    good = torch.tensor([is_good for _, is_good in labelled], device=device)
    row = torch.tensor([ids], device=device)
    where = torch.tensor([positions], device=device)
    turns = sum(len(talk.spans) for talk in talks)
    return Packed(row, where, tuple(segments), place - 1, row[0, place], good, ~good, turns)


def _pad(group: list[tuple[int, int, bool, Talk]], device: torch.device) -> tuple[Tensor, ...]:
    """ids, attention mask, imitate, avoid: [B, L]."""
    shape = (len(group), max(end for end, *_ in group))
    ids, seen = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    masks = torch.zeros(2, *shape, dtype=torch.bool)
    for i, (end, start, good, talk) in enumerate(group):
        ids[i, :end] = torch.tensor(talk.ids[:end])
        seen[i, :end] = 1
        masks[0 if good else 1, i, start:end] = True
    return tuple(x.to(device) for x in (ids, seen, masks[0], masks[1]))


def _config(size: str, vocabulary: int) -> LlamaConfig:
    hidden, mlp, layers, heads, groups = SIZES[size]
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    )


def _peak(given: float | None, device: torch.device) -> float | None:
    if given or device.type != "cuda":
        return given * 1e12 if given else None
    name = torch.cuda.get_device_name()
    return next((peak for card, peak in PEAKS.items() if card in name), None)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _say(words: str) -> None:
    print(words)  # noqa: T201 - no rich here: torch and transformers only


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.train.gpu", description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="1.5b")
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--tokens", type=int, default=16_384, help="of the packed micro-batch")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each arm")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--no-fit", action="store_true", help="do not look for the largest batch")
    parser.add_argument("--peak", type=float, help="the card's peak in TFLOP/s, dense bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
