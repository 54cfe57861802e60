"""Payment cards and bank accounts: a known issuer, the right length and the check digit."""

import re
from collections.abc import Iterator

from stdnum import iban as stdnum_iban
from stdnum import luhn

from bb3x_ray.data.pii.found import Found, digits_of

_RUN = re.compile(r"(?<![\w.,-])\d+(?:[ .‐–-]{1,2}\d+)*(?!\w)")
_GROUPS = re.compile(r"\d+")
# how cards print their digits; any other grouping is one only as a whole, beside words about cards
_PRINTED = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), *((n,) for n in range(13, 20))}
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|"
    r"(?:6011|65\d\d|64[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}|"
    r"(?:50|5[6-9]|6[0-9])\d{10,17}"
)
_ABOUT_CARDS = re.compile(
    r"\b(?:cards?|visa|master\s?card|amex|american express|credit|debit|karte|kreditkarte|carte|tarjeta|"
    r"cart[ãa]o|carta|kort|kart[ay]?)\b",
    re.IGNORECASE,
)
_IBAN = re.compile(r"(?<![\w])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?!\w)", re.ASCII)

_POLISH = re.compile(r"(?<![\w-])\d{2}(?: ?\d{4}){6}(?!\w)", re.ASCII)  # at home they leave out the PL


def find_cards(text: str) -> Iterator[Found]:
    """Card numbers; one that is mistyped counts where the text speaks of cards."""
    for run in _RUN.finditer(text):
        if run.end() - run.start() < 13:
            continue
        about_cards = _speaks_of_cards(text, *run.span())
        groups = [(run.start() + m.start(), run.start() + m.end()) for m in _GROUPS.finditer(run[0])]
        taken = 0
        for start, end in _windows(groups, about_cards):
            if start >= taken and _is_card(text[start:end], about_cards):
                taken = end
                yield Found("card", start, end, digits_of(text[start:end]))


def _windows(groups: list[tuple[int, int]], about_cards: bool) -> Iterator[tuple[int, int]]:
    """Neighbouring groups that are printed like a card: an expiry date may stand before or behind it."""
    sizes = [end - start for start, end in groups]
    if about_cards and 13 <= sum(sizes) <= 19:
        yield groups[0][0], groups[-1][1]
    for first in range(len(groups)):
        for last in range(first, min(first + 5, len(groups))):
            if tuple(sizes[first : last + 1]) in _PRINTED:
                yield groups[first][0], groups[last][1]


def _is_card(written: str, about_cards: bool) -> bool:
    digits = digits_of(written)
    if not _ISSUERS.fullmatch(digits):
        return False
    in_fours = [len(group) for group in _GROUPS.findall(written)] == [4, 4, 4, 4]
    # Maestro's range is so wide that any number may fall into it
    sure = digits[0] in "234" or digits[:2] in {"51", "52", "53", "54", "55", "65"} or digits[:4] == "6011"
    return (luhn.is_valid(digits) and (about_cards or sure or in_fours)) or (in_fours and about_cards)


def _speaks_of_cards(text: str, start: int, end: int) -> bool:
    before, behind = text[max(0, start - 60) : start], text[end : end + 40]
    return _ABOUT_CARDS.search(before) is not None or _ABOUT_CARDS.search(behind) is not None


def find_ibans(text: str) -> Iterator[Found]:
    """Account numbers whose check digits and length fit their country."""
    for match in _IBAN.finditer(text):
        # The words behind it look like more of it: give them back, group by group.
        written = match[0]
        while len(written) >= 15:
            compact = stdnum_iban.compact(written)
            if stdnum_iban.is_valid(compact, check_country=False):
                yield Found("iban", match.start(), match.start() + len(written), compact)
                break
            cut = max(written.rfind(" "), written.rfind("-"))
            if cut < 0:
                break
            written = written[:cut]
    for match in _POLISH.finditer(text):
        compact = "PL" + digits_of(match[0])
        if stdnum_iban.is_valid(compact, check_country=False):
            yield Found("iban", *match.span(), compact)
