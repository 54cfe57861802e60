"""Mail addresses: plain, broken over spaces, or written out ("john dot doe at gmail dot com")."""

import re
from collections.abc import Iterator

from bb3x_ray.data.pii.found import Found

_PROVIDERS = (
    "gmail|googlemail|yahoo|ymail|rocketmail|hotmail|outlook|live|msn|icloud|aol|gmx|web|protonmail|proton|"
    "tutanota|fastmail|zoho|mail|yandex|rambler|qq|163|126|naver|hanmail|rediffmail|libero|virgilio|orange|"
    "wanadoo|laposte|free|t-online|freenet|comcast|verizon|btinternet|bigpond|wp|onet|interia|o2|uol|bol|terra|"
    "seznam|abv|ukr"
)
_ENDINGS = frozenset(
    "com net org edu gov mil int info biz io ai app dev co uk us ca au nz ie de at ch fr be nl lu it es "
    "pt br mx ar cl pe ve uy se no dk fi is pl cz sk hu ro bg gr tr ru ua by kz lt lv ee hr si rs in pk "
    "bd lk cn hk tw jp kr sg my th vn ph id za ng ke gh eg ma il ae sa ir eu me tv cc ws xyz online "
    "site club name email".split()
)
# Our own replacements, of an address and of a password before a host: a second look leaves them.
REPLACED = re.compile(r"person-[0-9a-z]{10}@example\.org|redacted-[0-9a-z]{10}@[\w.-]+", re.ASCII)

_PLAIN = re.compile(
    r"(?<![\w.+%'’-])[\w+][\w.+%'’-]*[@@](?:(?:[\w-]+\.)+[^\W\d_]{2,24}(?![\w-])"
    rf"|(?i:{_PROVIDERS})(?![\w.@-]|\.\w))"
)
_NEXT_SENTENCE = re.compile(r"(?<=\.(?:com|net|org|edu))\.[A-Z][a-z]+$")  # "…@school.edu.Thanks"
_LETTER_BY_LETTER = re.compile(r"(?<![\w.])\w(?: [\w.+-]){1,40} ?[@@] ?\w(?: [\w.-]){1,40}(?!\w)")

# Every repetition is bounded: people send pages of blanks and dots.
_GAP, _SPACE = r"\s{0,3}", r"\s{1,3}"
_OPEN, _SHUT = rf"{_GAP}[\[({{<]{_GAP}", rf"{_GAP}[\])}}>]{_GAP}"
_DOT_WORDS = "dot|punto|ponto|point|punkt"
_WORD_DOT = rf"{_OPEN}(?:{_DOT_WORDS}|\.){_SHUT}|{_SPACE}(?:{_DOT_WORDS}){_SPACE}"
_WORD_AT = rf"{_OPEN}(?:at|@|arroba|arobase){_SHUT}"
_AT = (
    rf"(?:(?P<sure>{_WORD_AT})|(?P<sign>{_GAP}[@@]{_GAP})"
    rf"|(?P<word>{_SPACE}(?:at|arroba|arobase|chiocciola|ät){_SPACE}))"
)
_LABEL = r"[^\W_](?:[\w-]{0,62}[^\W_])?"
_FAR_END = re.compile(
    rf"{_AT}(?P<domain>(?P<host>{_LABEL})"
    rf"(?:(?:(?P<spelled>{_WORD_DOT})|\.)(?P<rest>{_LABEL}(?:(?:{_WORD_DOT}|\.){_LABEL})?)"
    rf"|\s?\.\s?(?P<loose>(?:com|net|org|de|fr|co\.uk|it|es|ru|in))))(?![\w-])",
    re.IGNORECASE,
)
_JOINT = (
    rf"(?:{_OPEN}(?:dot|\.|underscore|dash){_SHUT}|\.|\s\.\s|{_SPACE}(?:{_DOT_WORDS}|underscore|dash|hyphen|minus|plus|"
    rf"guion|guión|bindestrich|unterstrich|tiret|trattino){_SPACE})"
)
_NEAR_END = re.compile(rf"(?<![\w.])(?:\w+ (?=\d+$))?[\w+%-]+(?:{_JOINT}[\w+%-]+)*$", re.IGNORECASE)
_ABOUT_MAIL = re.compile(
    r"(?:\b|_)(?:e-?\s?mails?|mails?|mailed|gmail|inbox|contact|reach|write|correo|courriel|mél|"
    r"adresse?|address|posta|skicka|escr[ií]b\w*|schreib\w*|écri\w*|scriv\w*|почт\w*)\b",
    re.IGNORECASE,
)
# "look at google dot com" is talk of a place, not of a person
_NOT_A_NAME = frozenset(
    "a about account accounts addresses all am an and any are arrived be been book bought buy by check "
    "click come deals find for found go going good got great have he her here him i i'm im is it job "
    "jobs just live located look looked looking lunch me meet more my now of on online one or order "
    "ordered out page read saw search see seen she shop shopping sign stay stuff support team that the "
    "them there they thing things this to up us video visit was watch watched we were work worked "
    "working works you your".split()
)
_SPELLED = (
    (re.compile(r"\s*[\[({<]\s*|\s*[\])}>]\s*"), " "),
    (re.compile(r"\s+(?:dot|punto|ponto|point|punkt|\.)\s+"), "."),
    (re.compile(r"\s+(?:at|arroba|arobase|chiocciola|ät|@)\s+"), "@"),
    (re.compile(r"\s+(?:underscore|unterstrich|guion|guión)\s+"), "_"),
    (re.compile(r"\s+(?:dash|hyphen|minus|bindestrich|tiret|trattino)\s+"), "-"),
    (re.compile(r"\s+plus\s+"), "+"),
    (re.compile(r"\s+"), ""),
)


