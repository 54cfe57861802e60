"""What opens a door: user and password in a URL, tokens and keys in its query, and well-known key shapes."""

import re
from collections.abc import Iterator

from bb3x_ray.data.pii.found import Found

# Our own replacements, which a second look leaves as they are.
REPLACED = re.compile(r"redacted-[0-9a-z]{10}", re.ASCII)

_USER_AND_PASSWORD = re.compile(
    r"\b[A-Za-z][A-Za-z0-9+.-]{1,15}://(?P<secret>[^\s/@:?#]*:[^\s/@?#]*|[^\s/@:?#]{16,})@(?=[\w\[])"
)
_IN_QUERY = re.compile(
    r"[?&#;](?:[\w.-]*(?:token|secret|passw(?:or)?d|pwd|api[_-]?key|apikey|signature|credential)|key|pass|auth|"
    r"sig|sid|session(?:_?id)?|jwt|authkey|access_key|hash|code|otp|phpsessid|jsessionid)="
    r"(?P<secret>[^\s&#;\"'<>)\]]{4,})",
    re.IGNORECASE,
)
# these also carry ordinary words ("?code=welcome", "?key=size"): only a value that looks random is a secret
_VAGUE = re.compile(r"[?&#;](?:key|code|hash|sid|pass|auth|sig)=", re.IGNORECASE)
_KEYS = re.compile(
    r"(?<![\w-])(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|sk-[\w-]{20,}|[sr]k_(?:live|test)_\w{16,}|"
    r"xox[abprs]-[\w-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}|glpat-[\w-]{20,}|"
    r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,})(?![\w-])"
)


def find(text: str) -> Iterator[Found]:
    """Secrets; in a URL only the secret, so that the place stays readable."""
    if "://" in text:
        yield from _secrets(_USER_AND_PASSWORD, text)
    if "=" in text:
        yield from _secrets(_IN_QUERY, text)
    for match in _KEYS.finditer(text):
        yield Found("credential", *match.span(), match[0])


def _secrets(pattern: re.Pattern[str], text: str) -> Iterator[Found]:
    for match in pattern.finditer(text):
        secret = match["secret"]
        if REPLACED.fullmatch(secret) or (_VAGUE.match(match[0]) and not _looks_random(secret)):
            continue
        yield Found("credential", *match.span("secret"), secret)


def _looks_random(value: str) -> bool:
    return len(value) >= 8 and any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
