"""Which conversation a request belongs to, and which of its messages the log does not have yet.

Clients resend the whole history each time. The conversation is the one that the client names, else the
one whose last reply we served (found by a hash over the history, here or at another replica), else a new one.

Everything here may be lost in a restart without harm: the id of a message's event follows from where it
stands and what it says, so that a message logged twice is one row of the log.
"""

import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

from bb3x_ray.serve.completion_ids import Signer

# chain -> the conversation in which another replica served the history that it stands for, or None
AskOthers = Callable[[str], Awaitable[str | None]]
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
    """The replica's memory of what it served: the least recently used conversation is forgotten first.

    ask_others   asked about what is not remembered here; None: there are no other replicas
    """

    def __init__(
        self, signer: Signer, ask_others: AskOthers | None = None, *, capacity: int = 20_000
    ) -> None:
        self._signer = signer
        self._ask_others = ask_others
        self._capacity = capacity
        self._logged: OrderedDict[str, set[str]] = OrderedDict()
        self._chains: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()

    async def find(self, history: Sequence[Said], user: str | None, named: str | None) -> Place:
        """The place of a request with this history. `named` is metadata.conversation_id, validated."""
        pseudonym = self._signer.pseudonym(user)
        replies = [index for index, said in enumerate(history) if said.role == "assistant"]
        told = replies[-1] + 1 if replies else 0
        chain = self._chain(pseudonym, history[:told])
        served_in = await self._served_in(chain) if told else None
        conversation_id = (
            self._named(history, pseudonym, named) if named else served_in or f"c{uuid.uuid4().hex}"
        )
        # Whoever served a reply has made all before it durable. To log it again would be worse than useless:
        # a reply would be `unverified`, and that may come to the table first.
        first = told if served_in == conversation_id else 0
        for said in history[told:]:
            chain = self._extend(chain, said)
        place = Place(conversation_id, self._signer.person(user, conversation_id), (), chain, self._signer)
        ids = {
            position: place.event_id(position, history[position]) for position in range(first, len(history))
        }
        with self._lock:
            logged = frozenset(self._logged.get(conversation_id, ()))
        unlogged = [(i, event_id, history[i]) for i, event_id in ids.items() if event_id not in logged]
        return replace(place, unlogged=tuple(unlogged))

    def served_here(self, chain: str) -> str | None:
        """The conversation in which this replica served the history that `chain` stands for."""
        with self._lock:
            if chain in self._chains:
                self._chains.move_to_end(chain)
            return self._chains.get(chain)

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

    async def _served_in(self, chain: str) -> str | None:
        here = self.served_here(chain)
        if here is not None or self._ask_others is None:
            return here
        return await self._ask_others(chain)

    def _chain(self, pseudonym: str, history: Sequence[Said]) -> str:
        chain = self._signer.digest("chain", pseudonym)
        for said in history:
            chain = self._extend(chain, said)
        return chain

    def _extend(self, chain: str, said: Said) -> str:
        return self._signer.digest("link", chain, said.role, said.text.strip())
