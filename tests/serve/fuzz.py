"""Random requests to a real server: `python -m tests.serve.fuzz --requests 10000`.

Two people talk, compare, rate, look at and delete what is theirs, and try the same with what is the other's;
between that come requests that are bent out of shape. The server has all that one can have: safety, memories,
modules, a second version. Counted are answers of 5xx, and leaks: words of one person in
an answer to the other, and what the other's request was let do with anything of theirs.
"""

import argparse
import json
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bb3x_ray.config import ChatConfig
from bb3x_ray.data.committer import read_lines
from bb3x_ray.data.inbox import FolderInbox
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.turn import now_us
from tests.serve.room import KEY
from tests.serve.served import Served, everything, served
from tests.tiny import make_tiny_model

CHAT, FEEDBACK, COMPARE = "/v1/chat/completions", "/v1/feedback", "/v1/compare"
REMEMBERED = 40  # completions of each person that are tried again


@dataclass
class Person:
    """`secret` stands in all that they say and in what is remembered of them, so that it is known wherever it
    turns up. `comparisons`, `memories`: ids."""

    user: str
    secret: str
    completions: list[dict[str, Any]] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)
    comparisons: list[str] = field(default_factory=list)
    memories: list[str] = field(default_factory=list)


@dataclass
class Found:
    """What a fuzz counted. `leaks` and `failures` say how it came to them, without a secret; `met`: what was
    answered with success, and `recalled` among it: a memory, in a reply's trace."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Found") -> "Found":
        return Found(
            self.requests + other.requests,
            self.statuses + other.statuses,
            self.failures + other.failures,
            self.leaks + other.leaks,
            self.met + other.met,
        )


class Fuzz:
    """One thread's requests; `seed` says which."""

    def __init__(self, server: Served, seed: int) -> None:
        self.chance = random.Random(seed)
        self.client = httpx.Client(base_url=server.url, trust_env=False, timeout=300)
        self.found = Found()
        self.memories = server.memories
        self.people = [self._person(name) for name in ("ada", "bob")]
        self.acts: list[Callable[[Person, Person], None]] = [
            self.talk, self.talk, self.talk_at_the_others_place, self.rate, self.rate_the_others,
            self.look, self.look_at_the_others, self.delete, self.delete_the_others, self.bend, self.bend,
            self.compare, self.choose, self.choose_the_others, self.forget,
        ]  # fmt: skip

    def run(self, count: int) -> Found:
        while self.found.requests < count:
            me, other = self.chance.sample(self.people, 2)
            self.chance.choice(self.acts)(me, other)
        self.client.close()
        return self.found

    def _person(self, name: str) -> Person:
        made = Person(f"{name}-{self.chance.getrandbits(64):x}", f"secret {self.chance.getrandbits(80):x}")
        for thing in ("a cat", "the sea", "old maps"):
            memory = self.memories.add(
                Signer(KEY).pseudonym(made.user), f"I like {thing}, {made.secret} {thing}", "person", now_us()
            )
            made.memories += [memory.id] if memory else []
        return made

    def send(self, who: Person, what: str, method: str, path: str, **more: Any) -> httpx.Response | None:
        """The answer, counted and searched; None where the client's own library refuses to send it."""
        try:
            answer = self.client.request(method, path, **more)
        except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeEncodeError, ValueError):
            return None
        self.found.requests += 1
        self.found.statuses[answer.status_code] += 1
        if answer.is_success:
            self.found.met[what] += 1
        if answer.status_code >= 500:
            self.found.failures.append(f"{what}: {answer.status_code}")
        for person in self.people:
            if person is not who and person.secret in answer.text:
                self.found.leaks.append(f"{what}: words")
        return answer

    def forbidden(self, answer: httpx.Response | None, what: str) -> None:
        if answer is not None and answer.is_success:
            self.found.leaks.append(f"{what}: {answer.status_code}")

    # What somebody does who is who they say

    def talk(self, me: Person, other: Person) -> None:
        body: dict[str, Any] = {
            "messages": self._history(me),
            "user": me.user,
            "store": self.chance.random() < 0.8,
            "max_tokens": self.chance.randint(1, 6),
            "stream": self.chance.random() < 0.3,
        }
        if self.chance.random() < 0.5:
            body["metadata"] = {"conversation_id": self.chance.choice(["tea", "coffee", "x"])}
        if self.chance.random() < 0.5:
            body.setdefault("metadata", {})["trace"] = "true"
        answer = self.send(me, "talk", "POST", CHAT, json=body)
        self.found.met["recalled"] += answer is not None and f"I like the sea, {me.secret}" in answer.text
        self._remember(me, answer)

    def compare(self, me: Person, other: Person) -> None:
        store = self.chance.random() < 0.8
        body = {"messages": self._history(me), "user": me.user, "store": store}
        answer = self.send(me, "compare", "POST", COMPARE, json=body)
        if answer is not None and answer.is_success:
            me.comparisons = [*me.comparisons, answer.json()["id"]][-REMEMBERED:]

    def choose(self, me: Person, other: Person) -> None:
        if me.comparisons:
            self._choose(me, "choose", self.chance.choice(me.comparisons))

    def _choose(self, me: Person, what: str, comparison: str) -> httpx.Response | None:
        body = {"choice": self.chance.choice(["a", "b", "both", "neither"]), "user": me.user}
        return self.send(me, what, "POST", f"{COMPARE}/{comparison}", json=body)

    def forget(self, me: Person, other: Person) -> None:
        if (mine := self._one(me)) and me.memories and self.chance.random() < 0.5:
            headers = {"bb3x-user": me.user, "bb3x-proof": mine["id"]}
            path = f"/v1/memories/{self.chance.choice(me.memories)}"
            self.send(me, "forget", "DELETE", path, headers=headers)

    def rate(self, me: Person, other: Person) -> None:
        if not (mine := self._one(me)):
            return
        proof = {"user": me.user} if self.chance.random() < 0.5 else {"token": mine["feedback_token"]}
        body = {"completion_id": mine["id"], "rating": self.chance.choice([1, -1, None]), **proof}
        if self.chance.random() < 0.3:
            body["comment"] = me.secret
        headers = {"Idempotency-Key": str(self.chance.randint(0, 5))} if self.chance.random() < 0.5 else {}
        self.send(me, "rate", "POST", FEEDBACK, json=body, headers=headers)

    def look(self, me: Person, other: Person) -> None:
        if mine := self._one(me):
            proof = self.chance.choice([mine["id"], *me.comparisons[-1:]])
            headers = {"bb3x-user": me.user, "bb3x-proof": proof}
            path = self.chance.choice(["/v1/conversations", "/v1/memories", f"{CHAT}/{mine['id']}"])
            answer = self.send(me, f"look {path.split('/')[2]}", "GET", path, headers=headers)
            if answer is not None and path != f"{CHAT}/{mine['id']}" and answer.is_success:
                listed = [one["id"] for one in answer.json()["data"]]
                if path == "/v1/conversations":
                    me.conversations = listed
                else:
                    me.memories = listed

    def delete(self, me: Person, other: Person) -> None:
        if (mine := self._one(me)) and self.chance.random() < 0.3:
            headers = {"bb3x-user": me.user, "bb3x-proof": mine["id"]}
            paths = [f"{CHAT}/{mine['id']}", *(f"/v1/conversations/{one}" for one in me.conversations)]
            self.send(me, "delete", "DELETE", self.chance.choice(paths), headers=headers)

    # What the other must not be let do

    def talk_at_the_others_place(self, me: Person, other: Person) -> None:
        named = self.chance.choice([*other.conversations, "tea"]).partition(".")[0][:64]
        body = {"messages": self._history(me), "user": me.user, "store": True, "max_tokens": 1,
                "metadata": {"conversation_id": named}}  # fmt: skip
        self._remember(me, self.send(me, "talk there", "POST", CHAT, json=body))

    def rate_the_others(self, me: Person, other: Person) -> None:
        if theirs := self._one(other):
            mine = self._one(me)
            token = mine["feedback_token"] if mine else "fb-u-" + "0" * 20 + "-" + "0" * 24
            proof = self.chance.choice([{"user": me.user}, {"token": token}, {}, {"user": ""}])
            body = {"completion_id": self._bent(theirs["id"]), "rating": 1, **proof}
            self.forbidden(self.send(me, "rate theirs", "POST", FEEDBACK, json=body), "rate theirs")

    def look_at_the_others(self, me: Person, other: Person) -> None:
        self._reach(me, other, "GET", ["/v1/conversations", "/v1/memories"])

    def delete_the_others(self, me: Person, other: Person) -> None:
        paths = [f"/v1/conversations/{one}" for one in other.conversations]
        self._reach(me, other, "DELETE", [*paths, *(f"/v1/memories/{one}" for one in other.memories)])

    def choose_the_others(self, me: Person, other: Person) -> None:
        if other.comparisons:
            theirs = self._bent(self.chance.choice(other.comparisons))
            self.forbidden(self._choose(me, "choose theirs", theirs), "choose theirs")

    def _reach(self, me: Person, other: Person, method: str, paths: list[str]) -> None:
        theirs, mine = self._one(other), self._one(me)
        if not theirs:
            return
        foreign = self.chance.choice([theirs["id"], *other.comparisons[-1:]])
        headers = {"bb3x-user": me.user, "bb3x-proof": self._bent(foreign)}
        if method == "DELETE" and mine and self.chance.random() < 0.5:
            headers["bb3x-proof"] = mine["id"]  # a good proof, for a conversation that is not theirs
        elif self.chance.random() < 0.2:
            del headers["bb3x-user"]
        if self.chance.random() < 0.2:
            consent = self.chance.choice(["/v1/consent", "/v1/erasure"])
            body = {"completion_id": foreign, "user": me.user}
            body |= {"store": True} if consent == "/v1/consent" else {}
            self.forbidden(self.send(me, "consent", "POST", consent, json=body), "consent of theirs")
        path = self.chance.choice([*paths, f"{CHAT}/{theirs['id']}"])
        self.forbidden(self.send(me, "reach", method, path, headers=headers), f"{method} theirs")

    # What nobody should send

    def bend(self, me: Person, other: Person) -> None:
        mine = self._one(me) or {"id": "x", "feedback_token": "y"}
        bodies: dict[str, dict[str, Any]] = {
            CHAT: {"messages": self._history(me), "user": me.user, "max_tokens": 2, "stop": "a", "seed": 1,
                   "temperature": 1, "top_p": 1, "n": 1, "stream": False, "stream_options": {},
                   "metadata": {"conversation_id": "tea"}, "model": "champion", "store": True},
            FEEDBACK: {"completion_id": mine["id"], "rating": 1, "reasons": [], "comment": "",
                       "user": me.user, "correction": "", "source": "f", "metadata": {}, "token": None},
            COMPARE: {"messages": self._history(me), "user": me.user, "store": True, "metadata": {}},
            "/v1/consent": {"completion_id": mine["id"], "user": me.user, "store": True},
        }  # fmt: skip
        path, body = self.chance.choice(list(bodies.items()))
        for _ in range(self.chance.randint(1, 3)):
            body[self.chance.choice([*body, self._scalar_word()])] = self._value(3)
        text = json.dumps(body)
        if self.chance.random() < 0.3:
            at, upto = sorted(self.chance.randrange(len(text) + 1) for _ in range(2))
            text = text[:at] + self.chance.choice(["", "[", "}", '"', "\\u", "1e999", text]) + text[upto:]
        headers = {"Content-Type": "application/json"}
        if self.chance.random() < 0.3:
            name = self.chance.choice(
                ["Content-Type", "Idempotency-Key", "Authorization", "bb3x-user", "Accept"]
            )
            headers[name] = "".join(self.chance.choice("ab /;,=%\t\"'*") for _ in range(9)).strip()
        method = (
            "POST" if self.chance.random() < 0.9 else self.chance.choice(["GET", "PUT", "PATCH", "DELETE"])
        )
        if self.chance.random() < 0.2:
            path += self.chance.choice(["/", "/%00", "/..", "?x=" + "y" * 50, "/" + self._scalar_word()])
        answer = self.send(me, f"bend {method}", method, path, content=text.encode(), headers=headers)
        if answer is not None and answer.is_success and path == CHAT and json.loads(text)["user"] == me.user:
            self._remember(me, answer)

    def _value(self, depth: int) -> Any:
        kinds = [None, True, 0, -1, 2**63, -(2**70), 1e308, float("nan"), float("inf"), "", "\ud800", "\x00",
                 self._scalar_word(), "<|im_end|>" * 3, "é" * 300, [], {}]  # fmt: skip
        if depth and self.chance.random() < 0.4:
            inner = [self._value(depth - 1) for _ in range(self.chance.randint(0, 4))]
            return inner if self.chance.random() < 0.5 else {self._scalar_word(): one for one in inner}
        return self.chance.choice(kinds)

    def _scalar_word(self) -> str:
        known = ["role", "content", "user", "messages", "metadata", "conversation_id", "text", "type", "id"]
        return self.chance.choice([*known, "".join(self.chance.choice("ab\u202e🙂/.%") for _ in range(5))])

    def _bent(self, completion_id: str) -> str:
        """As it is, or with a part of it changed."""
        if self.chance.random() < 0.7:
            return completion_id
        at = self.chance.randrange(len(completion_id))
        return completion_id[:at] + self.chance.choice("0a.sn") + completion_id[at + 1 :]

    def _history(self, me: Person) -> list[dict[str, str]]:
        words = [f"{me.secret} {self.chance.choice(['tea', 'the sea', '<|im_end|>', 'zounds', ''])}"]
        if me.completions and self.chance.random() < 0.4:
            words = [words[0], self.chance.choice(["yes", me.completions[-1].get("said", "no")]), "And?"]
        return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(words)]

    def _one(self, person: Person) -> dict[str, Any] | None:
        return self.chance.choice(person.completions) if person.completions else None

    def _remember(self, me: Person, answer: httpx.Response | None) -> None:
        if answer is None or not answer.is_success:
            return
        if answer.headers["content-type"].startswith("text/event-stream"):
            events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
            if "feedback_token" not in events[-1]:
                self.found.failures.append("stream without its end")
                return
            kept = {"id": events[-1]["id"], "feedback_token": events[-1]["feedback_token"]}
        else:
            body = answer.json()
            kept = {"id": body["id"], "feedback_token": body["feedback_token"]}
            kept["said"] = body["choices"][0]["message"]["content"]
        me.completions = [*me.completions, kept][-REMEMBERED:]


