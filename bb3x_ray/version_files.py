"""What must fit in a model's folder beside unaltered bytes: all shards are there, and the tokenizer's tokens
have a place in the embedding. Reads JSON and headers alone."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import read_json

INDEX, TOKENIZER = "model.safetensors.index.json", "tokenizer.json"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
_CURE = "restore it from a copy, or import the model again"


def check_version_files(folder: Path) -> None:
    """Raise UserError for a shard that is missing, or a tokenizer with tokens beyond the embedding's rows."""
    index = folder / INDEX
    if index.is_file():
        for shard in sorted(set(read_json(index)["weight_map"].values())):
            if not (folder / shard).is_file():
                raise UserError(f"{folder / shard} is missing, which {INDEX} names: {_CURE}.")
    rows, tokens = _embedding_rows(folder), _tokens(folder / TOKENIZER)
    if rows is not None and tokens is not None and tokens > rows:
        raise UserError(
            f"{folder / TOKENIZER} has {tokens} tokens and the model's embedding {rows} rows: it is another "
            f"model's tokenizer; {_CURE}."
        )


def check_tokenizer(version: tuple[str, Mapping[str, Any]], parent: tuple[str, Mapping[str, Any]]) -> None:
    """Raise UserError where a version's tokenizer is not its parent's, byte for byte.

    Both as (name, files of the manifest).
    """
    (name, files), (parents_name, parents_files) = version, parent
    ours, theirs = files.get(TOKENIZER), parents_files.get(TOKENIZER)
    if ours and theirs and ours["sha256"] != theirs["sha256"]:
        raise UserError(
            f"{name}/{TOKENIZER} is not that of {parents_name}, from which it was trained: its weights "
            f"belong to other tokens; {_CURE}."
        )


def _tokens(path: Path) -> int | None:
    """One more than the highest token id; None where there is no such file."""
    if not path.is_file():
        return None
    about = read_json(path)
    vocabulary = about.get("model", {}).get("vocab", {})
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    ids += [token["id"] for token in about.get("added_tokens", [])]
    return max(ids) + 1 if ids else None


def _embedding_rows(folder: Path) -> int | None:
    """As the files have it, else as config.json does; None where neither says."""
    for path in sorted(folder.glob("*.safetensors")):
        for name, about in _header(path).items():
            if name.endswith(_EMBEDDINGS):
                return int(about["shape"][0])
    config = folder / "config.json"
    about = read_json(config) if config.is_file() else {}
    rows = about.get("vocab_size", about.get("text_config", {}).get("vocab_size"))
    return None if rows is None else int(rows)


def _header(path: Path) -> dict[str, Any]:
    """Of a safetensors file: its length in 8 bytes, then JSON. {} for what is none."""
    with path.open("rb") as file:
        length = file.read(8)
        size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
        if not 0 < size <= path.stat().st_size - 8:
            return {}
        try:
            header: dict[str, Any] = json.loads(file.read(size))
        except ValueError:
            return {}  # the hashes say that it is what was published; whoever loads it says what it is not
    return header
