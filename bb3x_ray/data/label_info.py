"""What a source says of a message beside its text: JSON in the column `details`, with the release's keys.

The columns hold gigabytes of knowledge documents, so they are searched, not parsed: a quote inside
a JSON string is written \\", hence `"safety"` with its own quotes is a key and never what somebody wrote.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# How the readers write what most messages have; any other spelling is looked at more closely.
_SAFE = '"safety":{"duo_safety":"__ok__","string_matcher":"__ok__"}'


def has_key(details: pa.ChunkedArray, key: str) -> np.ndarray:
    """[N] whether `key` is there and not null."""
    return _matches(details, f'"{key}"', rf'"{key}"\s*:\s*[^n\s]')


def tripped(details: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """([N] annotated, and not __ok__ on both annotations; [N] carries safety annotations)."""
    annotated = pc.fill_null(pc.match_substring(details, _SAFE), False).to_numpy().copy()
    trips = np.zeros(len(details), dtype=bool)
    unclear = np.flatnonzero(~annotated)
    some = details.filter(pa.array(~annotated))
    marked = _matches(some, '"safety"', r'"safety"\s*:\s*\{')
    ok = marked.copy()
    for one in ("duo_safety", "string_matcher"):
        ok &= _matches(some, one, rf'"\s?{one}"\s*:\s*"__ok__"')
    annotated[unclear], trips[unclear] = marked, marked & ~ok
    return trips, annotated


def _matches(details: pa.ChunkedArray, words: str, pattern: str) -> np.ndarray:
    """[N] where `pattern` matches; the quick search for `words` first."""
    found = pc.fill_null(pc.match_substring(details, words), False).to_numpy().copy()
    if found.any():
        some = details.filter(pa.array(found))
        found[found] = pc.match_substring_regex(some, pattern).to_numpy()
    return found


def thumbs(feedback: pa.ChunkedArray) -> pa.Array:
    """[N] 1, -1, or null where nothing stands or thumbs contradict each other. `feedback`: standing lists."""
    thumb = np.zeros(len(feedback), dtype=np.int8)
    places = _spoken(feedback)
    for place, standing in zip(places, feedback.drop_null().to_pylist(), strict=True):
        ratings = {one["rating"] for one in standing}
        if len(ratings) == 1:
            thumb[place] = ratings.pop()
    return pa.array(thumb, mask=thumb == 0)


def label_info(
    details: pa.ChunkedArray, feedback: pa.ChunkedArray, author_kind: pa.ChunkedArray
) -> pa.ChunkedArray:
    """`details`, {} for none, with is_liked, is_disliked and dislike_type as they stand by now.

    A canned safety reply says so (is_safety_controlled_response), whatever source it comes from.
    """
    column = pc.fill_null(details, "{}") if details.null_count else details
    canned = np.flatnonzero(pc.equal(author_kind, "canned").to_numpy()).tolist()
    places = sorted({*_spoken(feedback), *canned})
    about = zip(
        places,
        *(
            values.take(pa.array(places, pa.int64())).to_pylist()
            for values in (column, feedback, author_kind)
        ),
        strict=True,
    )
    changed: dict[int, str] = {}
    for place, details_of, standing, kind in about:
        before = after = json.loads(details_of)
        if standing is not None:
            after = _with_thumbs(after, standing)
        if kind == "canned" and not _says_canned(after):
            after = {**after, "is_safety_controlled_response": True}
        if after is not before:
            changed[place] = json.dumps(after, ensure_ascii=False)
    if not changed:
        return column
    mask = np.zeros(len(column), dtype=bool)
    mask[list(changed)] = True
    return pc.replace_with_mask(column, pa.array(mask), pa.array(list(changed.values()), pa.string()))


def _says_canned(about: dict[str, Any]) -> bool:
    return bool(about.get("is_safety_controlled_response") or about.get("from_model_crash"))


def _spoken(feedback: pa.ChunkedArray) -> list[int]:
    places: list[int] = np.flatnonzero(pc.is_valid(feedback).to_numpy()).tolist()
    return places


def _with_thumbs(about: dict[str, Any], standing: list[dict[str, Any]]) -> dict[str, Any]:
    """`about` with what stands; `about` itself where it says so already."""
    liked = any(one["rating"] == 1 for one in standing)
    disliked = any(one["rating"] == -1 for one in standing)
    if bool(about.get("is_liked")) == liked and bool(about.get("is_disliked")) == disliked:
        return about
    kept = {key: value for key, value in about.items() if key != "dislike_type" or disliked}
    reasons = [reason for one in standing if one["rating"] == -1 for reason in one["reasons"]]
    type_ = {"dislike_type": reasons[0]} if reasons else {}
    return {**kept, "is_liked": liked, "is_disliked": disliked, **type_}
