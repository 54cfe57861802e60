"""Sizes of causal language models, from what a Hugging Face config.json says: no weights are read."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bb3x_ray.registry import Registry
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage, read_json


@dataclass(frozen=True, slots=True)
class Family:
    """What model types have beyond Llama's matrices, or instead of them."""

    gated: bool = True  # three matrices in the MLP, not two
    layer_norm: bool = False  # with a bias, instead of RMSNorm
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    norms: int = 2  # a layer
    qk_norm: bool = False
    extra_positions: int | None = None  # learned positions: as many as the context is long, and so many more
    embedding_norm: bool = False
    tied: bool = False  # where config.json is silent


_PLAIN = Family(gated=False, layer_norm=True, qkv_bias=True, out_bias=True, mlp_bias=True)
FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "mixtral": Family(),
    "phi3": Family(),
    "smollm3": Family(tied=True),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm=True),
    "qwen3_moe": Family(qk_norm=True),
    "gemma": Family(tied=True),
    "gemma2": Family(norms=4, tied=True),
    "gemma3_text": Family(norms=4, qk_norm=True, tied=True),
    "gpt_neox": _PLAIN,
    "gpt2": Family(False, True, True, True, True, extra_positions=0, tied=True),
    "opt": Family(False, True, True, True, True, extra_positions=2, tied=True),
    "bloom": Family(False, True, True, True, True, embedding_norm=True, tied=True),
}

# The same thing under the names that older architectures gave it.
_NAMES = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer"),
    "num_attention_heads": ("num_attention_heads", "n_head"),
    "intermediate_size": ("intermediate_size", "ffn_dim", "n_inner"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "seq_length"),
    "num_experts": ("num_experts", "num_local_experts"),
}

