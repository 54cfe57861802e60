"""A made-up deployment in the release format: the real one's size and shape, invented words only.

    353,000 conversations, 6.2 million utterances, 100 chunks (test 0–2, valid 3–5, train 6–99)

Who wrote what, how often people come back, thumbs and their reasons, safety and reward annotations,
crowdworkers' marks, memories, search with five documents of 100 words in a tenth of the bot's turns: all
drawn from one seed per chunk, so the same numbers give the same bytes, whatever wrote them beside.
"""

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import orjson

CONVERSATIONS = 353_000
CHUNKS = 100
_PEOPLE = 0.4  # different people for each conversation: they come back
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in ("a", "e", "i", "o", "u", "an", "or", "il")]
_DISLIKES = (
    "Off Topic / Ignoring me",
    "Nonsensical / Incorrect",
    "Rude / Inappropriate",
    "Looks like spam / Ads",
)
_DISLIKES = (*_DISLIKES, "Other")
_MARKS = ("good", "inappropriate", "off_topic", "nonsensical", "ignoring", "repeating", "other")
_OK = {"duo_safety": "__ok__", "string_matcher": "__ok__"}
_ADVERSARIAL = 0.3  # of the people


@dataclass(frozen=True, slots=True)
class Words:
    """Texts to choose from: two of `halves` make a message, one of `pages` is a document."""

    halves: list[str]
    pages: list[str]
    memories: list[str]


@lru_cache(maxsize=1)
def words(seed: int) -> Words:
    rng = random.Random(seed)
    known = ["".join(rng.choices(_SYLLABLES, k=rng.choice((1, 2, 2, 3)))) for _ in range(6000)]

    def text(shortest: int, longest: int) -> str:
        return " ".join(rng.choices(known, k=rng.randint(shortest, longest)))

    return Words(
        [text(2, 10) for _ in range(40_000)],
        [text(100, 100) for _ in range(3000)],
        [text(5, 9) for _ in range(5000)],
    )


def write(folder: Path, conversations: int = CONVERSATIONS, seed: int = 0, workers: int = 2) -> None:
    """Fill `folder` with `chunk_00.jsonl` to `chunk_99.jsonl`; what is there already is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(partial(_write_chunk, folder, conversations, seed), range(CHUNKS)))


def _write_chunk(folder: Path, conversations: int, seed: int, chunk: int) -> None:
    path = folder / f"chunk_{chunk:02d}.jsonl"
    if path.exists():
        return
    rng = random.Random(seed * 1000 + chunk)
    known = words(seed)
    first, last = conversations * chunk // CHUNKS, conversations * (chunk + 1) // CHUNKS
    aside = path.with_suffix(".part")
    with aside.open("wb", buffering=1 << 20) as file:
        for number in range(first, last):
            file.write(orjson.dumps(_conversation(rng, known, number, conversations)) + b"\n")
    aside.rename(path)


def _conversation(rng: random.Random, known: Words, number: int, conversations: int) -> dict[str, Any]:
    person = int(rng.random() ** 2 * max(1, conversations * _PEOPLE))
    adversarial = person % 10 < 10 * _ADVERSARIAL
    marked = rng.random() < 0.01
    # 17.56 messages on average, as 6.2 million in 353 thousand.
    length = min(120, 2 + int(rng.expovariate(1 / 16.06)))
    history = []
    memories: list[str] = []
    for index in range(length):
        message = (_bot if index % 2 else _human)(rng, known, number, index, adversarial, memories)
        if marked and rng.random() < 0.5:
            message["mturk"] = {rng.choice(_MARKS): rng.randint(1, 3)}
        history.append(message)
    return {
        "user_pseudo_id": f"u{person:07d}",
        "chat_id": f"chat-{number:08d}",
        "convo_id": number,
        "message_history": history,
    }


def _human(
    rng: random.Random, known: Words, number: int, index: int, adversarial: bool, memories: list[str]
) -> dict[str, Any]:
    unsafe = adversarial and rng.random() < 0.2
    return {
        "text": f"{rng.choice(known.halves)} {rng.choice(known.halves)}",
        "sender": "human",
        "human_message_id": f"h-{number}-{index}",
        "is_dislike_feedback": False,
        "safety": {"duo_safety": "__notok__", "string_matcher": "__ok__"} if unsafe else _OK,
    }


def _bot(
    rng: random.Random, known: Words, number: int, index: int, adversarial: bool, memories: list[str]
) -> dict[str, Any]:
    draw = rng.random()
    searches = draw < 0.1
    reward = "ok" if draw > 0.15 else "notok"
    thumb = rng.random()
    if rng.random() < 0.2 and len(memories) < 32:
        memories.append(f"Person 1's Persona: {rng.choice(known.memories)}")
    return {
        "text": f"{rng.choice(known.halves)} {rng.choice(known.halves)}",
        "sender": "bot",
        "bot_message_id": f"b-{number}-{index}",
        "is_liked": thumb < 0.0212,
        "is_disliked": thumb > 1 - 0.0163,
        "dislike_type": rng.choice(_DISLIKES) if thumb > 1 - 0.0163 else None,
        "memories": memories[-5:],
        "memory_decision": "access memory" if draw > 0.8 and memories else "do not access memory",
        "memory_knowledge": memories[0] if draw > 0.8 and memories else None,
        "search_decision": "search" if searches else "do not search",
        "search_query": rng.choice(known.memories) if searches else None,
        "search_knowledge": rng.choice(known.halves) if searches else None,
        "search_knowledge_doc_titles": rng.choices(known.memories, k=5) if searches else None,
        "search_knowledge_doc_content": rng.choices(known.pages, k=5) if searches else None,
        "search_knowledge_doc_urls": [f"https://example.org/{i}" for i in range(5)] if searches else None,
        "is_safety_controlled_response": adversarial and draw > 0.97,
        "previous_interaction_failure": None,
        "from_model_crash": False,
        "safety": _OK,
        "reward": f"Predicted class: __{reward}__ with probability: {0.5 + draw / 2:.2f}",
    }
