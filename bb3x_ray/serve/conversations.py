"""Which conversation a request belongs to, and which of its messages the log does not have yet.

Clients resend the whole history each time. The conversation is the one that the client names, else the
one whose last reply we served (found by a hash over the history), else a new one.

Everything here may be lost in a restart without harm: the id of a message's event follows from where it
stands and what it says, so that a message logged twice is one row of the log.
"""

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

from bb3x_ray.serve.completion_ids import Signer

MESSAGES_REMEMBERED = 1000  # of one conversation; after that it starts to be logged again, which adds nothing


@dataclass(frozen=True, slots=True)
class Said:
    """One message of the client's history, system messages left out."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """A conversation, its person, and the messages to log: (position, event id, message), oldest first."""

    conversation_id: str
    person: str
    unlogged: tuple[tuple[int, str, Said], ...]
    chain: str  # hash of person and history, to be extended by the reply
    signer: Signer

    def event_id(self, position: int, said: Said) -> str:
        """The id of the event of a message: the same whenever the same words stand at the same place."""
        words = said.text.strip()  # as the model sees them; some clients trim
        return f"m-{self.signer.digest('message', self.conversation_id, str(position), said.role, words)}"


class Conversations:
    """The replica's memory of what it served: the least recently used conversation is forgotten first."""

    def __init__(self, signer: Signer, capacity: int = 20_000) -> None:
        self._signer = signer
        self._capacity = capacity
        self._logged: OrderedDict[str, set[str]] = OrderedDict()
        self._chains: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()

    def find(self, history: Sequence[Said], user: str | None, named: str | None) -> Place:
        """The place of a request with this history. `named` is metadata.conversation_id, validated."""
        pseudonym = self._signer.pseudonym(user)
        conversation_id = (
            self._named(history, pseudonym, named) if named else self._served(history, pseudonym)
        )
        person = self._signer.person(user, conversation_id)
        place = Place(conversation_id, person, (), self._chain(pseudonym, history), self._signer)
        ids = [place.event_id(position, said) for position, said in enumerate(history)]
        with self._lock:
            logged = frozenset(self._logged.get(conversation_id, ()))
        unlogged = [(i, ids[i], said) for i, said in enumerate(history) if ids[i] not in logged]
        return replace(place, unlogged=tuple(unlogged))

    def served(self, place: Place, position: int, reply: str) -> None:
        """Remember a reply, and that all messages before it are durable in the log."""
        said = Said("assistant", reply)
        ids = {event_id for _, event_id, _ in place.unlogged}
        ids.add(place.event_id(position, said))
        with self._lock:
            logged = self._logged.setdefault(place.conversation_id, set())
            logged |= ids
            if len(logged) > MESSAGES_REMEMBERED:
                logged.clear()
            self._logged.move_to_end(place.conversation_id)
            self._chains[self._extend(place.chain, said)] = place.conversation_id
            for memory, limit in ((self._logged, self._capacity), (self._chains, 4 * self._capacity)):
                while len(memory) > limit:
                    memory.popitem(last=False)

    def _named(self, history: Sequence[Said], pseudonym: str, named: str) -> str:
        # Bound to the person by construction, so that two people who choose one name never meet. People
        # without `user` are told apart by how their conversation began.
        owner = ("user", pseudonym) if pseudonym else ("opening", history[0].text)
        return f"{named}.{self._signer.digest('conversation', named, *owner)[:10]}"

    def _served(self, history: Sequence[Said], pseudonym: str) -> str:
        """The conversation in which we served the last reply of this history, else a new one."""
        replies = [index for index, said in enumerate(history) if said.role == "assistant"]
        if replies:
            chain = self._chain(pseudonym, history[: replies[-1] + 1])
            with self._lock:
                if chain in self._chains:
                    self._chains.move_to_end(chain)
                    return self._chains[chain]
        return f"c{uuid.uuid4().hex}"

    def _chain(self, pseudonym: str, history: Sequence[Said]) -> str:
        chain = self._signer.digest("chain", pseudonym)
        for said in history:
            chain = self._extend(chain, said)
        return chain

    def _extend(self, chain: str, said: Said) -> str:
        return self._signer.digest("link", chain, said.role, said.text.strip())
