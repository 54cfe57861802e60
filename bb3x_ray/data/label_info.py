"""What a source says of a message beside its text: JSON in the column `details`, with the release's keys.

The columns hold gigabytes of knowledge documents, so they are searched, not parsed: a quote inside
a JSON string is written \\", hence `"safety"` with its own quotes is a key and never what somebody wrote.
"""

import json
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.shard import in_one

# How the readers write what most messages have; any other spelling is looked at more closely.
_SAFE = '"safety":{"duo_safety":"__ok__","string_matcher":"__ok__"}'


def has_key(details: pa.ChunkedArray, key: str) -> np.ndarray:
    """[N] whether `key` is there and not null."""
    return _matches(details, f'"{key}"', rf'"{key}"\s*:\s*[^n\s]')


def tripped(details: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """([N] annotated, and not __ok__ on both annotations; [N] carries safety annotations)."""
    annotated = _mask(pc.ends_with(details, _SAFE + "}"))  # most of people's messages end so, which is quick
    rest = np.flatnonzero(~annotated)
    some = details.filter(pa.array(~annotated))
    found = _mask(pc.match_substring(some, _SAFE))
    annotated[rest] = found
    trips = np.zeros(len(details), dtype=bool)
    unclear, some = rest[~found], some.filter(pa.array(~found))
    marked = _matches(some, '"safety"', r'"safety"\s*:\s*\{')
    ok = marked.copy()
    for one in ("duo_safety", "string_matcher"):
        ok &= _matches(some, one, rf'"\s?{one}"\s*:\s*"__ok__"')
    annotated[unclear], trips[unclear] = marked, marked & ~ok
    return trips, annotated


def _matches(details: pa.ChunkedArray, words: str, pattern: str) -> np.ndarray:
    """[N] where `pattern` matches; the quick search for `words` first."""
    found = _mask(pc.match_substring(details, words))
    if found.any():
        some = details.filter(pa.array(found))
        found[found] = pc.match_substring_regex(some, pattern).to_numpy()
    return found


def _mask(found: pa.ChunkedArray) -> np.ndarray:
    """[N] null is False."""
    mask: np.ndarray = pc.fill_null(found, False).to_numpy().copy()
    return mask


def thumbs(feedback: pa.ChunkedArray) -> pa.Array:
    """[N] 1, -1, or null where nothing stands or thumbs contradict each other. `feedback`: standing lists."""
    liked, disliked = _rated(feedback, 1), _rated(feedback, -1)
    return pa.array(liked.astype(np.int8) - disliked, mask=liked == disliked)


def _rated(feedback: pa.ChunkedArray, rating: int) -> np.ndarray:
    """[N] whether somebody's standing feedback says so."""
    standing = in_one(feedback)
    rated = np.zeros(len(standing), dtype=bool)
    says_so = standing.flatten().field("rating").to_numpy() == rating
    rated[pc.list_parent_indices(standing).to_numpy()[says_so]] = True
    return rated


def label_info(
    details: pa.ChunkedArray, feedback: pa.ChunkedArray, author_kind: pa.ChunkedArray
) -> pa.ChunkedArray:
    """`details`, {} for none, with is_liked, is_disliked and dislike_type as they stand by now.

    A canned safety reply says so (is_safety_controlled_response), whatever source it comes from.
    """
    column = pc.fill_null(details, "{}") if details.null_count else details
    spoken, canned = pc.is_valid(feedback).to_numpy(), pc.equal(author_kind, "canned").to_numpy()
    liked, disliked = _rated(feedback, 1), _rated(feedback, -1)
    places = np.flatnonzero(spoken | canned)
    changed: dict[int, str] = {}
    for place, text in zip(places.tolist(), column.take(pa.array(places)).to_pylist(), strict=True):
        about = orjson.loads(text)
        says_so = not spoken[place] or _says_thumbs(about, liked[place], disliked[place])
        if not says_so or (canned[place] and not _says_canned(about)):
            about = json.loads(text)  # exactly what is there; few come here
            if not says_so:
                about = _with_thumbs(about, feedback[place].as_py())
            if canned[place] and not _says_canned(about):
                about["is_safety_controlled_response"] = True
            changed[place] = json.dumps(about, ensure_ascii=False)
    if not changed:
        return column
    mask = np.zeros(len(column), dtype=bool)
    mask[list(changed)] = True
    return pc.replace_with_mask(column, pa.array(mask), pa.array(list(changed.values()), pa.string()))


def _says_thumbs(about: dict[str, Any], liked: bool, disliked: bool) -> bool:
    return bool(about.get("is_liked")) == liked and bool(about.get("is_disliked")) == disliked


def _says_canned(about: dict[str, Any]) -> bool:
    return bool(about.get("is_safety_controlled_response") or about.get("from_model_crash"))


def _with_thumbs(about: dict[str, Any], standing: list[dict[str, Any]]) -> dict[str, Any]:
    liked = any(one["rating"] == 1 for one in standing)
    disliked = any(one["rating"] == -1 for one in standing)
    kept = {key: value for key, value in about.items() if key != "dislike_type" or disliked}
    reasons = [reason for one in standing if one["rating"] == -1 for reason in one["reasons"]]
    type_ = {"dislike_type": reasons[0]} if reasons else {}
    return {**kept, "is_liked": liked, "is_disliked": disliked, **type_}
