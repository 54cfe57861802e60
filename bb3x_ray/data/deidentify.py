"""De-identification: what names or reaches a person is replaced before a text leaves the log.

Deidentifier(key).clean("mail me: ada@lovelace.org", "person 7")
    -> Cleaned("mail me: person-k3x0p2a7qd@example.org", {"mail": 1})
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.pii import card, credential, ip, mail, national_id, phone, street
from bb3x_ray.data.pii.found import Found, Kind, without_overlaps
from bb3x_ray.data.pii.name import MODEL, NameFinder
from bb3x_ray.data.pii.pseudonym import OUR_NAME, Pseudonyms

# What a column is looked through for (RE2's syntax): without one of these, nothing but a name is in a text.
_NUMBER_WORD = "(?:zero|oh|o|one|two|three|four|five|six|seven|eight|nine|double|triple)"
_HINTS = (
    rf"(?i)\p{{Nd}}|@|@|://|\b(?:dot|arroba|arobase|chiocciola|punkt|punto|ponto|point)\b|[(\[{{<]\s*at\b"
    rf"|\bat\s+[\w-]+\s?\.|\b{_NUMBER_WORD}[\s,.-]+{_NUMBER_WORD}\b"
)
_SIGN = re.compile(r"[\d@@]")
_DIGIT = re.compile(r"\d")
_TRIES = 24
_SEEN = 200  # characters on either side of a place: more than any finder looks at


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text that may leave the log, and how many of each kind were replaced in it."""

    text: str
    found: dict[Kind, int]


class Deidentifier:
    """Finds and replaces mail addresses, phones, cards, accounts, national ids, public IP addresses,
    credentials and house numbers; with `names`, also people's names in English text.

    key      at least 16 secret bytes: with the same key, a person's replacements are the same in every text
    names    needs the extra `bb3x-ray[pii]` and the spaCy model `model`

    Cleaning a cleaned text changes nothing. Raises UserError for a short key, and when names are asked for
    and their packages are missing. Made once for each process; it holds no text.
    """

    def __init__(self, key: bytes, names: bool = False, model: str = MODEL) -> None:
        self._pseudonyms = Pseudonyms(key)
        self._names = NameFinder(model) if names else None

    def clean(self, text: str, person: str) -> Cleaned:
        """`text` with everything that identifies somebody replaced, for the one who wrote or hears it."""
        found = self.find(text)
        if not found:
            return Cleaned(text, {})
        for one in reversed(found):
            text = text[: one.start] + self._instead(one, text, person) + text[one.end :]
        return Cleaned(text, dict(Counter(one.kind for one in found)))

    def clean_column(self, texts: pa.Array, persons: pa.Array) -> tuple[pa.Array, Counter[Kind]]:
        """The same for a column of strings beside the column of their persons; null stays null.

        Most rows are passed over without becoming Python strings.
        """
        if self._names is None:
            wanted = pc.indices_nonzero(pc.fill_null(pc.match_substring_regex(texts, _HINTS), False))
        else:
            wanted = pc.indices_nonzero(pc.is_valid(texts))
        counts: Counter[Kind] = Counter()
        changed: dict[int, str] = {}
        rows = zip(
            wanted.to_pylist(), texts.take(wanted).to_pylist(), persons.take(wanted).to_pylist(), strict=True
        )
        for row, text, person in rows:
            cleaned = self.clean(text, person or "")
            if cleaned.found:
                changed[row] = cleaned.text
                counts.update(cleaned.found)
        return _with(texts, changed), counts

    def clean_json(self, details: str, person: str) -> Cleaned:
        """The same for each string inside a JSON text; keys, numbers and truth values stay."""
        counts: Counter[Kind] = Counter()

        def walk(value: Any) -> Any:
            if isinstance(value, str):
                cleaned = self.clean(value, person)
                counts.update(cleaned.found)
                return cleaned.text
            if isinstance(value, list):
                return [walk(item) for item in value]
            if isinstance(value, dict):
                return {key: walk(item) for key, item in value.items()}
            return value

        walked = walk(json.loads(details))
        return (
            Cleaned(json.dumps(walked, ensure_ascii=False), dict(counts)) if counts else Cleaned(details, {})
        )

    def find(self, text: str) -> list[Found]:
        """What identifies somebody in `text`, in its order, nothing twice."""
        if self._names is None:
            return without_overlaps(find_written(text)) if _may_hold_any(text) else []
        names = (one for one in self._names.find(text) if not OUR_NAME.fullmatch(text[one.start : one.end]))
        return without_overlaps(chain(find_written(text), names))

    def _instead(self, found: Found, text: str, person: str) -> str:
        """The first replacement that is another text and that a second look would leave as it is."""
        written = text[found.start : found.end]
        tried = ""
        for tried in islice(self._pseudonyms.tries(found, written, person), _TRIES):
            if tried != written and not self._finds_again(
                replace(found, end=found.start + len(tried)), text, found.end, tried
            ):
                return tried
        return tried

    def _finds_again(self, place: Found, text: str, rest: int, tried: str) -> bool:
        if place.kind == "name":
            return False  # known by its list
        begin = max(0, place.start - _SEEN)
        looked = text[begin : place.start] + tried + text[rest : rest + _SEEN]
        start, end = place.start - begin, place.end - begin
        return any(one.start < end and start < one.end for one in find_written(looked))


def _may_hold_any(text: str) -> bool:
    """A quick look that most of what people say does not pass."""
    if _SIGN.search(text) or "://" in text:
        return True
    lower = text.lower()
    return mail.is_spelled(lower) or phone.is_spelled(lower)


def find_written(text: str) -> Iterator[Found]:
    """All but names. The surest kinds come first: where two lie over each other, the first wins."""
    lower = text.lower()
    yield from credential.find(text)
    if "@" in text or "@" in text or mail.is_spelled(lower):
        yield from mail.find(text)
    digits = len(_DIGIT.findall(text))
    if digits >= 11:
        yield from card.find_ibans(text)
        yield from card.find_cards(text)
    if digits >= 4:
        yield from national_id.find(text)
    if digits >= 2:
        yield from ip.find(text)
    if digits >= 7:
        yield from phone.find(text)
    if phone.is_spelled(lower):
        yield from phone.find_spelled(text)
    if digits:
        yield from street.find(text)


def _with(texts: pa.Array, changed: dict[int, str]) -> pa.Array:
    """The column with some rows set anew."""
    if not changed:
        return texts
    rows = sorted(changed)
    mask = np.zeros(len(texts), dtype=bool)
    mask[rows] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array([changed[row] for row in rows], texts.type))
