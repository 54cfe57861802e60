"""What stands in the place of what identified somebody.

The same thing said by the same person has the same replacement, whatever the writing; said by somebody
else it has another. Both follow from a secret key, without which nothing leads back. No replacement can be
somebody's: addresses lie in ranges that are reserved for examples, phones and cards begin with 000, check
digits do not fit.
"""

import hashlib
import re
from collections.abc import Iterator

from bb3x_ray.data.pii.found import Found
from bb3x_ray.data.pii.phone import NUMBER_WORDS
from bb3x_ray.schemas.errors import UserError

SHORTEST_KEY = 16
_ZEROS = "000"  # begins no phone number, no card and no social security number
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
# RFC 5737's and RFC 3849's addresses for documents
_EXAMPLE_NETS = ("192.0.2", "198.51.100", "203.0.113")
_EXAMPLE_NET6 = "2001:db8"
# invented, so that a name of this kind is known as ours
_GIVEN = (
    "Ardelo Benuvi Coralen Davinka Elorin Fenwara Galindre Havoni "
    "Iselda Jorvane Kelindo Lunavi Morelka Nerisol Ovandre Perlina"
).split()
_FAMILY = (
    "Abrenvale Brindolar Cestovan Dunmarel Estrovik Falkonde Gremaldy Hostavin "
    "Ingeldor Jastrovel Kormandel Lestrovan Mindarov Norvalden Ostremil Pradovin"
).split()
OUR_NAME = re.compile(rf"(?:{'|'.join(_GIVEN)})(?:\s+(?:{'|'.join(_FAMILY)}))?", re.IGNORECASE)


class Pseudonyms:
    """Replacements under one key of at least 16 bytes, else UserError."""

    def __init__(self, key: bytes) -> None:
        if len(key) < SHORTEST_KEY:
            raise UserError(
                f"the key for pseudonyms has {len(key)} bytes: give at least {SHORTEST_KEY}, "
                'for instance from python -c "import secrets; print(secrets.token_hex(32))".'
            )
        self._key = hashlib.sha256(key).digest()

    def tries(self, found: Found, written: str, person: str) -> Iterator[str]:
        """Replacements for `written`, without end and always the same ones; the first that suits is taken."""
        attempt = 0
        while True:
            source = self._source(found, person, attempt)
            attempt += 1
            yield _replacement(found, written, source)

    def _source(self, found: Found, person: str, attempt: int) -> int:
        """A number of 512 bits that nobody guesses without the key."""
        digest = hashlib.blake2b(key=self._key)
        for part in (person, found.kind, found.value, str(attempt)):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8) + encoded)
        return int.from_bytes(digest.digest())


def _replacement(found: Found, written: str, source: int) -> str:
    match found.kind:
        case "mail":
            return f"person-{_short(source)}@example.org"
        case "credential":
            return f"redacted-{_short(source)}"
        case "ip":
            return _address(found.value, source)
        case "street_number":
            return _house(written, source)
        case "iban":
            return "XX00" + _shaped(re.sub(r"^\W*(?:\w\W*){3}\w", "", written), source)
        case "name":
            return _name(written, source)
        case "phone" if not any(character.isdecimal() for character in written):
            return " ".join(NUMBER_WORDS[int(digit)] for digit in _shaped(found.value, source))
        case _:
            return _shaped(written, source)


def _short(source: int) -> str:
    return "".join(_BASE32[source >> 5 * place & 31] for place in range(10))


def _address(written: str, source: int) -> str:
    if ":" in written:
        return f"{_EXAMPLE_NET6}::{source % 0xFFFF + 1:x}:{(source >> 16) % 0xFFFF + 1:x}"
    return f"{_EXAMPLE_NETS[source % 3]}.{(source >> 8) % 254 + 1}"


def _house(written: str, source: int) -> str:
    """Digits behind a zero, with which no house's number begins."""
    compact = "".join(written.split())
    lead = re.match(r"\d+", compact)
    first = lead[0] if lead else ""
    rest = _shaped(compact[len(first) :], source >> 64, zeros=False)
    return "0" + str(source % 10**8).zfill(8)[: max(1, len(first) - 1)] + rest


def _name(written: str, source: int) -> str:
    given = _GIVEN[source % len(_GIVEN)]
    return f"{given} {_FAMILY[(source >> 8) % len(_FAMILY)]}" if len(written.split()) > 1 else given


def _shaped(written: str, source: int, zeros: bool = True) -> str:
    """The same signs between other digits and letters; counted from the end, so that a country's prefix
    before a number changes nothing of what follows. Three zeros go first where all are digits."""
    shaped, places = [], sum(character.isalnum() for character in written)
    if any(character.isalpha() for character in written):
        zeros = False
    for character in reversed(written):
        if not character.isalnum():
            shaped.append(character)
            continue
        places -= 1
        source, drawn = divmod(source, 10 * 26)
        if character.isdecimal():
            digit = 0 if zeros and places < len(_ZEROS) else drawn % 10
            shaped.append(chr(ord(character) - int(character) + digit))
        else:
            letter = _LETTERS[drawn % 26]
            shaped.append(letter.upper() if character.isupper() else letter)
    return "".join(reversed(shaped))
