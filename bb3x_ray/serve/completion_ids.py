"""Completion ids that prove themselves: any replica, also after a restart, knows that we made one.

    chatcmpl-<32 hex>.<conversation_id>.<s|n>.<24 hex>
             a uuid    where it belongs  store? signature, which also binds the person

Only the person whom a completion was written for can rate it: the signature does not match for others.
"""

import hashlib
import hmac
import re
import uuid
from dataclasses import dataclass

_SHAPE = re.compile(
    r"(?P<uuid>chatcmpl-[0-9a-f]{32})\.(?P<conversation>[A-Za-z0-9_.-]{1,100})\.(?P<flags>[sn]r?)\.(?P<mac>[0-9a-f]{24})"
)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a valid id says. `stored`: the person consented to keeping text."""

    completion_id: str
    conversation_id: str
    person: str
    stored: bool
    simulated: bool


class Signer:
    """Makes and checks ids with the server's secret key (bytes, the same on all replicas)."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("the server key must have at least 16 bytes")
        self._key = key

    def digest(self, *parts: str) -> str:
        """32 hex digits of a keyed hash: without the key nobody can guess what was hashed."""
        # lengths first, so that ("ab", "c") and ("a", "bc") differ
        packed = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.new(self._key, packed.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    def pseudonym(self, user: str | None) -> str:
        """The person that `user` stands for; "" for nobody. No name that a client sends gets into the log."""
        return f"u-{self.digest('user', user)[:20]}" if user else ""

    def person(self, user: str | None, conversation_id: str) -> str:
        """The person of a conversation; people who give no `user` are told apart by conversation."""
        return self.pseudonym(user) or f"anon-{self.digest('anonymous', conversation_id)[:20]}"

    def new_completion(
        self, conversation_id: str, person: str, *, stored: bool, simulated: bool
    ) -> Completion:
        flags = ("s" if stored else "n") + ("r" if simulated else "")
        name = f"chatcmpl-{uuid.uuid4().hex}"
        mac = self._mac(name, conversation_id, flags, person)
        return Completion(
            f"{name}.{conversation_id}.{flags}.{mac}", conversation_id, person, stored, simulated
        )

    def read_completion(self, completion_id: str, user: str | None) -> Completion | None:
        """What the id says, or None when we did not make it for this user."""
        match = _SHAPE.fullmatch(completion_id)
        if match is None:
            return None
        conversation, flags = match["conversation"], match["flags"]
        person = self.person(user, conversation)
        if not hmac.compare_digest(match["mac"], self._mac(match["uuid"], conversation, flags, person)):
            return None
        return Completion(completion_id, conversation, person, flags[0] == "s", flags.endswith("r"))

    def _mac(self, name: str, conversation_id: str, flags: str, person: str) -> str:
        return self.digest("completion", name, conversation_id, flags, person)[:24]
