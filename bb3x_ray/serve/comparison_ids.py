"""Ids of blind comparisons: signed, so that no replica has to remember one, and blind.

    cmp-<32 hex>.<v0001>.<v0002>.<s|n>[r].<24 hex>
        a uuid    the two versions, sorted   store? simulated?   signature, which also binds the person

Which of the two is A follows from the uuid by a keyed hash: whoever holds an id cannot tell, we can.
"""

import hmac
import re
import uuid
from dataclasses import dataclass

from bb3x_ray.serve.completion_ids import Signer

_VERSION = r"[A-Za-z0-9_-]{1,64}"
_SHAPE = re.compile(
    rf"cmp-(?P<uuid>[0-9a-f]{{32}})\.(?P<first>{_VERSION})\.(?P<second>{_VERSION})\.(?P<flags>[sn]r?)\.(?P<mac>[0-9a-f]{{24}})"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A comparison that was asked for: `a` and `b` are versions. `stored`: its words may be kept."""

    id: str
    conversation_id: str
    person: str
    a: str
    b: str
    stored: bool
    simulated: bool


class ComparisonIds:
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def new(self, versions: tuple[str, str], user: str | None, *, stored: bool, simulated: bool) -> Pair:
        """A comparison of two versions, in an order that nobody can guess."""
        name = uuid.uuid4().hex
        flags = ("s" if stored else "n") + ("r" if simulated else "")
        first, second = sorted(versions)
        mac = self._mac(name, first, second, flags, self._person(user, name))
        return self._pair(f"cmp-{name}.{first}.{second}.{flags}.{mac}", name, first, second, flags, user)

    def read(self, comparison_id: str, user: str | None) -> Pair | None:
        """What the id says, or None when we did not make it for this user."""
        match = _SHAPE.fullmatch(comparison_id)
        if match is None:
            return None
        name, first, second, flags = match["uuid"], match["first"], match["second"], match["flags"]
        mac = self._mac(name, first, second, flags, self._person(user, name))
        if not hmac.compare_digest(match["mac"], mac):
            return None
        return self._pair(comparison_id, name, first, second, flags, user)

    def _pair(self, id: str, name: str, first: str, second: str, flags: str, user: str | None) -> Pair:
        swapped = int(self._signer.digest("comparison order", name), 16) % 2
        a, b = (second, first) if swapped else (first, second)
        return Pair(
            id, f"compare-{name}", self._person(user, name), a, b, flags[0] == "s", flags.endswith("r")
        )

    def _person(self, user: str | None, name: str) -> str:
        return self._signer.person(user, f"compare-{name}")

    def _mac(self, *parts: str) -> str:
        return self._signer.digest("comparison", *parts)[:24]
