"""Completion ids that prove themselves: any replica, also after a restart, knows that we made one.

    chatcmpl-<32 hex>.<conversation_id>.<s|n>.<24 hex>
             a uuid    where it belongs  store? signature, which also binds the person

Only the person whom a completion was written for can rate it: the signature does not match for others. Who
holds a completion's feedback token can rate that one without saying who they are:

    fb-<u|a>-<20 hex, masked>-<24 hex>
       user or anonymous      signature
"""

import hashlib
import hmac
import re
import uuid
from dataclasses import dataclass

_SHAPE = re.compile(
    r"(?P<uuid>chatcmpl-[0-9a-f]{32})\.(?P<conversation>[A-Za-z0-9_.-]{1,100})\.(?P<flags>[sn]r?)\.(?P<mac>[0-9a-f]{24})"
)

_TOKEN = re.compile(r"fb-(?P<kind>[ua])-(?P<hidden>[0-9a-f]{20})-(?P<mac>[0-9a-f]{24})")
_KINDS = {"u": "u", "a": "anon"}


@dataclass(frozen=True, slots=True)
class Completion:
    """What a valid id says. `stored`: the person consented to keeping text."""

    completion_id: str
    conversation_id: str
    person: str
    stored: bool
    simulated: bool

    @property
    def uuid(self) -> str:
        """32 hex digits, this completion's alone."""
        return self.completion_id.partition(".")[0].rpartition("-")[2]


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
        return self._read(match, self.person(user, match["conversation"])) if match else None

    def feedback_token(self, completion: Completion) -> str:
        """Proves the right to rate this completion, and nothing else. It tells nobody who the person is."""
        kind, _, name = completion.person.partition("-")
        hidden = self._masked(name, completion.completion_id)
        return f"fb-{kind[0]}-{hidden}-{self._token_mac(completion.completion_id, completion.person)}"

    def read_token(self, completion_id: str, token: str) -> Completion | None:
        """What the id says, or None when the token is not this completion's."""
        shape, said = _SHAPE.fullmatch(completion_id), _TOKEN.fullmatch(token)
        if shape is None or said is None:
            return None
        person = f"{_KINDS[said['kind']]}-{self._masked(said['hidden'], completion_id)}"
        if not hmac.compare_digest(said["mac"], self._token_mac(completion_id, person)):
            return None
        return self._read(shape, person)

    def _read(self, match: re.Match[str], person: str) -> Completion | None:
        completion_id, conversation, flags = match[0], match["conversation"], match["flags"]
        if not hmac.compare_digest(match["mac"], self._mac(match["uuid"], conversation, flags, person)):
            return None
        return Completion(completion_id, conversation, person, flags[0] == "s", flags.endswith("r"))

    def _mac(self, name: str, conversation_id: str, flags: str, person: str) -> str:
        return self.digest("completion", name, conversation_id, flags, person)[:24]

    def _token_mac(self, completion_id: str, person: str) -> str:
        return self.digest("feedback token", completion_id, person)[:24]

    def _masked(self, name: str, completion_id: str) -> str:
        """20 hex digits hidden, or shown again: every completion has a mask of its own."""
        return f"{int(name, 16) ^ int(self.digest('mask', completion_id)[:20], 16):020x}"
