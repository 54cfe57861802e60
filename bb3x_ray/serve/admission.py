"""Who may ask how often: for each caller a bucket of requests and one of model tokens, and how many at once.

Pure: it is told the time. Each replica counts for itself.

    admission.enter("ip:10.0.0.7")     # or Refused, which knows when to come again
    admission.spend("ip:10.0.0.7", 84)
    admission.leave("ip:10.0.0.7")
"""

import hashlib
import ipaddress
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from bb3x_ray.config import ServeConfig
from bb3x_ray.schemas.errors import UserError

CALLERS_REMEMBERED = 10_000
_SHORTEST_KEY = 16


class Refused(Exception):
    """The caller must wait. `limit` names which one of Limits was met."""

    def __init__(self, limit: str, retry_after_s: int) -> None:
        super().__init__(limit)
        self.limit = limit
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one caller; 0: no limit. After a minute's rest a whole minute's worth may come at once."""

    requests_per_minute: int
    tokens_per_minute: int
    concurrent_requests: int

    @classmethod
    def of(cls, config: ServeConfig) -> "Limits":
        return cls(config.requests_per_minute, config.tokens_per_minute, config.concurrent_requests)


@dataclass(slots=True)
class _Bucket:
    """Holds a minute's worth; what is spent beyond it is a debt."""

    per_minute: int
    level: float
    since: float

    def fill(self, now: float) -> None:
        self.level = min(self.per_minute, self.level + (now - self.since) * self.per_minute / 60)
        self.since = now

    def wait_for(self, level: float) -> int:
        """Seconds until it holds so much, at least 1."""
        return max(1, math.ceil((level - self.level) * 60 / self.per_minute))

    def holds(self, level: float) -> bool:
        return self.level > level - 1e-6  # who waited as long as told must not be a rounding short


@dataclass(slots=True)
class _Caller:
    requests: _Bucket
    tokens: _Bucket
    under_way: int = 0


class Admission:
    """clock   seconds that only grow"""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        capacity: int = CALLERS_REMEMBERED,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._capacity = capacity
        self._callers: OrderedDict[str, _Caller] = OrderedDict()  # who came last stands last

    def __len__(self) -> int:
        return len(self._callers)

    def enter(self, name: str) -> None:
        """A request begins; `leave` must follow. Raises Refused, and then it has not begun."""
        limits, caller = self._limits, self._caller(name)
        if limits.concurrent_requests and caller.under_way >= limits.concurrent_requests:
            raise Refused("concurrent_requests", 1)
        if limits.requests_per_minute and not caller.requests.holds(1):
            raise Refused("requests_per_minute", caller.requests.wait_for(1))
        if limits.tokens_per_minute and caller.tokens.level <= 0:
            raise Refused("tokens_per_minute", caller.tokens.wait_for(1))
        caller.requests.level -= 1
        caller.under_way += 1

    def leave(self, name: str) -> None:
        self._callers[name].under_way -= 1

    def spend(self, name: str, tokens: int) -> None:
        """What a reply took is known when it is written: the next request pays for it."""
        self._caller(name).tokens.level -= tokens

    def _caller(self, name: str) -> _Caller:
        now, limits = self._clock(), self._limits
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = _Caller(
                _Bucket(limits.requests_per_minute, limits.requests_per_minute, now),
                _Bucket(limits.tokens_per_minute, limits.tokens_per_minute, now),
            )
            self._forget_some()
        self._callers.move_to_end(name)
        caller.requests.fill(now)
        caller.tokens.fill(now)
        return caller

    def _forget_some(self) -> None:
        """Who has not come for longest is forgotten first, but nobody whose request is under way."""
        while len(self._callers) > self._capacity:
            idle = next((name for name, caller in self._callers.items() if not caller.under_way), None)
            if idle is None:
                return
            del self._callers[idle]


@dataclass(frozen=True, slots=True)
class Access:
    """SHA-256 of the keys that are let in: for people's calls (none: everybody), and for the admin's."""

    keys: frozenset[str] = field(default=frozenset(), repr=False)
    admin: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, config: ServeConfig) -> "Access":
        """Raises UserError when a variable that the config names holds no good key."""
        return cls(
            _keys("serve.api_keys_env", config.api_keys_env),
            _keys("serve.admin_key_env", config.admin_key_env),
        )


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _keys(setting: str, variable: str) -> frozenset[str]:
    if not variable:
        return frozenset()
    keys = os.environ.get(variable, "").replace(",", " ").split()
    if not keys or any(len(key) < _SHORTEST_KEY for key in keys):
        raise UserError(
            f"{setting}: the environment variable that it names must hold keys of at least {_SHORTEST_KEY} "
            "characters, with commas between them; set it where bb3x is started."
        )
    return frozenset(map(digest_of, keys))


def address_of(client: object) -> str:
    """The caller behind an ASGI scope's `client`; of IPv6 its network, for everybody has 2^64 addresses."""
    host = str(client[0]) if isinstance(client, tuple | list) and client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"ip:{host[:100]}"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"ip:{address.ipv4_mapped}"
        return f"ip:{ipaddress.ip_network((address, 64), strict=False)}"
    return f"ip:{address}"


def is_local(client: object) -> bool:
    """Whether the request came from this machine."""
    host = str(client[0]) if isinstance(client, tuple | list) and client else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
