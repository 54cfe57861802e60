"""The frozen prompt sets: A, which the gates look at, and B, which is reported and selects nothing."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from bb3x_ray.config import EvaluateConfig
from bb3x_ray.evaluate.adversarial import AdversarialPrompt, adversarial, unit_hash
from bb3x_ray.evaluate.sentences import tokens, word_count
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage

SetName = Literal["A", "B"]
PROMPTS = "prompts/v0001"
MESSAGE_WORDS = (3, 40)  # of the last message: shorter ones ask for nothing, longer ones are monologues
LONGEST_TURN_WORDS = 60  # of the turns before it and of the human reply
# Turns in a standard prompt. All odd, so that every prompt begins with the person: some chat templates
# refuse a conversation that the bot begins.
LENGTHS = (1, 1, 3, 5)
# Where in a conversation its prompts begin: far enough apart to be about different things.
STRIDE, PER_CONVERSATION = 6, 4


class Recorded(Protocol):
    """A recorded conversation: texts in order, alternating, the person's first."""

    @property
    def conversation_id(self) -> str: ...

    @property
    def turns(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a version is asked to reply to.

    turns         alternating texts; the last is the person's message
    human_reply   what a person really said next (standard prompts only)
    sources       ids of the recorded conversation and of the adversarial message it was made from
    """

    prompt_id: str
    kind: Literal["standard", "adversarial"]
    turns: tuple[str, ...]
    human_reply: str | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptSets:
    """Both sets; they share no conversation, no adversarial message and no last message."""

    a: tuple[Prompt, ...]
    b: tuple[Prompt, ...]

    @property
    def digest(self) -> str:
        """sha256 of both sets as they are stored: the same digest means the same prompts."""
        return hashlib.sha256((_lines(self.a) + "\n" + _lines(self.b)).encode()).hexdigest()

    def source_ids(self) -> dict[str, set[str]]:
        """For `independence.check_independence`: the ids that went into each set."""
        return {
            "evaluation A": {source for prompt in self.a for source in prompt.sources},
            "evaluation B": {source for prompt in self.b for source in prompt.sources},
        }


def build_prompt_sets(conversations: Sequence[Recorded], config: EvaluateConfig, seed: int) -> PromptSets:
    """Sets A and B from the evaluation part of the recorded human conversations.

    Raises UserError when there are too few fitting conversations or adversarial messages.
    """
    sides: dict[SetName, list[Recorded]] = {"A": [], "B": []}
    for conversation in sorted(conversations, key=lambda c: unit_hash("order", seed, c.conversation_id)):
        side: SetName = "A" if unit_hash("set", seed, conversation.conversation_id) < 0.5 else "B"
        sides[side].append(conversation)
    seen: set[str] = set()  # over both sets: common openers would make them the same prompt
    return PromptSets(
        _build_set("A", sides["A"], config, seed, seen), _build_set("B", sides["B"], config, seed, seen)
    )


def _build_set(
    name: SetName, conversations: list[Recorded], config: EvaluateConfig, seed: int, seen: set[str]
) -> tuple[Prompt, ...]:
    standard = _take_standard(name, conversations, config.standard, seed, seen)
    hostile = sorted(adversarial(name), key=lambda p: unit_hash("order", seed, p.id))[: config.adversarial]
    if len(hostile) < config.adversarial:
        raise UserError(
            f"evaluate.adversarial: {config.adversarial} prompts are asked for, but set {name} has "
            f"{len(hostile)}: lower it to that."
        )
    # From the other end of the list, so that few conversations serve both kinds.
    return (*standard, *_after_contexts(name, hostile, reversed(conversations)))


def _take_standard(
    name: SetName, conversations: list[Recorded], wanted: int, seed: int, seen: set[str]
) -> list[Prompt]:
    """One prompt from every conversation, then a second one from each that is long enough, and so on."""
    taken: list[Prompt] = []
    for start in range(0, STRIDE * PER_CONVERSATION, STRIDE):
        for conversation in conversations:
            prompt = _standard(name, conversation, start, seed)
            key = " ".join(tokens(prompt.turns[-1])) if prompt else ""
            if prompt is None or key in seen:
                continue
            seen.add(key)
            taken.append(prompt)
            if len(taken) == wanted:
                return taken
    raise UserError(
        f"evaluate.standard: {wanted} prompts are asked for, but the recorded conversations kept for "
        f"evaluation give only {len(taken)} for set {name}: lower it, or add conversations."
    )


def _standard(name: SetName, conversation: Recorded, start: int, seed: int) -> Prompt | None:
    """Some turns of a conversation from turn `start` on, up to a message that asks for a reply, or None."""
    first = int(unit_hash("length", seed, conversation.conversation_id) * len(LENGTHS))
    for length in LENGTHS[first:] + LENGTHS[:first]:
        turns = tuple(text.strip() for text in conversation.turns[start : start + length + 1])
        if len(turns) == length + 1 and _fits(turns):
            id = conversation.conversation_id
            return Prompt(f"{name}/{id}/{start}", "standard", turns[:-1], turns[-1], (id,))
    return None


def _fits(turns: tuple[str, ...]) -> bool:
    fewest, most = MESSAGE_WORDS
    return fewest <= word_count(turns[-2]) <= most and all(
        1 <= word_count(text) <= LONGEST_TURN_WORDS for text in turns
    )


def _after_contexts(
    name: SetName, hostile: list[AdversarialPrompt], remaining: Iterable[Recorded]
) -> list[Prompt]:
    """A third of the adversarial messages open the talk; the others come after two recorded turns."""
    contexts = (c for c in remaining if len(c.turns) >= 2 and _usable_context(c.turns[:2]))
    prompts = []
    for place, message in enumerate(hostile):
        before: tuple[str, ...] = ()
        sources: tuple[str, ...] = (message.id,)
        if place % 3:
            context = next(contexts, None)
            if context is None:
                raise UserError(
                    "evaluate.adversarial: too few recorded conversations are left to put before the "
                    f"adversarial prompts of set {name}: lower it, or add conversations."
                )
            before = tuple(text.strip() for text in context.turns[:2])
            sources = (message.id, context.conversation_id)
        prompts.append(Prompt(f"{name}/{message.id}", "adversarial", (*before, message.text), None, sources))
    return prompts


def _usable_context(turns: Sequence[str]) -> bool:
    return all(1 <= word_count(text) <= LONGEST_TURN_WORDS for text in turns)


def _lines(prompts: Iterable[Prompt]) -> str:
    return "".join(json.dumps(asdict(p), ensure_ascii=False, sort_keys=True) + "\n" for p in prompts)


def save(storage: Storage, sets: PromptSets, name: str = PROMPTS) -> str:
    """Publish both sets as JSON lines; returns their digest. FileExistsError when they are published."""
    counts = {"a": len(sets.a), "b": len(sets.b)}
    with storage.publish(name, kind="prompts", digest=sets.digest, prompts=counts) as folder:
        (folder / "a.jsonl").write_text(_lines(sets.a), encoding="utf-8")
        (folder / "b.jsonl").write_text(_lines(sets.b), encoding="utf-8")
    return sets.digest


def load(storage: Storage, name: str = PROMPTS) -> PromptSets:
    """The published sets, unaltered. Raises UserError when they are missing or were changed."""
    folder = storage.verify(name)
    sets = PromptSets(_read(folder / "a.jsonl"), _read(folder / "b.jsonl"))
    if sets.digest != storage.manifest(name)["digest"]:
        raise UserError(
            f"{folder}: the prompts do not have the digest of their manifest: restore the folder."
        )
    return sets


def _read(path: Path) -> tuple[Prompt, ...]:
    # Not splitlines(): people's texts hold U+2028 and the like, which JSON leaves as they are.
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)
    return tuple(Prompt(**{**r, "turns": tuple(r["turns"]), "sources": tuple(r["sources"])}) for r in rows)
