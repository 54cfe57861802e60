"""Trained weights as a Hugging Face folder, and the proof that the folder holds what was trained."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bb3x_ray.language.weights import load_causal
from bb3x_ray.registry import ADAPTER_CONFIG
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train.adapters import PART, save_adapter
from bb3x_ray.train.attention import Packing, exact, segment_arguments, use_packing
from bb3x_ray.train.batches import Batch
from bb3x_ray.train.step import ConversationLoss, hidden_states

# What describes the parent rather than its child, and what save_pretrained writes itself.
_PARENTS_OWN = {"MANIFEST.json", "lineage.json", ADAPTER_CONFIG}
_WRITTEN = {"config.json", "generation_config.json"}
_COPIED_SUFFIXES = {".json", ".txt", ".model", ".jinja"}

# Same device, same arithmetic: the reloaded model should agree to the last bit. What is allowed, relative to
# the largest logit, is the noise of another order of summation: in float32 far below what one optimizer step
# changes, in half precision about a rounding.
LOGIT_TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}

Gather = Callable[[list[nn.Parameter]], AbstractContextManager[Any]]
Learned = Callable[
    [nn.Parameter], Tensor | None
]  # the float32 values behind a 16-bit weight, if there are any


def load_parent(folder: Path, base: Path | None = None) -> Any:
    """A causal model in float32, from safetensors only. Raises UserError when the folder has no weights.

    base   where the version that an adapter in `folder` stands on lies; None: beside it
    """
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: no safetensors weights there; import the model again.")
    model = load_causal(folder, torch.float32, base)
    model.config.use_cache = False
    return model


@torch.no_grad()
def check_head(module: ConversationLoss, probe: Batch, gather: Gather | None = None) -> None:
    """Raise UserError for a model that does to its logits what `Head` does not know.

    The loss multiplies by the head itself, on labelled tokens only, and would miss such a change. Under ZeRO
    stage 3 (`gather`) every rank has to call this, and comes to the same end.
    """
    model, head, packing = module.model, module.head, exact(module.packing)
    whole = live_logits(model, probe, packing)
    hidden = hidden_states(model, probe, packing)
    with gather([p for p in (head.weight, head.bias) if p is not None]) if gather else nullcontext():
        ours = head.logits(hidden).float()
    tolerance = max(1e-3, LOGIT_TOLERANCE[model.dtype])
    near = torch.allclose(whole, ours, rtol=tolerance, atol=tolerance)
    if bool(whole.isfinite().all()) and not near:
        raise UserError(
            f"model.source: {model.config.model_type} models change their logits behind the head in a way "
            "that the trainer does not know; choose another model."
        )


@torch.no_grad()
def live_logits(model: Any, probe: Batch, packing: Packing) -> Tensor:
    """[L, V] of the model as it stands; under ZeRO stage 3 every rank has to call this."""
    model.eval()
    if packing == "none":
        rows = [model(input_ids=probe.input_ids[:, start:end]).logits[0] for start, end in probe.segments]
        return torch.cat(rows).float()
    extra = segment_arguments(packing, probe.segments, probe.input_ids.device)
    logits: Tensor = model(input_ids=probe.input_ids, position_ids=probe.position_ids, **extra).logits
    return logits.squeeze(0).float()


def whole_state(
    model: nn.Module,
    gather: Gather | None,
    keep: bool,
    adapter_only: bool = False,
    learned: Learned | None = None,
) -> dict[str, Tensor]:
    """The model's state; with `gather` (ZeRO stage 3) each weight is made whole in turn on every rank.

    Only ranks with `keep` hold a copy, on the CPU.

    learned   where weights are 16 bits: what they were rounded from; every rank asks for each in turn
    """
    parameters = dict(model.named_parameters(remove_duplicate=True))
    if adapter_only:
        parameters = {name: value for name, value in parameters.items() if PART in name}
    if gather is None and learned is None:
        return dict(parameters if adapter_only else model.state_dict())
    state = {}
    for name, parameter in parameters.items():
        exact_value = learned(parameter) if learned else None
        with gather([parameter]) if gather and exact_value is None else nullcontext():
            if keep:
                value = parameter if exact_value is None else exact_value
                state[name] = value.detach().cpu().clone()
    if adapter_only:
        return state
    # Buffers are not sharded. Tied weights have one name here; save_pretrained knows the other.
    persistent = set(model.state_dict())
    return state | {name: value for name, value in model.named_buffers() if name in persistent}


def write_model(model: Any, state: dict[str, Tensor], parent: Path, out: Path) -> None:
    """Fill `out` with safetensors, config, and the parent's tokenizer files.

    Weights are float32, though the live ones or the parent's may be narrower: steps of 1e-5 are below what
    bfloat16 weights can hold.
    """
    out.mkdir(parents=True, exist_ok=True)
    _check_values(state)
    model.config.use_cache = True
    model.save_pretrained(out, state_dict=state)
    model.config.dtype = torch.float32  # it wrote the live weights' type
    model.config.save_pretrained(out)
    _copy(parent, out, without=_PARENTS_OWN | _WRITTEN)


def write_adapter(model: Any, state: dict[str, Tensor], parent: Path, out: Path) -> None:
    """Fill `out` with the adapter alone, and its base's, the parent's, config and tokenizer files."""
    out.mkdir(parents=True, exist_ok=True)
    _check_values(state)
    save_adapter(model, state, parent.name, out)
    _copy(parent, out, without=_PARENTS_OWN)


def _check_values(state: dict[str, Tensor]) -> None:
    empty = [name for name, value in state.items() if value.numel() == 0]
    if empty:
        raise RuntimeError(f"weights without values: {', '.join(empty[:3])}")


def _copy(parent: Path, out: Path, without: set[str]) -> None:
    for path in sorted(parent.iterdir()):
        ours = path.name not in without and not path.name.endswith(".safetensors.index.json")
        if path.is_file() and path.suffix in _COPIED_SUFFIXES and ours:
            shutil.copyfile(path, out / path.name)


@torch.no_grad()
def check_export(
    out: Path,
    probe: Batch,
    live: Tensor,
    packing: Packing,
    dtype: torch.dtype = torch.float32,
    base: Path | None = None,
) -> float:
    """The largest difference between the logits of the folder and of the live model (of `dtype`) on `probe`.

    One process reads the whole model for this, however it was sharded.

    base   where the version that an adapter in `out` stands on lies; None: beside it
    Raises RuntimeError above LOGIT_TOLERANCE of that type (relative to the largest logit, at least 1).
    """
    reloaded = load_parent(out, base)
    for parameter in reloaded.parameters():  # not the buffers: DeepSpeed leaves those in float32 too
        parameter.data = parameter.data.to(dtype)
    reloaded.to(live.device)  # only now: beside the live model there may be no room for float32
    use_packing(reloaded, packing)
    difference = float((live_logits(reloaded, probe, packing) - live).abs().max())
    if not difference <= LOGIT_TOLERANCE[dtype] * max(1.0, float(live.abs().max())):
        raise RuntimeError(f"the exported model is not the trained one: logits differ by {difference:.3g}")
    return difference
