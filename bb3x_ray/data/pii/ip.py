"""IP addresses that may lead to a person: public ones. Version numbers and the router at home stay."""

import ipaddress
import re
from collections.abc import Iterator

from bb3x_ray.data.pii.found import Found

_V4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)", re.ASCII)
_V6 = re.compile(r"(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}(?:[0-9a-f]{1,4})?(?![\w:])", re.IGNORECASE | re.ASCII)
_VERSION = re.compile(
    r"(?:\bv\.?|\bver\b\.?|version\w*|build|release[ds]?|firmware|patch\w*|upgraded?|updated?|chapter|section|"
    r"clause|§|paragraph|driver\w*|oid|kernel|ios|android|macos|windows|linux|ubuntu|chrome|firefox|"
    r"java|python|node|app|sdk|update|patch)\s*(?:to|from|is|of|number|no\.?|:|=)*\s*$",
    re.IGNORECASE,
)
_ABOUT_IP = re.compile(
    r"(?:\b|_)(?:ip|ipv4|ipv6|address\w*|server\w*|hosts?|ping\w*|ssh|dns|router|vpn|proxy|port|connect\w*|"
    r"login|logged|traceroute|whois|ban\w*|subnet|gateway|telnet|ftp|curl|wget|nmap|nslookup|adresse|dirección|indirizzo|serveur)\b",
    re.IGNORECASE,
)
# resolvers that everybody uses
_FAMOUS = frozenset(
    {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "208.67.222.222", "208.67.220.220"}
)


def find(text: str) -> Iterator[Found]:
    """Public addresses of both versions."""
    if text.count(".") >= 3:
        for match in _V4.finditer(text):
            if _is_public(match[0]) and match[0] not in _FAMOUS and not _is_version(text, match):
                yield Found("ip", *match.span(), match[0])
    if text.count(":") >= 2:
        for match in _V6.finditer(text):
            if len(match[0]) > 4 and _is_public(match[0]):
                yield Found("ip", *match.span(), str(ipaddress.ip_address(match[0])))


def _is_public(written: str) -> bool:
    try:
        return ipaddress.ip_address(written).is_global
    except ValueError:  # not an address: 300.1.2.3, a time, a C++ name
        return False


def _is_version(text: str, match: re.Match[str]) -> bool:
    """Four small numbers are a version or a chapter unless the text speaks of machines."""
    before = text[max(0, match.start() - 40) : match.start()]
    if _VERSION.search(before):
        return True
    if _ABOUT_IP.search(before) or text[match.end() : match.end() + 1] in {":", "/"}:
        return False
    return all(int(part) < 32 for part in match[0].split("."))
