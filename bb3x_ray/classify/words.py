"""Unsafe words, matched as whole words: a floor, never a safety solution."""

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from bb3x_ray.schemas.errors import UserError

# Ordinary talk uses these; the list that we load calls them profane.
_ALLOWED = frozenset(
    "god damn dammit crap hell butt suck sucks sucked sexy gay lesbian nerd fart poop".split()
)


@cache
def _pattern() -> re.Pattern[str]:
    spec = find_spec("glin_profanity")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the word list is missing: install it with `pip install --no-deps glin-profanity`.")
    path = Path(spec.submodule_search_locations[0]) / "data" / "dictionaries" / "english.json"
    listed = {str(word).lower() for word in json.loads(path.read_text(encoding="utf-8"))["words"]}
    words = sorted((w for w in listed - _ALLOWED if len(w) > 2), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


def unsafe_words(text: str) -> list[str]:
    """The unsafe words of a text, in lower case, in order. Boundaries count: "class" holds none."""
    return [match.group(0).lower() for match in _pattern().finditer(text)]
