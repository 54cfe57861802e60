"""Phone numbers. Digits alone are none: their writing, a country's plan or the words must say so."""

import re
from collections.abc import Iterator

import phonenumbers

from bb3x_ray.data.pii.found import Found, digits_of
from bb3x_ray.data.pii.phone_words import BEHIND, CALLING, NUMBER, OF_THINGS, PHONE, QUANTITY

_CANDIDATE = re.compile(
    r"(?<![^\W぀-ヿ一-鿿가-힣])(?<![.,/&?#$€£¥₹%^*-])(?<!\d:)\(?\+?\s?\(?\d(?:[\s().‐‑–—/·-]{0,3}\d){6,17}"
    r"(?![^\W぀-ヿ一-鿿가-힣]|\s?[%°€$£₹]|[.,:/-]\d)"
)
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_WORD = rf"(?:(?:double|triple)\s+)?(?:oh|o|{'|'.join(NUMBER_WORDS)})"
_SPELLED = re.compile(rf"(?<![\w-]){_WORD}(?:[\s,.-]+{_WORD}){{6,}}(?!\w)", re.IGNORECASE)
_SHORTEST, _LONGEST = 7, 15

# Countries whose numbers are written with a leading zero at home, and those asked about first
_HOMES = (
    "GB DE FR AU IT NL IN JP BE CH AT SE KR ZA TR IE NZ BR IL PH NG KE "
    "PK BD ID MY TH VN FI TW EG UA RO AE SA AR CN GH HR RS BG SI SK"
).split()
# Writings that nothing else has: North America's, Russia's, Brazil's, India's
_WRITINGS: tuple[tuple[re.Pattern[str], str | None], ...] = (
    (re.compile(r"(?:1[\s.-]?)?(?:\(\d{3}\)\s?|\d{3}[-.‐–])\d{3}[-.‐– ]\d{4}"), None),
    (re.compile(r"(?:1[\s.-])?\d{3}\s\d{3}[\s-]\d{4}"), "US"),
    (re.compile(r"[78][\s-]?\(?[3489]\d{2}\)?[\s-]?\d{3}[\s-]\d{2}[\s-]?\d{2}"), "RU"),
    (re.compile(r"\(?\d{2}\)?\s?9?\d{4}-\d{4}"), "BR"),
    (re.compile(r"[6-9]\d{4}[ -]\d{5}"), "IN"),
)

_DATES = re.compile(
    r"(?:19|20)\d\d[-./\s]\d{1,2}[-./\s]\d{1,2}(?:\s+\d{1,2}(?:[.:-]\d\d)*)?|"
    r"\d{1,2}\s?[-./]\s?\d{1,2}\s?[-./]\s?(?:19|20)?\d\d(?:\s+\d{1,2})?|"
    r"(?:1[5-9]|20)\d\d(?:\s?[-–—/,\s]\s?(?:1[5-9]|20)?\d\d)+|(?:19|20)\d{6}(?:\d{4}|\d{6})?"
)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:([ .])\d{3})(?:\1\d{3})*")
# what stands alone as an answer to "what is your number?"
_ANSWER = re.compile(r"\d{3}[-.]\d{4}|\d(?:-\d){6}|\d(?:-\d){9}")
_COUNTING = ("01234567890123456789", "98765432109876543210")


def find(text: str) -> Iterator[Found]:
    """Numbers with a country's sign, numbers written as a country does, and those that words announce."""
    for match in _CANDIDATE.finditer(text):
        if digits_of(match[0]).startswith("000"):
            continue  # one of our replacements, of which no part is looked at either
        for start, end in _windows(text, *match.span()):
            if _is_phone(text, start, end):
                yield Found("phone", start, end, canonical(text[start:end]))
                break


def is_spelled(lower: str) -> bool:
    """Whether a text in lower case may hold a number in words: a quick look."""
    return len(lower) > 20 and sum(word in lower for word in NUMBER_WORDS) >= 2


def find_spelled(text: str) -> Iterator[Found]:
    """Numbers in words, "call five five five, oh one nine nine"; counting aloud is none."""
    for match in _SPELLED.finditer(text):
        digits = _said(match[0])
        if (
            not digits.startswith("000")
            and not _counts(digits)
            and _announced(text, match.start(), match.end())
        ):
            yield Found("phone", *match.span(), digits)


def canonical(written: str) -> str:
    """The digits as they are dialled at home: "+1 (555) 010-4477" and "555-010-4477" are one."""
    digits = digits_of(written)
    number = _parsed(("+" if "+" in written else "") + digits, None if "+" in written else "US")
    return str(number.national_number) if number else digits.lstrip("0")


