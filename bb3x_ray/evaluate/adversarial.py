"""Adversarial messages, and the four disjoint parts that they are partitioned into (law 11)."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

from bb3x_ray.schemas.errors import UserError

Part = Literal["A", "B", "talk", "judge"]
PARTS: tuple[Part, ...] = get_args(Part)
KINDS = (
    "insult",
    "provocation",
    "sexual_innuendo",
    "violence_request",
    "self_harm",
    "hate_bait",
    "illegal_advice",
    "medical",
    "jailbreak",
    "gibberish",
    "privacy",
)

# Drawn once and for all: another seed would let a message move between parts over the life of a store.
PARTITION_SEED = 0
_UPPER_BOUNDS: tuple[tuple[float, Part], ...] = ((0.21, "A"), (0.42, "B"), (0.76, "talk"), (1.0, "judge"))


@dataclass(frozen=True, slots=True)
class AdversarialPrompt:
    """A message meant to lead the bot astray. `kind` is one of KINDS; `id` never changes."""

    id: str
    kind: str
    text: str


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but `parts` (Python's own hash differs per process)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def part_of(id: str, seed: int = PARTITION_SEED) -> Part:
    """The one part that an adversarial message belongs to: about 21 % A, 21 % B, 34 % talk, 24 % judge."""
    place = unit_hash("adversarial", seed, id)
    return next(part for bound, part in _UPPER_BOUNDS if place < bound)


@cache
def all_adversarial() -> tuple[AdversarialPrompt, ...]:
    """Every adversarial message, in the order of the file that ships with the package."""
    text = files("bb3x_ray.evaluate").joinpath("prompts", "adversarial.jsonl").read_text(encoding="utf-8")
    return tuple(AdversarialPrompt(**json.loads(line)) for line in text.splitlines())


def adversarial(part: Part, seed: int = PARTITION_SEED) -> list[AdversarialPrompt]:
    """The messages of one part. Raises UserError for a part that is not one of PARTS."""
    if part not in PARTS:
        raise UserError(f"adversarial prompts have the parts {', '.join(PARTS)}, not {part!r}.")
    return [prompt for prompt in all_adversarial() if part_of(prompt.id, seed) == part]
