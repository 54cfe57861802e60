"""What the server remembers of people: it outlives session, replica and version.

    <root>/memory/ab/<digest of the person>.json      one file a person, replaced whole, under a lock

Only people who consented (`store`) are remembered; who asks for it, here or by `bb3x erase`, is forgotten.
"""

import hashlib
import math
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from bb3x_ray.storage import read_json, write_json

About = Literal["person", "bot"]
MEMORY = "memory"  # the folder under the storage root
OFFERED = 32
MAX_CHARS = 200
FORGOTTEN_KEPT_US = 24 * 3600 * 1_000_000  # of a conversation: no turn is under way for as long as that
LOCK_S = 30  # a lock that is held for longer is a dead node's: the turn fails, and is not waited for
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
# Words that say nothing new by themselves.
_PLAIN = frozenset(
    """a an and are as at be been but by can do does for from had has have he her his i i'm im i've in
    is it it's its like likes love loves me my of on or our person bot she so that the their them
    they this to very was we were with you you're your""".split()
)


@dataclass(frozen=True, slots=True)
class Memory:
    """One thing remembered. `about`: whose it is; `created`: when the turn began that it comes from,
    microseconds since 1970; `used`: number of the person's turn in which it was made or last used;
    `conversation`: where it comes from."""

    id: str
    text: str
    about: About
    created: int
    used: int
    conversation: str = ""


@dataclass(frozen=True, slots=True)
class _File:
    turn: int = 0
    forgotten_at: int = 0  # what was said until then is not remembered any more, when it comes late
    memories: tuple[Memory, ...] = ()
    forgotten: dict[str, int] = field(default_factory=dict)  # the same of conversations, by their digests


class Memories:
    """The store. Methods block on a lock and on the disk; replicas share it, on a shared volume on a cluster.

    most   memories kept of one person; the ones that were not used for the most turns go first
    """

    def __init__(self, folder: Path, most: int = 200) -> None:
        self._folder = folder
        self._most = most

    def of(self, person: str) -> list[Memory]:
        """What is remembered of a person, oldest first; [] of somebody unknown."""
        return list(self._read(self._path(person)).memories)

    def next_turn(self, person: str, used: Sequence[str] = ()) -> int:
        """Count a turn of the person, in which the memories with these ids were used; returns its number."""

        def count(file: _File) -> _File:
            turn = file.turn + 1
            touched = [replace(m, used=turn) if m.id in used else m for m in file.memories]
            return replace(file, turn=turn, memories=tuple(touched))

        return self._change(person, count).turn

    def add(
        self, person: str, text: str, about: About, said_at: int, conversation: str = ""
    ) -> Memory | None:
        """Remember something; None where it says nothing new, or where the person was forgotten since.

        said_at   when the turn began that it comes from, microseconds since 1970
        """
        text = " ".join(text.split())[:MAX_CHARS]
        made: list[Memory] = []

        def put(file: _File) -> _File:
            known = [m.text for m in file.memories if m.about == about]
            forgotten_at = max(file.forgotten_at, file.forgotten.get(_digest(conversation), 0))
            if said_at <= forgotten_at or not says_something_new(text, known):
                return file
            memory = Memory(f"mem-{uuid.uuid4().hex}", text, about, said_at, file.turn, conversation)
            made.append(memory)
            by_use = sorted(file.memories, key=lambda m: (m.used, m.created))
            gone = {m.id for m in by_use[: max(0, len(by_use) + 1 - self._most)]}
            return replace(file, memories=(*(m for m in file.memories if m.id not in gone), memory))

        self._change(person, put)
        return made[0] if made else None

    def forget(
        self, person: str, id: str | None = None, conversation: str | None = None, until: int | None = None
    ) -> int:
        """Forget one memory, those of one conversation, or with neither the person; returns how many went.

        until   what was said later stays, microseconds since 1970; None: nothing does

        Of a person or a conversation that is forgotten nothing is left but a digest and the time; what a turn
        that is under way would remember of them is refused.
        """
        if id is not None and not self._path(person).is_file():
            return 0
        gone: list[Memory] = []

        def goes(memory: Memory) -> bool:
            if id is not None:
                return memory.id == id
            here = conversation in (None, memory.conversation)
            return here and (until is None or memory.created <= until)

        def drop(file: _File) -> _File:
            gone.extend(filter(goes, file.memories))
            file = replace(file, memories=tuple(m for m in file.memories if m not in gone))
            return file if id is not None else _refusing(file, conversation, until)

        self._change(person, drop)
        return len(gone)

    def _change(self, person: str, change: Callable[[_File], _File]) -> _File:
        path = self._path(person)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock", timeout=LOCK_S):
            before = self._read(path)
            after = change(before)
            if after != before:
                write_json(path, asdict(after))
        return after

    def _path(self, person: str) -> Path:
        digest = _digest(person)
        return self._folder / digest[:2] / f"{digest}.json"

    @staticmethod
    def _read(path: Path) -> _File:
        if not path.is_file():
            return _File()
        entry: dict[str, Any] = read_json(path)
        memories = tuple(Memory(**memory) for memory in entry["memories"])
        return _File(entry["turn"], entry["forgotten_at"], memories, entry.get("forgotten", {}))


def _refusing(file: _File, conversation: str | None, until: int | None) -> _File:
    """From here on, what was said until then, there or anywhere, is not remembered when it comes late."""
    now = time.time_ns() // 1000
    until = now if until is None else until
    if conversation is None:
        later = {talk: at for talk, at in file.forgotten.items() if at > until}
        turn = file.turn if file.memories else 0
        return _File(turn, max(file.forgotten_at, until), file.memories, later)
    talk = _digest(conversation)
    forgotten = file.forgotten | {talk: max(until, file.forgotten.get(talk, 0))}
    recent = {talk: at for talk, at in forgotten.items() if at > now - FORGOTTEN_KEPT_US}
    return replace(file, forgotten=recent)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def offered(memories: Sequence[Memory], talk: str, most: int = OFFERED) -> list[Memory]:
    """The memories to offer to the model: all, or where there are `most` or more, those most like the talk.

    Alike are shared words, rare ones among the memories counting more; between equals, those used last.
    In the order in which they were made.
    """
    if len(memories) < most:
        return list(memories)
    said, words = _words(talk), [_words(m.text) for m in memories]
    having = Counter(word for of in words for word in of)
    weight = {word: math.log(1 + len(memories) / count) for word, count in having.items()}

    def likeness(place: int) -> tuple[float, int, int]:
        shared = sum(weight[word] for word in words[place] & said)
        return shared, memories[place].used, place

    best = sorted(range(len(memories)), key=likeness, reverse=True)[:most]
    return [memories[place] for place in sorted(best)]


def says_something_new(text: str, known: Sequence[str]) -> bool:
    """Whether a memory has words that carry something, more than one in four of which no known one has."""
    words = _words(text)
    return bool(words) and all(4 * len(words - _words(one)) > len(words) for one in known)


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in _WORD.findall(text.lower()) if word not in _PLAIN)
