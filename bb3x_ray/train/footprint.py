"""What one worker and one node hold in memory while they train: arithmetic, no torch.

Three kinds of memory, in bytes:

    resident      weights, gradients, optimizer, buffers: from the number of parameters, ZeRO stage and type
    passing       activations and logits of one micro-batch, or what the optimizer's update needs instead
    occasional    the model while it is read, and whole while the export is checked

Rajbhandari et al. 2020 (ZeRO) for what is sharded, with what DeepSpeed 0.19 adds from stage 1 on: a float32
copy of its share of the weights, even of float32 ones, and a bucket for gradients under way. Live tensors
after a backward pass of a small Llama on one CPU worker, in bytes a parameter: 16 in stage 0 and in bfloat16,
20 in float32 from stage 1 on.

Activations follow Korthikanti et al. 2022, who count what autograd keeps of a layer (34 bytes for each
token and hidden unit, plus 5 for each pair of tokens and head), redone for models of today: attention that
keeps no scores, no dropout, a gated MLP, RMSNorm in float32, fewer heads of keys. Per token and layer:

    norms       24 h in float32, 26 h with bfloat16 products of float32 weights, 16 h in 16 bits
    attention   b · (2 q + 2 k) + 4 a   q: width of queries and of the result, k: of keys and of values;
                                        b · 5 q + 4 a where attention goes conversation by conversation
    MLP         b · 4 i                 gate, its activation, up, their product

with hidden h, a heads, intermediate i, b bytes a number. `tests/train/test_footprint.py` compares this
with what torch keeps. With checkpointing a layer keeps its input alone, and one layer at a time is whole.
"""

from dataclasses import dataclass
from typing import Literal

from bb3x_ray.config import TrainConfig
from bb3x_ray.train.gpus import Gpu
from bb3x_ray.train.shapes import ModelShape

GIB = 2**30

# As in linear_cringe.py, which needs torch and is not imported for it: float32 logits in memory at a time.
CHUNK_LOGITS = 2**25

# Of what CUDA reports: its context, NCCL's buffers and gaps between blocks take the rest.
USABLE = 0.93

# DeepSpeed's own defaults, in parameters: gradients sent together; weights gathered and updated at a time.
_BUCKET, _LIVE, _SUB_GROUP = 500_000_000, 1_000_000_000, 1_000_000_000

# What an answer of a version needs besides its weights: bytes of a number in the cache and in the weights.
_SERVED = 2