_QWEN3 = {"model_type": "qwen3", "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144}
# config.json of the models that configs/*.yaml name: (layers, hidden, heads, kv heads, intermediate), rest.
_KNOWN: dict[str, tuple[tuple[int, int, int, int, int], dict[str, Any]]] = {
    "smollm2": (
        (30, 576, 9, 3, 1536),
        {"vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True},
    ),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": (
        (24, 2048, 32, 32, 8192),
        {"vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True},
    ),
    "Qwen/Qwen3-4B-Instruct-2507": ((36, 2560, 32, 8, 9728), _QWEN3 | {"tie_word_embeddings": True}),
    "Qwen/Qwen2.5-32B-Instruct": (
        (64, 5120, 40, 8, 27648),
        {"model_type": "qwen2", "vocab_size": 152064, "max_position_embeddings": 32768},
    ),
    "Qwen/Qwen3-235B-A22B-Instruct-2507": (
        (94, 4096, 64, 4, 12288),
        _QWEN3
        | {
            "model_type": "qwen3_moe",
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 1536,
        },
    ),
}
_ROW = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a causal model; counts are of parameters.

    origin         where the sizes were read, for people
    intermediate   of a dense layer's MLP; experts have `expert_intermediate`, in `expert_layers` layers
    """

    name: str
    origin: str
    family: Family
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_tokens: int
    tied: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    expert_layers: int = 0

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the token embedding, and of the head."""
        return self.vocab * self.hidden

    @property
    def attention_matrices(self) -> int:
        """Of one layer: queries, keys, values, output."""
        return self.hidden * 2 * (self.q_width + self.kv_width)

    def mlp_matrices(self, intermediate: int) -> int:
        return (3 if self.family.gated else 2) * self.hidden * intermediate

    @property
    def router(self) -> int:
        return self.hidden * self.experts

    @property
    def matrices(self) -> int:
        """Parameters of all layers' matrices, by which a forward pass multiplies; without the head."""
        return self._layers(self.experts)

    @property
    def active_matrices(self) -> int:
        """Those that one token meets."""
        return self._layers(self.experts_per_token)

    def _layers(self, experts: int) -> int:
        dense = (self.layers - self.expert_layers) * self.mlp_matrices(self.intermediate)
        expert = self.router + experts * self.mlp_matrices(self.expert_intermediate)
        return self.layers * self.attention_matrices + dense + self.expert_layers * expert

    @property
    def vectors(self) -> int:
        """Norms, biases and learned positions."""
        family, norm = self.family, (2 if self.family.layer_norm else 1) * self.hidden
        layer = family.norms * norm + (2 * self.head_dim if family.qk_norm else 0)
        layer += self.qkv_bias * (self.q_width + 2 * self.kv_width) + self.out_bias * self.hidden
        up = 2 if family.gated else 1
        dense = self.mlp_bias * (up * self.intermediate + self.hidden)
        once = norm * (2 if family.embedding_norm else 1)
        if family.extra_positions is not None:
            once += (self.max_tokens + family.extra_positions) * self.hidden
        return self.layers * layer + (self.layers - self.expert_layers) * dense + once

    @property
    def parameters(self) -> int:
        """All of them, a tied head counted once."""
        return self.matrices + self.vectors + self.embedding * (1 if self.tied else 2)

    @property
    def active_parameters(self) -> int:
        return self.parameters - self.matrices + self.active_matrices

    def adapter_parameters(self, rank: int, targets: Iterable[str] = ()) -> int:
        """LoRA's parameters: rank · (inputs + outputs) of each targeted matrix; of all, without targets.

        Experts are left out: their matrices are one tensor, which adapters do not reach.
        """
        h, q, kv, i = self.hidden, self.q_width, self.kv_width, self.intermediate
        sides = {"q_proj": h + q, "k_proj": h + kv, "v_proj": h + kv, "o_proj": q + h}
        mlp = {"up_proj": h + i, "down_proj": i + h} | ({"gate_proj": h + i} if self.family.gated else {})
        chosen = set(targets) or {*sides, *mlp}
        dense = self.layers - self.expert_layers
        in_all = self.layers * sum(size for name, size in sides.items() if name in chosen)
        return rank * (in_all + dense * sum(size for name, size in mlp.items() if name in chosen))


def shape_of(source: str, storage_root: str | Path | None = None) -> ModelShape:
    """The shape of a config's `model.source`; raises UserError with the cure when it is not to be had.

    Looked for in this order: a model folder, the champion under `storage_root` if its line began with
    `source`, the table of models that the shipped configs name, the hub. The table needs no network.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return read_shape(folder / "config.json", source)
    champion = _champion(storage_root, source) if storage_root is not None else None
    if champion is not None:
        return read_shape(champion / "config.json", f"{source} ({champion.name})")
    if source in _KNOWN:
        sizes, rest = _KNOWN[source]
        return shape_from(dict(zip(_ROW, sizes, strict=True)) | rest, source, "the table of known models")
    return read_shape(_from_hub(source), source)


def read_shape(path: Path, name: str) -> ModelShape:
    """The shape that a config.json tells of."""
    if not path.is_file():
        raise UserError(f"{path}: not there; name the folder of a Hugging Face model.")
    return shape_from(read_json(path), name, str(path))


def shape_from(config: dict[str, Any], name: str, origin: str) -> ModelShape:
    """The shape that the contents of a config.json tell of. Unknown model types are counted as Llamas.

    Raises UserError naming the key that is missing.
    """
    config = config | config.get("text_config", {})
    model_type = config.get("model_type", "llama")
    family = FAMILIES.get(model_type, Family())
    if model_type not in FAMILIES:
        origin += f"; {model_type} is counted as a Llama, roughly"

    def size(key: str, default: int | None = None) -> int:
        found = (config.get(k) for k in _NAMES.get(key, (key,)))
        value = next((v for v in found if v is not None), default)
        if not isinstance(value, int) or value < 0:
            raise UserError(f"{origin}: {key} is missing or no number; the plan needs it.")
        return value

    hidden, heads, layers = size("hidden_size"), size("num_attention_heads"), size("num_hidden_layers")
    experts = size("num_experts", 0)
    attention_bias = bool(config.get("attention_bias"))
    intermediate = size("intermediate_size", 4 * hidden)
    return ModelShape(
        name=name,
        origin=origin,
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=size("num_key_value_heads", heads),
        head_dim=size("head_dim", hidden // heads),
        intermediate=intermediate,
        vocab=size("vocab_size"),
        max_tokens=size("max_position_embeddings", 2048),
        tied=bool(config.get("tie_word_embeddings", family.tied)),
        qkv_bias=family.qkv_bias or attention_bias,
        out_bias=family.out_bias or attention_bias,
        mlp_bias=family.mlp_bias or bool(config.get("mlp_bias")),
        experts=experts,
        experts_per_token=size("num_experts_per_tok") if experts else 0,
        expert_intermediate=size("moe_intermediate_size", intermediate) if experts else 0,
        expert_layers=_expert_layers(config, layers) if experts else 0,
    )


def _expert_layers(config: dict[str, Any], layers: int) -> int:
    step, dense = config.get("decoder_sparse_step") or 1, set(config.get("mlp_only_layers") or ())
    return sum((layer + 1) % step == 0 and layer not in dense for layer in range(layers))


def _champion(root: str | Path, source: str) -> Path | None:
    """The champion's folder, if the storage root holds one whose first version came from `source`."""
    registry = Registry(Storage(root), "models")
    version = registry.alias("champion")
    if version is None:
        return None
    first, seen = version, {""}
    while first not in seen:
        seen.add(first)
        first = registry.lineage(first).get("parent") or first
    folder = registry.storage.path("models", version)
    return folder if registry.lineage(first).get("source") == source else None


def _from_hub(source: str) -> Path:
    """config.json of a model on the hub, or of its copy in the cache."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # it tells of every attempt
    try:
        return Path(hf_hub_download(source, "config.json", etag_timeout=5))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"model.source {source}: no such folder, and the hub gives no config.json "
            f"({type(error).__name__}); name a folder, a model on the hub, or one of {', '.join(_KNOWN)}."
        ) from None
