"""Erasing a person, from the log to the training sets of past rounds; and what a round under way does then.

A request lies in `tombstones/pending/` until it is carried out. Whoever finds one there carries it out: the
command, a run before its next step, or the process that runs a server (`watch`). What its person says after
they asked stays. Everything can be done again, so a kill in between loses nothing.
Model versions cannot forget: those whose lineage the person touched are listed.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bb3x_ray.data import erase
from bb3x_ray.data.annotations import rater_pseudonym
from bb3x_ray.data.committer import commit_inbox, committing, inboxes
from bb3x_ray.data.inbox import Inbox
from bb3x_ray.data.parts import part_of
from bb3x_ray.data.tombstones import (
    Request,
    Tombstone,
    Tombstones,
    ask_for_erasure,
    pending,
    withdraw,
)
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.ledger import only_run
from bb3x_ray.rounds.server_key import KEY, server_key
from bb3x_ray.schemas.errors import UserError, kind_and_place
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.memory import MEMORY, Memories
from bb3x_ray.storage import MANIFEST, Storage, read_json, write_json

# What a round makes of its slice: a round under way makes it anew.
_FROM_CURATE = ("curate", "iterations", "train", "evaluate")
EVERY_SECONDS = 60.0
log = logging.getLogger(__name__)


class ErasedMeanwhile(Exception):
    """Somebody was erased while a round was under way: it goes on from `curate`."""


def erase_user(storage: Storage, user: str, wait_seconds: float, inbox: Inbox | None = None) -> str:
    """What `bb3x erase` does; returns what to say.

    Raises UserError when the log knows nobody of that name.
    """
    commit_inbox(storage, inbox)
    persons = erase.persons_of(storage, user, _pseudonyms(storage, user))
    if not persons:
        with committing(storage):
            rejected = erase.erase_rejects(storage, [user], ())
        if rejected:
            return (
                f"erased: {rejected} rejected lines that name them; the log itself knows nobody of that name."
            )
        before = (Tombstones(storage).of(one) for one in (user, *_pseudonyms(storage, user)))
        if any(stone and stone.done for stone in before):
            return "they were erased already, and nothing of theirs came since."
        raise UserError(
            f"nobody in the log under {storage.root} is called that: give the `user` that clients send, the "
            "id in the recorded file, or the pseudonym in the log; check storage.root, too."
        )
    for person in persons:
        ask_for_erasure(storage, Request(person, (user,), at=_now()))
    with ExitStack() as alone:
        try:
            alone.enter_context(only_run(storage))
        except UserError:
            return "a run works on this storage root: it will erase them before its next step."
        stones = carry_out(storage, inbox, wait_seconds)
    return "\n".join(_told(stone) for stone in stones)


def _pseudonyms(storage: Storage, user: str) -> list[str]:
    """As which the server logs a user, and as which a rater of that name is."""
    if not storage.path(KEY).is_file():
        return []
    key = server_key(storage)
    return [Signer(key).pseudonym(user), rater_pseudonym(key, user)]


def _told(stone: Tombstone) -> str:
    removed = ", ".join(f"{count} from {place}" for place, count in sorted(stone.removed.items()) if count)
    learned = ", ".join(stone.models) or "none"
    return (
        f"erased: {removed or 'nothing was left'}. Versions that learned from this person, or from one that "
        f"did: {learned}. Tombstone: tombstones/{stone.person}.json"
    )


def catch_up(storage: Storage, inbox: Inbox | None = None, wait_seconds: float = 0.0) -> list[Tombstone]:
    """Before somebody looks at the log: commit what replicas wrote, and erase everyone who asked for it,
    unless a run works on the same root, which will: see `waiting`. Nothing is touched where nothing waits."""
    places = inboxes(storage, inbox) if storage.root.is_dir() else []
    if not any(place.waiting() or place.being_written() for place in places) and not any(pending(storage)):
        return []
    commit_inbox(storage, inbox)
    if not any(pending(storage)):  # a run that begins meanwhile finds the root free
        return []
    with ExitStack() as alone:
        try:
            alone.enter_context(only_run(storage))
        except UserError:
            return []
        return carry_out(storage, inbox, wait_seconds)


def watch(
    storage: Storage,
    inbox: Inbox,
    wait_seconds: float,
    say: Callable[[str], None],
    stopped: threading.Event,
    every_seconds: float = EVERY_SECONDS,
) -> None:
    """Beside a server, until it is stopped: who asks to be erased is, also where no round ever runs."""
    before = ""
    while not stopped.is_set():
        try:
            said = "\n".join(_told(stone) for stone in catch_up(storage, inbox, wait_seconds))
        except UserError as error:  # people are served all the same, and the next look may find it mended
            said = str(error) if str(error) != before else ""
            before = str(error)
        # A watch that died of it would erase nobody any more.
        except Exception as error:  # its words may hold what people wrote
            log.warning("erasures were not carried out: %s", kind_and_place(error))
            said = ""
        if said:
            say(said)
        stopped.wait(every_seconds)


def waiting(storage: Storage) -> int:
    """How many people asked to be erased and are not yet."""
    return sum(1 for _ in pending(storage))


def mind(storage: Storage, inbox: Inbox | None = None) -> None:
    """Between the steps of a round. Raises ErasedMeanwhile when somebody asked for it."""
    stones = carry_out(storage, inbox)
    if stones:
        raise ErasedMeanwhile(f"{len(stones)} erased")


def carry_out(storage: Storage, inbox: Inbox | None = None, wait_seconds: float = 0.0) -> list[Tombstone]:
    """Commit what replicas wrote, and erase everyone who asked for it. Returns their tombstones.

    inbox          where replicas write, if not under the storage root
    wait_seconds   how long a live replica may keep its segment open: what it acknowledged until now is in
                   the log after that time
    """
    commit_inbox(storage, inbox)  # requests that came over the network lie in it
    requests = list(pending(storage))
    if requests and any(place.being_written() for place in inboxes(storage, inbox)):
        time.sleep(wait_seconds)
        commit_inbox(storage, inbox)
    done = []
    for request in requests:
        done.append(_erase(storage, inbox, request))
        withdraw(storage, request)
    return done


def _erase(storage: Storage, inbox: Inbox | None, request: Request) -> Tombstone:
    person, only = request.person, request.conversation
    asked = _now() if request.at is None else request.at
    stones = Tombstones(storage)
    before = stones.of(person, only) or Tombstone(request.digest, asked, of_conversation=bool(only))
    until = max(before.at, asked)
    because = f"erasure {before.person}"
    rounds = list(_rounds_with(storage, person, only))
    stone = replace(before, at=until, done=False)
    stone = replace(stone, models=sorted({*before.models, *_touched(storage, person, only, until, rounds)}))
    stones.put(stone)  # from here on nothing that they said until then comes in any more
    with committing(storage):
        words = erase.words_of(storage, person, only, until)
        removed = {"segments": erase.erase_lines(inboxes(storage, inbox), stones)}
        names = [only] if only else [person, *request.names]
        removed["rejects"] = erase.erase_rejects(storage, names, words)
        seqs = erase.seqs_of(storage, person, only, until)
        stone = replace(stone, seqs=erase.joined(stone.seqs, seqs))
        stones.put(stone)  # before the rows go: a gap that nobody explains would be a damage
        removed["interactions"] = erase.erase_rows(storage, person, only, until)
    if storage.path(MEMORY).is_dir():
        # A turn under way would remember them again: the store keeps the time, and refuses what came before.
        store = Memories(storage.path(MEMORY))
        removed["memories"] = store.forget(person, conversation=only or None, until=until)
    removed["rounds"] = _erase_from_rounds(storage, person, only, because)
    _drop_unfinished(storage)
    for name in rounds:
        _restart(storage, name)
    summed = {place: removed.get(place, 0) + before.removed.get(place, 0) for place in removed}
    stone = replace(stone, done=True, removed=summed)
    stones.put(stone)
    return stone


def _now() -> int:
    return time.time_ns() // 1000


def _slices(storage: Storage) -> list[Path]:
    return sorted(storage.path("rounds").glob("*/collect/conversations.parquet"))


def _rounds_with(storage: Storage, person: str, only: str) -> Iterator[str]:
    """Rounds that learned from a conversation in which the person took part, or from the one that goes."""
    for path in _slices(storage):
        if erase.theirs_in([path], person, only).conversations:
            yield f"rounds/{path.parent.parent.name}"


def _touched(storage: Storage, person: str, only: str, until: int, rounds: list[str]) -> set[str]:
    """Versions that learned from the person's talk, from what they said of others', or from such a version.

    only   the one conversation that goes: what they said of others' does not count then

    A reward model learns from all slices up to its round, so every later candidate is touched too.
    """
    models, rewards = (Registry(storage, kind) for kind in ("models", "rewards"))
    said = min(erase.seqs_of(storage, person, only, until), default=None)
    rated = None if only else erase.first_rated(storage, person)
    first = _first_round(storage, rated, rounds)
    touched = set[str]()
    for version in rewards.versions():
        if _saw(rewards.lineage(version), first, said):
            touched.add(f"rewards/{version}")
    touched |= {f"judges/{version}" for version in _judges_that_saw(storage, person, rated, first)}
    for version in models.versions():  # a parent has the lower number
        lineage = models.lineage(version)
        learned = first is not None and lineage.get("round", 0) >= first
        if learned or f"models/{lineage.get('parent') or lineage.get('base')}" in touched:
            touched.add(f"models/{version}")
    return touched


def _saw(reward: dict[str, Any], first: int | None, said: int | None) -> bool:
    """Whether a reward model of this lineage learned from somebody whom rounds from `first` on learned from,
    and whose first row in the table is `said`."""
    if "round" in reward:
        return first is not None and reward["round"] >= first
    # Learned outside rounds, from the whole log until then.
    return said is not None and reward.get("upto_seq", said) >= said


def _first_round(storage: Storage, rated: int | None, rounds: list[str]) -> int | None:
    """The first one that had their talk, or what they said of others' talk, which row `rated` begins."""
    numbers = [_number(name) for name in rounds]
    if rated is not None:
        manifests = (path.parent / MANIFEST for path in _slices(storage))
        numbers += [
            _number(path.parent.parent.name) for path in manifests if read_json(path)["upto_seq"] >= rated
        ]
    return min(numbers, default=None)