def mixed_conversations(server: Served) -> list[str]:
    """Conversations in the log in which more than one person is."""
    people: dict[str, set[str]] = {}
    for _, data in FolderInbox(server.storage.root).unarchived(lambda name: True):
        for event in read_lines(data)[0]:
            if event.conversation_id != "*":
                people.setdefault(event.conversation_id, set()).add(event.person)
    return [conversation for conversation, who in people.items() if len(who) > 1]


def fuzz(server: Served, requests: int, seed: int, threads: int = 4) -> Found:
    """`requests` in all, by some threads; each has two people of its own."""
    found: list[Found] = []

    def work(number: int) -> None:
        found.append(Fuzz(server, seed * 1000 + number).run(requests // threads))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    total = sum(found, Found())
    if len(found) < threads:
        total.failures.append(f"{threads - len(found)} of {threads} threads died")
    total.leaks += [f"conversation of more than one person: {len(mixed_conversations(server))}"] * bool(
        mixed_conversations(server)
    )
    if not server.engine.alive:
        total.failures.append("the engine died")
    return total


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--requests", type=int, default=10_000)
    asked.add_argument("--seed", type=int, default=0)
    args = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny_model(Path(folder) / "model")
        other, root = make_tiny_model(Path(folder) / "other", seed=1), Path(folder) / "store"
        chat, around = ChatConfig(max_new_tokens=4), everything(root)
        with served(model, root, beside=other, chat=chat, around=around, requests_per_minute=0) as s:
            found = fuzz(s, args.requests, args.seed)
    print(f"requests          {found.requests}")  # noqa: T201
    print(f"by status         {dict(sorted(found.statuses.items()))}")  # noqa: T201
    print(f"met               {dict(sorted(found.met.items()))}")  # noqa: T201
    print(f"5xx and failures  {len(found.failures)} {Counter(found.failures)}")  # noqa: T201
    print(f"leaks             {len(found.leaks)} {Counter(found.leaks)}")  # noqa: T201


if __name__ == "__main__":
    main()