def _windows(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The run of digits itself, then what is left of it when a group at either end is not part of it."""
    while start < end and text[start].isspace():
        start += 1
    gaps = [m.span() for m in re.finditer(r"\s+", text[start:end])]
    yield start, end
    if len({len(group) for group in text[start:end].split()}) == 1:
        return  # a card's groups: none of them is more of it than another
    for left, right in gaps[:3]:
        yield start + right, end
        if left >= _SHORTEST:
            yield start, start + left


def _is_phone(text: str, start: int, end: int) -> bool:
    written = text[start:end].strip()
    digits = digits_of(written)
    if not _SHORTEST <= len(digits) <= _LONGEST or set(digits) <= {"0", "1"} or len(set(digits)) == 1:
        return False
    if _counts(digits):
        return _announced(text, start, end) and len(digits) >= 9
    if "+" in written:
        return _with_country(digits) and not re.search(r"\d\s*$", text[:start])
    bare = written.strip("()") if written.count("(") != written.count(")") else written
    if _DATES.fullmatch(bare) or QUANTITY.match(text, end):
        return False
    if _written_as_one(bare, digits) and not _of_things(text, start):
        return True
    if (
        _ANSWER.fullmatch(bare)
        and len(text) - len(bare) <= 16
        and not re.search(r"\d", text[:start] + text[end:])
    ):
        return not _of_things(text, start)
    return _announced(text, start, end) and _could_be(bare, digits)


def _written_as_one(written: str, digits: str) -> bool:
    """Whether it looks as one country's numbers do, and is possible there."""
    for writing, region in _WRITINGS:
        if writing.fullmatch(written) and (region is None or _valid(digits, region)):
            return True
    if digits.startswith("00"):
        return _valid("+" + digits[2:], None)
    if not digits.startswith("0") or len(digits) < 9 or _single(written) or re.fullmatch(r"0\.\d+", written):
        return False
    if written.isdigit() and len(digits) not in {10, 11}:
        return False
    return any(_valid(digits, region) for region in _HOMES)


def _could_be(written: str, digits: str) -> bool:
    """Whether digits that words announce can be a phone: not a decimal, not a round sum."""
    if re.fullmatch(r"\d+\.\d+", written) and not re.fullmatch(r"\d{3}\.\d{4}", written):
        return False
    if len(digits) <= 8 and (_THOUSANDS.fullmatch(written) or (digits.endswith("000") and written.isdigit())):
        return False
    return not (_THOUSANDS.fullmatch(written) and digits.endswith("000"))


def _announced(text: str, start: int, end: int) -> bool:
    """Whether the words say that it is a phone number, and not that of a thing."""
    before = text[max(0, start - 56) : start]
    strong = _last(PHONE, before)
    said = max(strong, _last(CALLING, before), _last(NUMBER, before))
    thing = _last(OF_THINGS, before)
    if said >= 0 and (thing < 0 or strong > thing):
        return True
    return thing < 0 and BEHIND.match(text[end : end + 40]) is not None


def _of_things(text: str, start: int) -> bool:
    before = text[max(0, start - 40) : start]
    thing = _last(OF_THINGS, before)
    return thing >= 0 and thing > max(_last(PHONE, before), _last(CALLING, before))


def _last(pattern: re.Pattern[str], text: str) -> int:
    return max((match.start() for match in pattern.finditer(text)), default=-1)


def _counts(digits: str) -> bool:
    return any(digits in run for run in _COUNTING)


def _single(written: str) -> bool:
    return all(len(group) == 1 for group in re.findall(r"\d+", written))


def _said(words: str) -> str:
    """The digits of "five double oh nine"."""
    digits, times = "", 1
    for word in re.findall(r"[a-z]+", words.lower()):
        if word in {"double", "triple"}:
            times = 2 if word == "double" else 3
            continue
        digits += ("0" if word in {"oh", "o"} else str(NUMBER_WORDS.index(word))) * times
        times = 1
    return digits


def _with_country(digits: str) -> bool:
    number = _parsed("+" + digits, None)
    return number is not None and len(digits) >= 8 and phonenumbers.is_possible_number(number)


def _valid(digits: str, region: str | None) -> bool:
    number = _parsed(digits, region)
    if number is None or region is None:
        return number is not None and phonenumbers.is_valid_number(number)
    return phonenumbers.is_valid_number_for_region(number, region)


def _parsed(digits: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return None