def _number(round_: str) -> int:
    return int(round_.rpartition("/")[2])


def _judges_that_saw(storage: Storage, person: str, rated: int | None, first: int | None) -> Iterator[str]:
    """A judge learns from the thumbs of its own people and from what raters said of their talk, in the round
    that first has a verdict of it. One of simulated people learns from nobody."""
    judges = Registry(storage, "judges")
    in_its_part = part_of(person, seed=0) == "judge"  # as in judging.py, which imports far too much for here
    if first is None or not (in_its_part or rated is not None):
        return
    used = [
        (_number(path.parent.parent.name), read_json(path).get("judge_version"))
        for path in storage.path("rounds").glob("*/evaluate/verdict.json")
    ]
    for version in judges.versions():
        made_in = min((number for number, judge in used if judge == version), default=first)
        if not judges.lineage(version).get("simulated") and made_in >= first:
            yield version


def _drop_unfinished(storage: Storage) -> None:
    """What a step that was killed had made, which no manifest lists: ids of people, or copies of talk. A step
    that is done again makes it anew, as a canary's next look does its scores, which name messages."""
    storage.clear_aside()
    for parts in storage.path("rounds").glob("*/scoring"):
        shutil.rmtree(parts)
    for scores in storage.path("canaries").glob("*/scores.parquet"):
        scores.unlink(missing_ok=True)


