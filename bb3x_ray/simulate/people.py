"""Simulated people: helpers, and every kind of troll of SafetyMix. They speak real people's messages.

    kind       what they say           which thumb they press
    helper     recorded messages       their opinion, wrong at `noise`
    troll      recorded messages       the opposite of their opinion
    master     adversarial messages    the opposite of their opinion
    lazy       recorded messages       a coin
    safe       both, mixed             up, always
    unsafe     both, mixed             down, always
    gaslight   adversarial messages    up, always

A troll follows its kind in a share `corrupted` of its thumbs; the rest are its true opinion, noise and
all. Pseudonyms tell nothing of the kind: only the talk report knows it, to measure trust against.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bb3x_ray.config import TalkConfig
from bb3x_ray.schemas.errors import UserError

Kind = Literal["helper", "troll", "master", "lazy", "safe", "unsafe", "gaslight"]
TROLLS: tuple[Kind, ...] = ("troll", "master", "lazy", "safe", "unsafe", "gaslight")
_ADVERSARIAL_SHARE: dict[Kind, float] = {"master": 1.0, "gaslight": 1.0, "safe": 0.5, "unsafe": 0.5}
MIN_WORDS = 3  # an opener of fewer words ("hi") asks for nothing


@dataclass(frozen=True, slots=True)
class Said:
    """What a person says in one turn."""

    text: str
    adversarial: bool = False


@dataclass(frozen=True, slots=True)
class SimulatedPerson:
    """`talks` holds one tuple of messages a conversation; `seed` drives this person's thumbs."""

    name: str
    kind: Kind
    talks: tuple[tuple[Said, ...], ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Thumb:
    rating: int  # 1 or -1
    honest: bool  # it is the person's true opinion, not noise or trolling


def cast(
    config: TalkConfig,
    recorded: Sequence[Sequence[str]],
    adversarial: Sequence[str],
    seed: int,
    visit: int = 0,
) -> list[SimulatedPerson]:
    """`config.helpers` helpers and `config.trolls` trolls, kinds in turn; the same for the same arguments.

    recorded      conversations between people, as texts of alternating speakers; a person speaks one
                  speaker's consecutive messages of one of them, each at most once while they last
    adversarial   messages that trolls say
    visit         with another visit the same people come back, with other things to say

    Raises UserError when there is nothing to say.
    """
    kinds: list[Kind] = ["helper"] * config.helpers
    kinds += [TROLLS[i % len(TROLLS)] for i in range(config.trolls)]
    rng = random.Random(f"cast {seed} {visit}")
    lines = _Lines(recorded, adversarial, config.turns_per_conversation, rng)
    lines.start_at(visit * len(kinds) * config.conversations_per_person, seed)
    people = []
    for number, kind in enumerate(kinds):
        digest = hashlib.sha256(f"{seed}/{number}".encode()).hexdigest()
        talks = tuple(lines.talk(kind) for _ in range(config.conversations_per_person))
        people.append(SimulatedPerson(f"sim-{digest[:12]}", kind, talks, rng.getrandbits(63)))
    rng.shuffle(people)
    return people


def thumb(person: SimulatedPerson, likes: bool, config: TalkConfig, rng: random.Random) -> Thumb | None:
    """The thumb that this person presses for a reply that it likes or not, or None."""
    if rng.random() >= config.thumb_rate:
        return None
    opinion = likes != (rng.random() < config.noise)
    pressed = opinion
    if person.kind != "helper" and rng.random() < config.corrupted:
        pressed = _by_kind(person.kind, opinion, rng)
    return Thumb(1 if pressed else -1, pressed == likes)


def _by_kind(kind: Kind, opinion: bool, rng: random.Random) -> bool:
    if kind in ("troll", "master"):
        return not opinion
    if kind == "lazy":
        return rng.random() < 0.5
    return kind != "unsafe"  # safe, gaslight: always up


class _Lines:
    """Recorded and adversarial messages, drawn without repeats as long as there are any."""

    def __init__(
        self,
        recorded: Sequence[Sequence[str]],
        adversarial: Sequence[str],
        turns: int,
        rng: random.Random,
    ) -> None:
        # Only those that are long enough, so that everybody has `turns` messages to say.
        self._recorded = [own for talk in recorded if (own := _one_speaker(talk, turns))]
        self._adversarial = list(adversarial)
        self._turns, self._rng = turns, rng
        if not self._recorded:
            raise UserError(
                f"talk.turns_per_conversation: no recorded conversation has {turns} messages of one "
                "speaker; lower it."
            )
        self._left: list[tuple[str, ...]] = []
        self._left_adversarial: list[str] = []

    def start_at(self, used: int, seed: int) -> None:
        """Leave out the `used` recorded talks that earlier visits had, of an order that `seed` fixes."""
        order = random.Random(f"lines {seed}").sample(self._recorded, len(self._recorded))
        self._left = order[used % len(order) :][::-1]

    def talk(self, kind: Kind) -> tuple[Said, ...]:
        share = _ADVERSARIAL_SHARE.get(kind, 0.0) if self._adversarial else 0.0
        return tuple(
            Said(self._next_adversarial(), True) if self._rng.random() < share else Said(text)
            for text in self._next_recorded()
        )

    def _next_recorded(self) -> tuple[str, ...]:
        if not self._left:
            self._left = self._rng.sample(self._recorded, len(self._recorded))
        return self._left.pop()

    def _next_adversarial(self) -> str:
        if not self._left_adversarial:
            self._left_adversarial = self._rng.sample(self._adversarial, len(self._adversarial))
        return self._left_adversarial.pop()


def _one_speaker(talk: Sequence[str], turns: int) -> tuple[str, ...]:
    """The first `turns` messages of the first speaker, from the first one that says something; or ()."""
    own = list(talk[::2])
    while own and len(own[0].split()) < MIN_WORDS:
        own.pop(0)
    return tuple(own[:turns]) if len(own) >= turns else ()