_SPELLED_AT = (" at ", "(at", "[at", "{at", "<at", "arroba", "arobase", "chiocciola", " ät ")


def is_spelled(lower: str) -> bool:
    """Whether a text in lower case, without "@", may hold an address in words: a quick look."""
    if not any(sign in lower for sign in _SPELLED_AT):
        return False
    dotted = "." in lower[:-1] or any(word in lower for word in _DOT_WORDS.split("|"))
    return dotted and _FAR_END.search(lower) is not None


def find(text: str) -> Iterator[Found]:
    """Every mail address, however it is written."""
    if "@" in text or "@" in text:
        for match in _LETTER_BY_LETTER.finditer(text):
            if _PLAIN.fullmatch(match[0].replace(" ", "")):
                yield _found(text, *match.span())
        for match in _PLAIN.finditer(text):
            written = _NEXT_SENTENCE.sub("", match[0])
            if not REPLACED.fullmatch(written) and not written.lower().startswith("git@"):
                yield _found(text, match.start(), match.start() + len(written))
    for match in _FAR_END.finditer(text):
        near = _NEAR_END.search(text, max(0, match.start() - 80), match.start())
        ours = near and REPLACED.fullmatch(text, near.start(), match.end())
        if near and not ours and _is_address(text, near, match):
            yield _found(text, near.start(), match.end())


def _found(text: str, start: int, end: int) -> Found:
    return Found("mail", start, end, canonical(text[start:end]))


def canonical(written: str) -> str:
    """The address as a mail program would write it.

    >>> canonical("John dot Doe (at) Gmail dot com")
    'john.doe@gmail.com'
    """
    address = written.lower().replace("@", "@")
    for spelled, sign in _SPELLED:
        address = spelled.sub(sign, address)
    return address


def _is_address(text: str, near: re.Match[str], far: re.Match[str]) -> bool:
    """Whether "X at Y" is an address: the more ordinary the words are, the more must speak for it."""
    provider = re.fullmatch(_PROVIDERS, far["host"], re.IGNORECASE) is not None
    if far["loose"]:  # "gmail . com"; with any other host this is the end of a sentence
        if not provider:
            return False
    elif re.split(r"[\W_]+", far["rest"].lower())[-1] not in _ENDINGS:
        return False
    local = near[0]
    composed = bool(re.search(r"[.\d_+-]|\s", local)) and not local.isdecimal()
    if local.lower() in _NOT_A_NAME:
        return False
    if far["sure"] or (composed and (far["spelled"] or far["sign"] or provider or "." in local)):
        return True
    if _ABOUT_MAIL.search(text, max(0, near.start() - 60), near.start()):
        return not local.isdecimal()
    return provider and bool(far["spelled"] or far["sign"])