def _erase_from_rounds(storage: Storage, person: str, only: str, because: str) -> int:
    """Slices, scores, training sets, answers: everything published under rounds/ that names the person, or
    the conversation that goes."""
    theirs = erase.theirs_in(_slices(storage), person, only)
    removed = 0
    # Slices last: a repeated erasure finds in them which conversations it is about.
    manifests = sorted(storage.path("rounds").rglob(MANIFEST), key=lambda path: path.parent.name == "collect")
    for manifest in manifests:
        name = manifest.parent.relative_to(storage.root).as_posix()
        for file in read_json(manifest)["files"]:
            if file.endswith(".parquet"):
                removed += erase.erase_from_table_file(storage, name, file, theirs, because)
            elif file.endswith(".json"):
                removed += _erase_from_json(storage, name, file, theirs, because)
    for path in storage.path("rounds").glob("*/talk.json"):
        kept, gone = pruned(read_json(path), theirs.person, theirs.conversations)
        if gone:
            write_json(path, kept)
            removed += gone
    return removed


def _erase_from_json(storage: Storage, name: str, file: str, theirs: erase.Theirs, because: str) -> int:
    def rewrite(old: Path, new: Path) -> int:
        kept, gone = pruned(read_json(old), theirs.person, theirs.conversations)
        if gone:
            write_json(new, kept)
        return gone

    return storage.redact(name, file, rewrite, because)


def pruned(value: Any, person: str | None, conversations: Collection[str]) -> tuple[Any, int]:
    """A JSON value without what names the person or one of their conversations, and how much that was.

    person   None where it is about the conversations alone

    Objects of theirs leave lists, their names leave lists of names and the keys of objects.
    """
    if isinstance(value, dict):
        rest = {k: v for k, v in value.items() if not _names(k, person, conversations)}
        kept = {k: pruned(v, person, conversations) for k, v in rest.items()}
        gone = len(value) - len(kept) + sum(count for _, count in kept.values())
        return {key: inner for key, (inner, _) in kept.items()}, gone
    if isinstance(value, list):
        left = [pruned(v, person, conversations) for v in value if not _is_theirs(v, person, conversations)]
        return [inner for inner, _ in left], len(value) - len(left) + sum(count for _, count in left)
    return value, 0


def _is_theirs(value: Any, person: str | None, conversations: Collection[str]) -> bool:
    if isinstance(value, dict):
        named = person is not None and value.get("person") == person
        return named or value.get("conversation_id") in conversations
    return _names(value, person, conversations)


def _names(value: Any, person: str | None, conversations: Collection[str]) -> bool:
    return isinstance(value, str) and (value == person or value in conversations)


def _restart(storage: Storage, name: str) -> None:
    """A round that is not over goes on from `curate`: its candidate was made of what is gone."""
    candidate = read_json(storage.path(name, "plan", "plan.json"))["candidate"]
    models = Registry(storage, "models")
    if storage.is_published(f"{name}/hand_over") or candidate in (
        models.alias("champion"),
        models.alias("challenger"),
    ):
        return
    for step in _FROM_CURATE:
        storage.discard(f"{name}/{step}")
    storage.discard(f"models/{candidate}")
