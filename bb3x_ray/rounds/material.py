"""What a run stands on, made once and kept: the first version, people's messages in disjoint parts,
the frozen prompt sets."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from bb3x_ray.config import EvaluateConfig
from bb3x_ray.data.parts import check_disjoint, parts_manifest, split_parts
from bb3x_ray.data.readers.chitchat import ChitchatConversation, read_chitchat
from bb3x_ray.evaluate import prompts as prompt_sets
from bb3x_ray.evaluate.adversarial import adversarial, unit_hash
from bb3x_ray.evaluate.independence import check_independence
from bb3x_ray.evaluate.prompts import Prompt, PromptSets
from bb3x_ray.language.chat_template import check_template
from bb3x_ray.language.loading import import_model, load_model
from bb3x_ray.registry import Bootstrap, Registry
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage, read_json, write_json

PARTS_BESIDE_THE_SETS = ("talk", "human", "perplexity", "judge")
PERPLEXITY_WORDS = (6, 40)
HUMAN_WORDS = (3, 30)


@dataclass(frozen=True, slots=True)
class Material:
    """People's recorded conversations by part (law 11), and the prompt sets made from one of them."""

    parts: dict[str, list[ChitchatConversation]]
    sets: PromptSets

    def exchanges(self, part: str) -> list[tuple[str, str, str]]:
        """(what a person of `part` said, what another replied, conversation id), both of some length."""
        return [
            (said, reply, c.conversation_id)
            for c in self.parts[part]
            for said, reply in pairwise(c.turns)
            if HUMAN_WORDS[0] <= len(said.split()) <= HUMAN_WORDS[1]
            and HUMAN_WORDS[0] <= len(reply.split()) <= HUMAN_WORDS[1]
        ]

    def check_independence(self) -> None:
        """Law 11: prompt sets A and B, and what everybody else uses, share no recorded conversation and none
        of our adversarial messages. What many people say ("hello there") may well stand in several.
        """
        used = {part: {c.conversation_id for c in self.parts[part]} for part in PARTS_BESIDE_THE_SETS}
        for part in ("judge", "talk"):
            used[part] = used[part] | {p.id for p in adversarial(part)}
        check_independence({**self.sets.source_ids(), **used})

    def check_held_out(self) -> None:
        """Raises UserError where the gate or training's probe has no message to foretell."""
        for side, texts in (("gate", self.perplexity_texts(1)), ("training", self.probe_texts(1))):
            if not texts:
                raise UserError(
                    f"the recorded conversations hold no message by which the {side} could measure human "
                    "perplexity; install chitchat-dataset again, in the version that embedded.txt names."
                )

    def perplexity_texts(self, count: int) -> list[str]:
        """Held-out messages between people: the gate's probe for collapse."""
        return _spread(self._held_out("gate"), count)

    def probe_texts(self, count: int) -> list[str]:
        """Messages of other held-out conversations, for decisions within training: the gate's stay unseen."""
        unseen = set(self._held_out("gate"))
        return _spread([text for text in self._held_out("probe") if text not in unseen], count)

    def _held_out(self, side: Literal["gate", "probe"]) -> list[str]:
        low, high = PERPLEXITY_WORDS
        return [
            text
            for c in self.parts["perplexity"]
            if (unit_hash("perplexity", 0, c.conversation_id) < 0.5) == (side == "gate")
            for text in c.turns
            if low <= len(text.split()) <= high
        ]

    def judge_prompts(self, count: int) -> list[Prompt]:
        """Prompts of the judge's part, each with what the person really said next."""
        found = []
        for c in self.parts["judge"]:
            for end in (1, 3, 5):
                if end < len(c.turns) and 3 <= len(c.turns[end - 1].split()) <= 40:
                    turns = tuple(c.turns[:end][-3:])
                    prompt_id = f"judge-{c.conversation_id}-{end}"
                    found.append(Prompt(prompt_id, "standard", turns, c.turns[end], (c.conversation_id,)))
        return found[:: max(1, len(found) // count)][:count]


def _spread(texts: list[str], count: int) -> list[str]:
    """`count` of them, evenly over the list."""
    return texts[:: max(1, len(texts) // count)][:count]


def first_version(registry: Registry, source: str) -> str:
    """The champion; when there is none, `source` becomes v0001. Returns the champion."""
    champion = registry.alias("champion")
    if champion is None:
        version = registry.versions()[0] if registry.versions() else add_version(registry, source)
        champion = registry.move_champion(Bootstrap(version), expected=None)
    return champion


def add_version(registry: Registry, source: str) -> str:
    """Import a model under the next number: converted once to safetensors, with lineage and card."""
    version = registry.reserve()
    lineage: dict[str, object] = {"parent": None, "source": source}
    with registry.publish(version, lineage, _import_card(version, source)) as folder:
        lineage.update(import_model(source, folder))
        check_template(load_model(folder).tokenizer)
    return version


def prompts_note(registry: Registry, version: str) -> str:
    """A few words behind the name of a version that was imported without a chat template, else nothing."""
    plain = registry.lineage(version).get("chat_template") == "plain"
    return " (without a chat template of its own: plain prompts)" if plain else ""


def _import_card(version: str, source: str) -> str:
    return (
        f"---\ntags: [bb3x-ray]\n---\n# {version}\n\nImported from `{source}`, its weights unchanged but "
        "for the file format (safetensors).\nIt has learned from nobody here. Licence and limits are its "
        "source's.\n"
    )


def load_material(storage: Storage, config: EvaluateConfig, seed: int) -> Material:
    """The parts and prompt sets of this storage root: made and published the first time, then the same.

    Raises UserError when the installed messages are not those the root was begun with, or too few.
    """
    parts = split_parts(read_chitchat(min_turns=2), seed=0)
    check_disjoint(parts)
    manifest = parts_manifest(parts)
    if not storage.is_published("parts/v0001"):
        with storage.publish("parts/v0001") as folder:
            write_json(folder / "parts.json", manifest)
    if read_json(storage.verify("parts/v0001") / "parts.json") != manifest:
        raise UserError(
            f"{storage.path('parts/v0001')}: the installed chitchat-dataset is not the one this storage root "
            "was begun with; install that version again, or begin a new root (storage.root=…)."
        )
    if not storage.is_published(prompt_sets.PROMPTS):
        prompt_sets.save(storage, prompt_sets.build_prompt_sets(parts["evaluation"], config, seed))
    sets = prompt_sets.load(storage)
    material = Material(parts, sets)
    material.check_independence()
    material.check_held_out()
    return material
