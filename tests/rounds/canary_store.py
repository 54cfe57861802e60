"""A storage root with a champion and a candidate that passed, and people who talk to both."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bb3x_ray.data.inbox import open_inbox
from bb3x_ray.registry import Bootstrap, Registry
from bb3x_ray.reward.trust.history import TrustHistory
from bb3x_ray.reward.trust.report import HISTORY, PEOPLE, PEOPLE_SCHEMA
from bb3x_ray.rounds.ledger import Ledger
from bb3x_ray.schemas.event import FAILED_TURN, FAILED_TURN_ID, Event
from bb3x_ray.schemas.learning import Gate, Verdict
from bb3x_ray.serve.canary.split import Split
from bb3x_ray.storage import Storage, write_json

KEY = b"0123456789abcdef"
GATE = Gate("quality", True, 0.02, 0.0, "better")
VERDICT = Verdict("v0002", "v0001", True, (GATE,), {}, "v0001", "v0002 is better than v0001")
ARMS = {"v0001": "champion", "v0002": "candidate"}
PEOPLE_KNOWN = [f"u-{n:04d}" for n in range(500)]


def make_store(
    storage: Storage, trolls: Iterable[str] = (), verdict: Verdict = VERDICT, **lineage_of_candidate: str
) -> Registry:
    """v0001 is champion; v0002 comes of round 1, which knows PEOPLE_KNOWN, all helpers but `trolls`."""
    models, ledger, distrusted = Registry(storage), Ledger(storage), frozenset(trolls)
    candidate = {"parent": "v0001", "round": 1, **lineage_of_candidate}
    for lineage in ({"source": "test", "parent": None}, candidate):
        with models.publish(models.reserve(), lineage, f"# card of {lineage['parent']}'s child\n") as folder:
            Path(folder / "weights").write_text("weights")
    models.move_champion(Bootstrap("v0001"), expected=None)
    with ledger.publish("rounds/0001", "evaluate", passed=verdict.passed) as folder:
        write_json(folder / "verdict.json", verdict.to_dict())
    with ledger.publish("rounds/0001", "score") as folder:
        people = [
            {
                "person": person,
                "trust": 0.1 if person in distrusted else 0.9,
                "distrusted": person in distrusted,
                "thumbs": 20,
                "right_about_good": 0.8,
                "right_about_bad": 0.8,
                "group": None,
            }
            for person in PEOPLE_KNOWN
        ]
        pq.write_table(pa.Table.from_pylist(people, schema=PEOPLE_SCHEMA), folder / PEOPLE)
        counts = np.ones((len(PEOPLE_KNOWN), 24), np.float32)
        TrustHistory(tuple(PEOPLE_KNOWN), counts).save(folder / HISTORY)
    return models


def let_talk(
    storage: Storage,
    up: dict[str, float],
    people: Iterable[str] = PEOPLE_KNOWN,
    thumbs: int = 2,
    visit: int = 0,
    share: float = 50,
    texts: dict[str, str] | None = None,
    named: str | None = None,
    fails: dict[str, int] | None = None,
) -> None:
    """Each person gets `thumbs` replies of their version, and presses up with its chance in `up`.

    texts   what each version says
    named   the version that all of them ask for by its name, whatever their arm
    fails   version -> its every nth turn fails, and there is no reply
    """
    split = Split("v0001", "v0002", share, KEY)
    inbox = open_inbox(str(storage.root))
    log = inbox.writer(f"replica-{visit}", 60.0, 10_000_000)
    events: list[Event] = []
    for person in people:
        version = named or split.arm(person, "")
        told: dict[str, object] = {} if named else {"arm": ARMS[version]}
        for n in range(thumbs):
            name = f"{person}-{visit}-{n}"
            chance = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
            about = {"conversation_id": f"c-{person}-{visit}", "person": person, "source": "served"}
            about |= {"consent_basis": "store", "simulated": False, "message_id": name}
            every = (fails or {}).get(version)
            if every and int.from_bytes(hashlib.sha256(name.encode()).digest()[4:6], "big") % every == 0:
                details = json.dumps({FAILED_TURN: {**told, "model_version": version, "failed": True}})
                events.append(Event(f"{FAILED_TURN_ID}{name}", "feedback", 2 * n, **about, details=details))  # type: ignore[arg-type]
                continue
            reply = Event(
                f"m-{name}",
                "message",
                2 * n + 1,
                **about,  # type: ignore[arg-type]
                position=2 * n + 1,
                author_kind="model",
                author_name=version,
                text=(texts or {}).get(version, "A reply that nobody may find outside the log."),
                finish_reason="stop",
                details=json.dumps({**told, "latency_ms": 120, "failed": False}),
            )
            rating = 1 if chance < up[version] else -1
            thumb = Event(f"f-{name}", "feedback", 2 * n + 2, **about, rating=rating)  # type: ignore[arg-type]
            events += [reply, thumb]
    log.append(events)
    log.close()


def change_minds(storage: Storage, version: str, rating: int) -> None:
    """Everybody who was given `version` by `let_talk` gives each of its replies another thumb."""
    split = Split("v0001", "v0002", 50, KEY)
    log = open_inbox(str(storage.root)).writer("replica-later", 60.0, 10_000_000)
    log.append(
        [
            Event(
                f"f-again-{person}-{n}",
                "feedback",
                1000,
                f"c-{person}-0",
                person,
                "served",
                "store",
                False,
                f"{person}-0-{n}",
                rating=rating,
            )
            for person in PEOPLE_KNOWN
            for n in range(2)
            if split.arm(person, "") == version
        ]
    )
    log.close()
