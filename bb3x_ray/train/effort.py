"""FLOPs and time of training, of a round to come and of a step that was made: arithmetic, no torch.

A multiplication with its addition is two FLOPs. Time is what is computed, recomputation included, divided
by an assumed share of the GPU's peak; where ZeRO's stage 3 gathers weights for longer than it computes with
them, the network decides. None of it is measured. `StepMeter` divides the same FLOPs by measured seconds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bb3x_ray.train.footprint import TrainSetup, answering_bytes
from bb3x_ray.train.gpus import Gpu
from bb3x_ray.train.shapes import ModelShape

# 10⁹ bytes a second and GPU, one way: what collectives reach within a node and between nodes, PCIe, and a
# node's memory under Adam.
_BETWEEN_NODES, _PCIE, _HOST = 25.0, 20.0, 100.0

# The encoder that scores and judges: matrices of all-MiniLM-L6-v2, tokens of a text, a CPU core's rate.
_ENCODER, _TEXT_TOKENS, _CORE = 10_600_000, 100, 5e10


@dataclass(frozen=True, slots=True)
class RoundSize:
    """How much a round learns from.

    rows, row_tokens   conversations in the training set, and tokens of one on average
    answers            bot turns that the candidate answers in each iteration
    judged             replies that the evaluation asks for, of both versions
    reply_tokens       of an answer
    """

    rows: int
    row_tokens: int
    answers: int
    judged: int
    reply_tokens: int
    batch: int = 64


@dataclass(frozen=True, slots=True)
class TokenFlops:
    """FLOPs for one token of a training row, on average; head: the loss, whose labelled share is in it."""

    forward: float
    backward: float
    recomputed: float
    head: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recomputed + self.head


@dataclass(frozen=True, slots=True)
class Effort:
    """A round: optimizer steps, tokens, FLOPs, seconds by part."""

    steps: int
    tokens: int
    flops: TokenFlops
    training: float
    answering: float
    judging: float
    scoring: float
    waits_for_network: bool

    @property
    def total_flops(self) -> float:
        return self.tokens * self.flops.total

    @property
    def seconds(self) -> float:
        return self.training + self.answering + self.judging + self.scoring


def token_flops(shape: ModelShape, setup: TrainSetup, row_tokens: int) -> TokenFlops:
    """2 FLOPs a parameter forward, and 2 for each of half the row's tokens that attention looks back on.

    Backward costs twice as much, but with adapters only once: the matrices have no gradient of their own.
    Head and loss see labelled tokens only: logits, and for tokens to imitate both gradients of them. Sliding
    windows are not taken into account.
    """
    forward = _forward(shape, 1, row_tokens)
    adapters, labelled, avoid = setup.lora_rank > 0, setup.labelled_share, setup.avoid_share
    return TokenFlops(
        forward=forward,
        backward=forward * (1 if adapters else 2),
        recomputed=forward if setup.gradient_checkpointing else 0.0,
        head=_head(shape, labelled * (1 - avoid), labelled * avoid, adapters),
    )


def _forward(shape: ModelShape, tokens: float, pairs: float) -> float:
    """FLOPs through all layers; pairs: squared lengths of conversations, attention sees half of them."""
    return 2.0 * shape.active_matrices * tokens + 2.0 * shape.layers * shape.q_width * pairs


def _head(shape: ModelShape, imitate: float, avoid: float, adapters: bool) -> float:
    """FLOPs of head and loss for so many labelled tokens, backward included."""
    return 2.0 * shape.embedding * (imitate * (2 if adapters else 3) + avoid)


@dataclass(frozen=True, slots=True)
class StepMeter:
    """How fast optimizer steps are: FLOPs that the model needs, what is computed twice counted once.

    lengths   tokens of each conversation in each row of the training set
    peak      FLOPs a second of a worker's device; None where nobody knows
    """

    shape: ModelShape
    lengths: Sequence[Sequence[int]]
    workers: int
    adapters: bool
    peak: float | None

    def flops(self, rows: Sequence[int], imitate: float, avoid: float) -> float:
        """Of a step over these rows, on all workers together, with so many labelled tokens."""
        lengths = [length for row in rows for length in self.lengths[row]]
        forward = _forward(self.shape, sum(lengths), sum(length**2 for length in lengths))
        return forward * (2 if self.adapters else 3) + _head(self.shape, imitate, avoid, self.adapters)

    def read(self, rows: Sequence[int], metrics: Mapping[str, float]) -> dict[str, float]:
        """tflops_per_second of a worker, and mfu, its share of the peak, where that is known.

        A step without labelled tokens computes nothing.
        """
        imitate, avoid = (metrics.get(f"{kind}_target_tokens", 0.0) for kind in ("ce", "ct"))
        flops = self.flops(rows, imitate, avoid) if imitate + avoid else 0.0
        rate = flops / self.workers / metrics["seconds"]
        return {"tflops_per_second": rate / 1e12} | ({"mfu": rate / self.peak} if self.peak else {})


def effort(shape: ModelShape, setup: TrainSetup, gpu: Gpu, gpus: int, size: RoundSize, mfu: float) -> Effort:
    """Time and FLOPs of one round on `gpus` GPUs, at a share `mfu` of their peak."""
    passes = setup.epochs * setup.iterations
    answers = (setup.iterations - 1) * size.answers
    flops = token_flops(shape, setup, size.row_tokens)
    steps = math.ceil(size.rows / setup.rows_per_step)  # of one pass, with as many rows each
    rate = 1e12 * mfu * (gpu.fp32_tflops if setup.precision == "float32" else gpu.half_tflops)
    tokens = size.rows * size.row_tokens * passes
    micro = math.ceil(size.rows / steps * size.row_tokens / (setup.workers * setup.packed_tokens))
    steps *= passes
    computing = tokens * flops.total / (setup.workers * rate) / (steps * micro)  # one micro-batch
    gathering = _gathering(shape, setup, gpu)
    training = steps * (micro * max(computing, gathering) + _updating(shape, setup, gpu))
    return Effort(
        steps=steps,
        tokens=tokens,
        flops=flops,
        training=training,
        answering=answering(shape, gpu, gpus, answers, size, mfu),
        judging=answering(shape, gpu, 1, size.judged, size, mfu),
        scoring=(size.rows + size.judged + answers) * _score_seconds(),
        waits_for_network=gathering > computing,
    )


def answering(shape: ModelShape, gpu: Gpu, gpus: int, answers: int, size: RoundSize, mfu: float) -> float:
    """Seconds to write `answers` replies on `gpus` GPUs, each with the whole model.

    A step writes one token of a batch and reads all weights and caches from memory once; the prompts are
    computed before.
    """
    if not answers:
        return 0.0
    batch = min(size.batch, math.ceil(answers / gpus))
    rounds = math.ceil(answers / (gpus * batch))
    step = answering_bytes(shape, batch, size.row_tokens) / (1e9 * gpu.bandwidth_gbs)
    prompts = 2.0 * shape.active_matrices * size.row_tokens * answers / (gpus * 1e12 * mfu * gpu.half_tflops)
    return rounds * size.reply_tokens * step + prompts


def _link(setup: TrainSetup, gpu: Gpu) -> float:
    between = setup.workers > setup.workers_per_node
    return 1e9 * (min(_BETWEEN_NODES, gpu.link_gbs) if between else gpu.link_gbs)


def _gathering(shape: ModelShape, setup: TrainSetup, gpu: Gpu) -> float:
    """Seconds that stage 3 needs to gather weights for one micro-batch: forward and backward."""
    if setup.zero_stage < 3:
        return 0.0
    bytes_ = 2 * setup.weight_bytes * shape.parameters
    seconds = bytes_ * (setup.workers - 1) / setup.workers / _link(setup, gpu)
    if setup.offload == "all":
        seconds = max(seconds, bytes_ / setup.workers / (1e9 * _PCIE))
    return seconds


def _updating(shape: ModelShape, setup: TrainSetup, gpu: Gpu) -> float:
    """Seconds for one update: gradients and weights sent round, Adam, the way to the node and back."""
    learning, workers = setup.learning(shape), setup.workers
    moved = 2 * setup.weight_bytes * learning * (workers - 1) / workers / _link(setup, gpu)
    share = learning / workers if setup.zero_stage else learning
    if setup.offload == "none":
        return moved + 28 * share / (1e9 * gpu.bandwidth_gbs)
    there = 2 * setup.weight_bytes * share / (1e9 * _PCIE)
    return moved + there + 28 * share * setup.workers_per_node / (1e9 * _HOST)


def _score_seconds() -> float:
    return 2 * _ENCODER * _TEXT_TOKENS / _CORE