Precision = Literal["float32", "mixed", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class TrainSetup:
    """What of TrainConfig, and of the machines, decides about memory and time.

    precision    mixed: float32 weights, products in bfloat16 (autocast); bfloat16 and float16: 16-bit weights
                 and gradients with a float32 copy in the optimizer
    longest_row  tokens of the longest conversation: a micro-batch holds at least one whole
    flash        FlashAttention over packed conversations; else attention goes conversation by conversation,
                 with keys and values repeated for each head of the queries, and puts the results together
    checks_whole the first worker reads the exported model onto its GPU beside the live one
    """

    workers: int
    workers_per_node: int
    zero_stage: int
    precision: Precision
    micro_tokens: int
    longest_row: int
    gradient_checkpointing: bool
    rows_per_step: int
    epochs: int
    iterations: int = 1
    offload: str = "none"
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = ()
    labelled_share: float = 0.5  # of all tokens: the rest is the human's, the template's, or not scored
    avoid_share: float = 0.2  # of the labelled ones
    flash: bool = False
    checks_whole: bool = True

    @property
    def packed_tokens(self) -> int:
        return max(self.micro_tokens, self.longest_row)

    @property
    def is_narrow(self) -> bool:
        """16-bit weights, with a float32 copy in the optimizer."""
        return self.precision in ("bfloat16", "float16")

    @property
    def weight_bytes(self) -> int:
        return 2 if self.is_narrow else 4

    @property
    def product_bytes(self) -> int:
        return 4 if self.precision == "float32" else 2

    def learning(self, shape: ModelShape) -> int:
        """Parameters with gradients: all, or the adapters'."""
        if self.lora_rank:
            return shape.adapter_parameters(self.lora_rank, self.lora_targets)
        return shape.parameters


def setup_of(config: TrainConfig, gpu: Gpu, longest_row: int, per_node: int) -> TrainSetup:
    """The setup of a config, for a GPU; the only place that knows the names of TrainConfig's keys.

    longest_row   curate.max_tokens
    per_node      GPUs, and workers, of one machine
    """
    return TrainSetup(
        workers=config.workers,
        workers_per_node=min(per_node, config.workers),
        zero_stage=config.zero_stage,
        precision=_precision(config.dtype, gpu),
        micro_tokens=config.micro_tokens,
        longest_row=longest_row,
        gradient_checkpointing=config.gradient_checkpointing,
        rows_per_step=config.rows_per_step,
        epochs=config.epochs,
        iterations=config.iterations,
        offload=config.offload,
        lora_rank=config.lora.r,
        lora_targets=config.lora.targets,
    )


def _precision(dtype: str, gpu: Gpu) -> Precision:
    if dtype == "bfloat16":
        return "bfloat16"
    if dtype == "float16":
        return "float16"
    return "mixed" if dtype == "auto" and gpu.bfloat16 else "float32"


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Bytes on the fullest GPU.

    update    what the optimizer's update needs besides, when activations and logits are gone
    start     while the model is read, nothing else being there yet: all of it, or in ZeRO's stage 3 the
              worker's share and a matrix on its way
    export    the exported model in the live one's type, read again to be compared with it
    beside    of others who stay on the same GPU: a server
    """

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    logits: float
    update: float
    start: float
    export: float
    beside: float = 0

    @property
    def resident(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.buffers + self.beside

    @property
    def training(self) -> float:
        """At the worst moment of a step."""
        return self.resident + max(self.activations + self.logits, self.update)

    @property
    def total(self) -> float:
        """At the worst moment of all."""
        return max(self.training, self.start + self.beside, self.resident + self.export)


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """Bytes of a node's own memory, over all of its workers; Ray's object store and caches come on top.

    start     the model, read by every worker on its own; in stage 3 a matrix, read by the first one
    offload   what the GPUs do not hold
    export    the whole model in float32 on the first worker: gathered, and after that read to be compared;
              where weights are 16 bits also once before the first step
    """

    start: float
    offload: float
    export: float

    @property
    def total(self) -> float:
        return max(self.start, self.offload + self.export)


def gpu_memory(shape: ModelShape, setup: TrainSetup, beside: float = 0) -> GpuMemory:
    """What the fullest GPU holds; `beside` are the bytes of others on it."""
    stage, workers, width = setup.zero_stage, setup.workers, setup.weight_bytes
    learning, share = setup.learning(shape), setup.learning(shape) / workers
    offloaded = setup.offload != "none" and stage > 0
    whole = width * shape.parameters
    on_gpu = {3: whole / workers}.get(stage, whole)
    gradients = width * (share if stage >= 2 else learning)
    resting = 0 if setup.offload == "all" and stage == 3 else on_gpu
    return GpuMemory(
        weights=resting,
        gradients=0 if offloaded and stage >= 2 else gradients,
        optimizer=0 if offloaded else optimizer_bytes(setup) * (share if stage else learning),
        buffers=_buffers(shape, setup),
        activations=_activations(shape, setup),
        logits=_logits(shape, setup),
        update=0 if offloaded else _update(setup, share if stage else learning),
        start=whole if stage < 3 else resting + width * _largest_matrix(shape),
        export=whole if setup.checks_whole else 0,
        beside=beside,
    )


def node_memory(shape: ModelShape, setup: TrainSetup) -> NodeMemory:
    """What a node holds beside its GPUs. Offloaded: optimizer, a float32 gradient, a 16-bit staging copy."""
    share = setup.learning(shape) / setup.workers
    offload = 0.0
    if setup.offload != "none" and setup.zero_stage:
        offload = (12 + 4 + setup.weight_bytes) * share
        if setup.offload == "all" and setup.zero_stage == 3:
            offload += setup.weight_bytes * shape.parameters / setup.workers
    whole = 4.0 * shape.parameters
    return NodeMemory(
        start=setup.workers_per_node * whole if setup.zero_stage < 3 else 4.0 * _largest_matrix(shape),
        offload=setup.workers_per_node * offload,
        export=whole,
    )


def optimizer_bytes(setup: TrainSetup) -> int:
    """Per parameter: Adam's two moments, and a float32 copy where DeepSpeed keeps one."""
    return 12 if setup.is_narrow or setup.zero_stage else 8


def _update(setup: TrainSetup, share: float) -> float:
    """The gradient in one flat piece, and in float32 where it was not."""
    if setup.zero_stage == 3:
        share = min(share, _SUB_GROUP)
    flat = setup.weight_bytes if setup.zero_stage in (1, 2) else 0
    return (flat + (4 if setup.is_narrow else 0)) * share


def _buffers(shape: ModelShape, setup: TrainSetup) -> float:
    """Gradients under way and, in stage 3, gathered weights."""
    learning, width = setup.learning(shape), setup.weight_bytes
    if setup.zero_stage >= 2:  # reserved whole, however small the model
        gathered = min(_LIVE, shape.parameters) + _largest_matrix(shape) if setup.zero_stage == 3 else 0
        return width * (_BUCKET + gathered)
    return width * min(_BUCKET, learning) if setup.workers > 1 else 0


def _largest_matrix(shape: ModelShape) -> int:
    experts = shape.experts * shape.mlp_matrices(shape.expert_intermediate) * 2 // 3 if shape.experts else 0
    return max(shape.embedding, experts)


def _activations(shape: ModelShape, setup: TrainSetup) -> float:
    """What autograd keeps, the casts of the weights, and the gradients of the layer under way."""
    width = setup.product_bytes
    mlp = _mlp_width(shape)
    under_way = setup.packed_tokens * (width * 3 * mlp + 4 * shape.hidden)
    return saved_bytes(shape, setup) + weight_casts(shape, setup) + under_way


def weight_casts(shape: ModelShape, setup: TrainSetup) -> float:
    """Autocast's bfloat16 copies of the matrices: all at once, but for frozen ones under checkpointing."""
    if setup.precision != "mixed":
        return 0
    if setup.lora_rank and setup.gradient_checkpointing:
        return 2 * shape.matrices / shape.layers
    return 2 * shape.matrices


def saved_bytes(shape: ModelShape, setup: TrainSetup) -> float:
    """What autograd keeps of the layers and the last norm, for one micro-batch; no weights."""
    tokens = setup.packed_tokens
    layer, last = _layer_bytes(shape, setup), (6 if setup.is_narrow else 8) * shape.hidden
    once = tokens * last + 2 * tokens * shape.head_dim * setup.weight_bytes
    if setup.gradient_checkpointing:
        return once + tokens * (shape.layers * shape.hidden * setup.weight_bytes + layer)
    return once + tokens * shape.layers * layer


def _layer_bytes(shape: ModelShape, setup: TrainSetup) -> float:
    """Of one token in one layer; where some layers have experts and some not, of the larger kind."""
    width, family = setup.product_bytes, shape.family
    table = {"float32": 24, "mixed": 26} if not family.layer_norm else {"float32": 16, "mixed": 16}
    norms: float = table.get(setup.precision, 8 if family.layer_norm else 16) * shape.hidden
    if family.norms == 4:  # norms behind attention and MLP: their input and what they normalised
        norms += 2 * (8 if not setup.is_narrow else 6) * shape.hidden
    if family.qk_norm:
        norms += (4 + width) * (shape.q_width + shape.kv_width)
    heard = 2 * (shape.q_width + shape.kv_width) if setup.flash else 5 * shape.q_width
    attention = width * heard + 4 * shape.heads
    return norms + attention + width * (4 if family.gated else 2) * _mlp_width(shape) + _routing(shape, width)


def _mlp_width(shape: ModelShape) -> int:
    experts = shape.experts_per_token * shape.expert_intermediate
    return max(experts, shape.intermediate if shape.expert_layers < shape.layers else 0)


def _routing(shape: ModelShape, width: int) -> int:
    """A token's hidden state goes to each of its experts and comes back from each."""
    return width * 2 * shape.experts_per_token * shape.hidden + 4 * shape.experts


def _logits(shape: ModelShape, setup: TrainSetup) -> float:
    """The loss: a chunk of logits, gradients of head (float32, and cast) and hidden states."""
    labelled = max(1, int(setup.labelled_share * setup.packed_tokens))
    chunk = min(CHUNK_LOGITS, labelled * shape.vocab)
    narrow = setup.product_bytes == 2
    head = 0 if setup.lora_rank else (4 + 2 * narrow) * shape.embedding
    if setup.precision == "mixed":
        head += 2 * shape.embedding  # the head's bfloat16 copy
    hidden = setup.packed_tokens * shape.hidden * (4 + setup.weight_bytes)
    return chunk * (4 + 2 * narrow) + head + hidden


def answering_bytes(shape: ModelShape, replies: int, tokens: int) -> float:
    """A version that answers `replies` conversations of `tokens` tokens together: weights and cache."""
    cache = 2 * _SERVED * shape.layers * shape.kv_width * replies * tokens
    return _SERVED * shape.parameters + cache
