"""A place in a text that identifies somebody, and which one counts where several lie over each other."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["credential", "mail", "iban", "card", "national_id", "ip", "phone", "street_number", "name"]

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Found:
    """`text[start:end]` identifies somebody.

    value   the same thing however it was written ("John dot Doe at gmail dot com" and
            "john.doe@gmail.com" have one), so that it gets the same pseudonym
    """

    kind: Kind
    start: int
    end: int
    value: str


def without_overlaps(found: Iterable[Found]) -> list[Found]:
    """What remains, in the order of the text, when the earlier one given wins over those that overlap it."""
    kept: list[Found] = []
    for one in found:
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)


def digits_of(text: str) -> str:
    """The decimal digits of a text, as ASCII (people also type Arabic, Devanagari or full-width ones)."""
    if text.isascii():
        return "".join(filter(str.isdigit, text))
    return "".join(str(int(character)) for character in text if character.isdecimal())
