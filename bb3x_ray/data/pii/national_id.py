"""National ids: a shape that nothing else has, or a check digit beside words that speak of the id."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stdnum.au import tfn
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.gr import amka
from stdnum.ie import pps
from stdnum.il import idnr as teudat
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.my import nric
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import nif
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.tr import tckimlik
from stdnum.us import ssn
from stdnum.za import idnr as za_id

from bb3x_ray.data.pii.found import Found

_REACH = 60  # characters before a number in which the words that speak of it are looked for


@dataclass(frozen=True, slots=True)
class IdNumber:
    """One country's number.

    shape      what it looks like; looked for in upper case
    valid      its length, date and check digit
    words      what speaks of it; None where the shape and the check are so rare that nothing need
    capitals   only as capitals: without a check digit, a nickname has the same shape
    """

    shape: re.Pattern[str]
    valid: Callable[[str], bool]
    words: re.Pattern[str] | None = None
    capitals: bool = False


def _shape(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w+])(?<!\d[./-])(?:{pattern})(?!\w|[-/.]\d)", re.ASCII)


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)


def _nino(number: str) -> bool:
    """Britain's number has no check digit; what it has is a list of prefixes that are never given out."""
    return number[:2] not in {"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"}


_NINE = r"\d{3}[ .-]?\d{3}[ .-]?\d{3}"
_TEN = r"\d{3}[ -]?\d{3}[ -]?\d{4}"
_ELEVEN = r"\d(?:[ .-]?\d){10}"

_NUMBERS: tuple[IdNumber, ...] = (
    # a shape of its own
    IdNumber(_shape(r"\d{3}-\d{2}-\d{4}"), ssn.is_valid),
    IdNumber(_shape(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?\d{2}[ -]?\d{2}[ -]?\d{2}[ -]?[A-D]"), _nino,
             capitals=True),
    IdNumber(_shape(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?\d{2}[ -]?\d{2}[ -]?\d{2}[ -]?[A-D]"), _nino,
             _words(r"nino|ni|insurance")),
    IdNumber(_shape(r"[12][ ]?\d{2}[ ]?\d{2}[ ]?[\dAB]{2}[ ]?\d{3}[ ]?\d{3}[ ]?\d{2}"), nir.is_valid),
    IdNumber(_shape(r"(?:\d{8}|\d{2}\.\d{3}\.\d{3})-?[A-HJ-NP-TV-Z]"), dni.is_valid),
    IdNumber(_shape(r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]"), nie.is_valid),
    IdNumber(_shape(r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]"), codicefiscale.is_valid),
    IdNumber(_shape(r"[A-Z]{3} [A-Z]{3} \d{2}[A-EHLMPRST]\d{2} [A-Z]\d{3}[A-Z]"), codicefiscale.is_valid),
    IdNumber(_shape(r"\d{3}\.\d{3}\.\d{3}-\d{2}"), cpf.is_valid),
    IdNumber(_shape(r"(?<!\d )[2-9]\d{3} \d{4} \d{4}(?! \d)"), aadhaar.is_valid),
    IdNumber(_shape(r"(?:\d{2})?\d{6}[-+]\d{4}"), personnummer.is_valid),
    IdNumber(_shape(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]"), hetu.is_valid),
    IdNumber(_shape(r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}"), nn.is_valid),
    IdNumber(_shape(r"756\.?\d{4}\.?\d{4}\.?\d{2}"), ahv.is_valid),
    IdNumber(_shape(r"[1-9]\d{16}[\dX]"), ric.is_valid),
    IdNumber(_shape(r"\d{6}-[1-8]\d{6}"), rrn.is_valid),
    IdNumber(_shape(r"[A-Z]{3}[ABCFGHLJPT][A-Z]\d{4}[A-Z]"), pan.is_valid, capitals=True),
    IdNumber(_shape(r"[A-Z]{3}[ABCFGHLJPT][A-Z]\d{4}[A-Z]"), pan.is_valid,
             _words(r"pan|permanent\s+account")),
    IdNumber(_shape(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z\d]\d"), curp.is_valid),
    IdNumber(_shape(r"\d{1,2}\.\d{3}\.\d{3}-[\dK]"), rut.is_valid),
    IdNumber(_shape(r"\d{6}/\d{3,4}"), rc.is_valid,
             _words(r"rodn\w*|č[ií]slo|rč|r\.\s?č\.?|rc|narod\w*|birth\s+number")),
    IdNumber(_shape(r"\d{6}-\d{2}-\d{4}"), nric.is_valid),
    IdNumber(_shape(r"\d{6}-\d{4}"), cpr.is_valid, _words(r"cpr\w*(?:[-\s]?n\w+)?|personn\w+|danish\s+id")),
    IdNumber(_shape(r"\d{7}[A-W][A-IW]?"), pps.is_valid, _words(r"ppsn?|pps\s+n\w+|irish|revenue")),
    # a check digit and the words
    IdNumber(_shape(r"\d{3}[ .]?\d{2}[ .]?\d{4}"), ssn.is_valid,
             _words(r"ssn|social(?:\s+(?:security|sec))?(?:\s+(?:number|no|num))?|soc")),
    IdNumber(_shape(_TEN), nhs.is_valid, _words(r"nhs\w*|national\s+health")),
    IdNumber(_shape(_ELEVEN), idnr.is_valid,
             _words(r"steuer\w*|idnr|id-?nr\.?|identifikations\w*|tax\s+(?:id|number)|tin|german\s+tax")),
    IdNumber(_shape(r"\d{4}\.?\d{2}\.?\d{3}|\d{9}|\d{3}[ .-]\d{3}[ .-]\d{3}"), bsn.is_valid,
             _words(r"bsn\w*|burgerservice\w*|sofi\w*|burger\s?nummer")),
    IdNumber(_shape(r"\d{11}"), pesel.is_valid, _words(r"pesel\w*")),
    IdNumber(_shape(r"\d{9}[ -]?\d{2}"), cpf.is_valid, _words(r"cpf\w*|cadastro")),
    IdNumber(_shape(r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}"), aadhaar.is_valid,
             _words(r"aa?dh?aa?r\w*|uid(?:ai)?|आधार")),
    IdNumber(_shape(_NINE), sin.is_valid, _words(r"sin|social\s+insurance(?:\s+n\w+)?|nas")),
    IdNumber(_shape(_NINE), tfn.is_valid, _words(r"tfn|tax\s+file(?:\s+n\w+)?")),
    IdNumber(_shape(r"\d{6}[ ]?\d{5}"), fodselsnummer.is_valid,
             _words(r"f[øo]dsels\w*|personnummer\w*|norwegian\s+id|fnr")),
    IdNumber(_shape(r"(?:\d{2})?\d{10}"), personnummer.is_valid, _words(r"person\w*num\w*|pnr|swedish\s+id")),
    IdNumber(_shape(r"[1-9]\d{10}"), tckimlik.is_valid, _words(r"t\.?c\.?|tckn|kimlik\w*|turkish\s+id")),
    IdNumber(_shape(r"\d{8}-[\dK]"), rut.is_valid, _words(r"rut|run|chilean\s+id")),
    IdNumber(_shape(r"[1-9]\d{12}"), cnp.is_valid, _words(r"cnp\w*|cod(?:ul)?\s+numeric|romanian\s+id")),
    IdNumber(_shape(r"\d{13}|\d{6} \d{4} \d{3}"), za_id.is_valid,
             _words(r"id|id\s+(?:number|no\.?|nr)|identity|sa\s+id")),
    IdNumber(_shape(r"\d{8,9}|\d{8}-\d"), teudat.is_valid,
             _words(r"teudat|zehut|israeli\s+id|תעודת|ת\.?ז\.?")),
    IdNumber(_shape(r"\d{11}"), amka.is_valid, _words(r"amka|αμκα")),
    IdNumber(_shape(r"\d{3} ?\d{3} ?\d{3}"), nif.is_valid, _words(r"nif|contribuinte")),
    IdNumber(_shape(r"\d{6}/?\d{3,4}"), rc.is_valid, _words(r"rodn[ée]\s+č[íi]s\w+")),
)  # fmt: skip


# All but India's PAN have six digits close together: most texts with a number in them have not.
_DIGITS_TOGETHER = re.compile(r"\d(?:[A-Z .+/-]{0,2}\d){5,}", re.ASCII)
_PAN = re.compile(r"[A-Z]{5}\d{4}[A-Z]", re.ASCII)
_ROUND = 12  # characters around the digits that may belong to the number


def find(text: str) -> Iterator[Found]:
    """Numbers of the table, in any case; digits of other scripts are not looked for."""
    upper = text.upper()
    if len(upper) != len(text):  # a letter that grows, as ß does: places would no longer agree
        upper = "".join(c.upper() if len(c.upper()) == 1 else c for c in text)
    for pattern in (_DIGITS_TOGETHER, _PAN):
        for digits in pattern.finditer(upper):
            yield from _numbers(text, upper, max(0, digits.start() - _ROUND), digits.end() + _ROUND)


def _numbers(text: str, upper: str, begin: int, end: int) -> Iterator[Found]:
    """What of the table lies between two places."""
    for number in _NUMBERS:
        for match in number.shape.finditer(upper, begin, end):
            if number.words and not number.words.search(upper, max(0, match.start() - _REACH), match.start()):
                continue
            if number.capitals and not text[match.start() : match.end()].isupper():
                continue
            bare = re.sub(r"[^0-9A-Z]", "", match[0])
            if number.valid(match[0]) or number.valid(bare):
                yield Found("national_id", *match.span(), bare)
