"""A person is erased: whatever lies under the storage root is decoded and searched for their words."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bb3x_ray.cli import app
from bb3x_ray.data import slices, table
from bb3x_ray.data.committer import commit_inbox, write_rejects
from bb3x_ray.data.compact import compact
from bb3x_ray.data.corrections import SOURCE as CORRECTED
from bb3x_ray.data.ingest import ingest
from bb3x_ray.data.parts import part_of
from bb3x_ray.data.segments import SegmentWriter
from bb3x_ray.data.tombstones import Request, Tombstones, ask_for_erasure, digest, pending
from bb3x_ray.data.verify import verify
from bb3x_ray.registry import Registry
from bb3x_ray.reward.score_parts import Parts, Resume
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import Trust, TrustHistory
from bb3x_ray.reward.trust.confusion import LEVELS
from bb3x_ray.reward.trust.report import HISTORY, JUDGED, PEOPLE, save_trust
from bb3x_ray.rounds import erasure
from bb3x_ray.rounds.ledger import Ledger, only_run
from bb3x_ray.rounds.round import RoundPlan
from bb3x_ray.rounds.server_key import server_key
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.schemas.learning import ANSWERS_SCHEMA, SCORED_SCHEMA, TRAINING_SCHEMA
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.memory import MEMORY, Memories
from bb3x_ray.storage import Storage, read_json, write_json
from tests.data.make import labelled, load, read_conversations
from tests.data.make import said as message

SECRET, REPLY, REMARK = "zanzibar marmalade", "my zebra replied", "quixotic remark"
CORRECTION = "ought to have yodelled"
REMEMBERED = "I breed nightingales"
WORDS = (SECRET, REPLY, REMARK, CORRECTION, REMEMBERED)
TOKENS = [90157913, 90157914]  # what stands for the secret in training sets here


def said(person: str, n: int, text: str, reply: str, comment: str, at: int = 0) -> list[Event]:
    c = f"{person}-talk-{n}"
    shared: dict[str, Any] = {
        "conversation_id": c,
        "person": person,
        "source": "served",
        "consent_basis": "store",
        "simulated": False,
    }
    return [
        Event(f"{c}-0", "message", at, **shared, message_id=f"{c}-m0", position=0,
              author_kind="person", author_name=person, text=text),
        Event(f"{c}-1", "message", at + 1, **shared, message_id=f"{c}-m1", position=1,
              author_kind="model", author_name="v0001", text=reply, finish_reason="stop"),
        Event(f"{c}-2", "feedback", at + 2, **shared, message_id=f"{c}-m1", rating=-1, comment=comment,
              correction=CORRECTION if comment == REMARK else ""),
    ]  # fmt: skip


def append(storage: Storage, events: list[Event], seal: bool = True) -> None:
    with SegmentWriter(storage.path("inbox"), "r", 60.0, 1_000_000) as log:
        log.append(events)
    if seal:
        commit_inbox(storage)


def decoded(root: Path) -> str:
    """Everything under the root as text, Parquet and compressed files among it."""
    pieces = []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        raw = path.read_bytes()
        if path.suffix == ".parquet":
            pieces += [
                json.dumps(row, default=str, ensure_ascii=False) for row in pq.read_table(path).to_pylist()
            ]
        elif path.suffix == ".gz":
            raw = gzip.decompress(raw)
        pieces.append(raw.decode("utf-8", "replace"))
        pieces.append(path.name)
    return "\n".join(pieces)


def row(person: str, tokens: list[int]) -> dict[str, Any]:
    flags = [True] * len(tokens)
    return {"row_id": f"{person}-talk-1", "source": "served", "person": person, "input_ids": tokens,
            "imitate": flags, "avoid": [not f for f in flags], "weight": None, "starts": None}  # fmt: skip


def answer(person: str, context: str) -> dict[str, Any]:
    return {"answer_id": f"{person}-a", "context_id": f"{person}-talk-1-m1", "person": person,
            "conversation_id": f"{person}-talk-1", "context": context, "prompt_ids": [1], "text": context,
            "finish_reason": "stop", "good": 0.5, "error": ""}  # fmt: skip


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Two people, two rounds: the first is over, the second stands before its evaluation."""
    storage = Storage(tmp_path / "store")
    models, rewards, ledger = Registry(storage, "models"), Registry(storage, "rewards"), Ledger(storage)
    publish(models, models.reserve(), {"source": "tiny"})
    append(storage, said("ada", 1, SECRET, REPLY, REMARK) + said("bob", 1, "hello", "hi there", "fine"))
    for number in (1, 2):
        plan = RoundPlan(number, 1, "v0001", models.reserve(), 0 if number == 1 else table.head(storage))
        ledger.plan(number, lambda plan=plan: plan)
        if number == 2:
            append(
                storage, said("ada", 2, SECRET + " again", REPLY, "") + said("bob", 2, "bye", "see you", "")
            )
        slices.pin(storage, f"{plan.name}/collect", plan.after, table.head(storage))
        with ledger.publish(plan.name, "score") as folder:
            talks = [f"{person}-talk-{number}" for person in ("ada", "bob")]
            turns = [
                {"conversation_id": t, "message_id": f"{t}-m1", "person": t.partition("-")[0], "good": 0.5}
                for t in talks
            ]
            pq.write_table(pa.Table.from_pylist(turns, schema=SCORED_SCHEMA), folder / "turns.parquet")
            write_json(folder / "scored.json", {"trust": {"ada": 1.0, "bob": 0.5}, "distrusted": ["ada"]})
            signals = [Signal(t, f"{t}-m1", t.partition("-")[0], "", "", 0) for t in talks]
            counts = np.ones((2, 2 * len(LEVELS)), np.float32)
            trust = Trust(
                {"ada": 1.0, "bob": 0.5},
                frozenset(["ada"]),
                1.0,
                dict.fromkeys(("ada", "bob"), 1),
                weights=dict.fromkeys([s.message_id for s in signals], 1.0),
                said=dict.fromkeys([s.message_id for s in signals], 0.5),
                history=TrustHistory(("ada", "bob"), counts),
            )
            save_trust(folder, trust, signals)
        corrected = {**row("ada", TOKENS), "row_id": f"{CORRECTED}-ada-talk-1-m1", "source": CORRECTED}
        rows = [row("ada", TOKENS), corrected, row("bob", [1, 2])]
        training = pa.Table.from_pylist(rows, schema=TRAINING_SCHEMA)
        for name in (f"{plan.name}/curate", f"{plan.name}/iterations/1/set"):
            with storage.publish(name) as folder:
                pq.write_table(training, folder / "training_set.parquet")
        with storage.publish(f"{plan.name}/iterations/2/answers") as folder:
            answers = [answer("ada", SECRET), answer("bob", "hello")]
            pq.write_table(pa.Table.from_pylist(answers, schema=ANSWERS_SCHEMA), folder / "answers.parquet")
            write_json(
                folder / "samples.json", [{"person": a["person"], "context": a["context"]} for a in answers]
            )
        publish(models, plan.candidate, {"parent": "v0001", "round": number})
        publish(rewards, f"v{number:04d}", {"round": number})
        if number == 1:
            with ledger.publish(plan.name, "hand_over") as folder:
                write_json(folder / "champion.json", {"version": "v0001"})
    damaged = json.dumps({"user": "ada@home", "text": "…"})[:-1]
    bad = "not valid JSON"
    rejects = [(3, bad, damaged), (4, bad, f'{{"t": "{SECRET}'), (5, bad, '{"t": "of somebody else')]
    write_rejects(storage, "served-x", rejects)
    memories = Memories(storage.path(MEMORY))
    for person, memory in (("ada", REMEMBERED), ("bob", "I bake bread")):
        memories.add(person, memory, "person", 1, f"{person}-talk-1")
    return storage


def publish(registry: Registry, version: str, lineage: dict[str, Any]) -> None:
    with registry.publish(version, lineage, "card") as folder:
        (folder / "model.safetensors").write_bytes(b"weights")


def test_nothing_of_the_person_is_left_anywhere(storage: Storage) -> None:
    # Rewritten files and old versions of the table are what a search of the newest would miss.
    assert all(words in decoded(storage.root) for words in WORDS) and "90157913" in decoded(storage.root)
    said_of_it = erasure.erase_user(storage, "ada", 0)
    left = decoded(storage.root)
    for words in (*WORDS, "ada-talk", '"ada"', "90157913"):
        assert words not in left, words
    assert "hi there" in left and "of somebody else" in left and "see you" in left
    assert "erased: " in said_of_it and "ada" not in said_of_it
    assert [c.person for c in load(storage, "rounds/0001/collect")] == ["bob"]
    assert table.head(storage) == 12


def test_what_was_remembered_of_them_goes_and_does_not_come_back(storage: Storage) -> None:
    memories = Memories(storage.path(MEMORY))
    assert [m.text for m in memories.of("ada")] == [REMEMBERED]
    erasure.erase_user(storage, "ada", 0)
    (stone,) = Tombstones(storage)
    assert stone.removed["memories"] == 1 and memories.of("ada") == []
    assert [m.text for m in memories.of("bob")] == ["I bake bread"]
    assert memories.add("ada", REMEMBERED, "person", stone.at) is None, "of a turn that was under way"


def test_versions_that_learned_are_listed_and_the_manifest_tells_of_the_redaction(storage: Storage) -> None:
    before = storage.manifest("rounds/0001/curate")["files"]["training_set.parquet"]["sha256"]
    erasure.erase_user(storage, "ada", 0)
    (stone,) = Tombstones(storage)
    assert stone.models == ["models/v0002", "models/v0003", "rewards/v0001", "rewards/v0002"]
    assert stone.done and stone.removed["interactions"] == 6 and stone.seqs == [[1, 3], [7, 9]]
    (redaction,) = storage.manifest("rounds/0001/curate")["redactions"]
    assert redaction["sha256"] == before and redaction["removed"] == 2
    assert redaction["because"] == f"erasure {digest('ada')}"
    storage.verify("rounds/0001/curate")
    storage.verify("rounds/0001/collect")


def rewards_outside_rounds(storage: Storage, **upto_seq: int) -> None:
    rewards = Registry(storage, "rewards")
    for version, upto in upto_seq.items():
        publish(rewards, version, {"upto_seq": upto})


def test_a_reward_model_from_outside_rounds_is_listed_when_the_person_was_in_the_log(
    storage: Storage,
) -> None:
    append(storage, said("eve", 1, "eve said so", "indeed", ""))  # after the last slice
    rewards_outside_rounds(storage, v0008=12, v0009=13)
    assert erasure.erase_user(storage, "eve", 0)
    assert Tombstones(storage).of("eve").models == ["rewards/v0009"]
    erasure.erase_user(storage, "bob", 0)
    assert {"rewards/v0008", "rewards/v0009"} <= set(Tombstones(storage).of("bob").models)


def test_versions_that_learned_what_a_rater_said_are_listed(storage: Storage) -> None:
    append(
        storage, [labelled("a1", "bob-talk-2-m1", "good", "rater-1", conversation="bob-talk-2", person="bob")]
    )
    append(storage, said("cy", 1, "good day", "to you, too", ""))
    slices.pin(storage, "rounds/0003/collect", 12, table.head(storage))
    with storage.publish("rounds/0003/plan") as folder:
        write_json(folder / "plan.json", {"candidate": "v0004"})
    publish(Registry(storage, "rewards"), "v0003", {"round": 3})
    publish(Registry(storage, "models"), "v0004", {"parent": "v0001", "round": 3})
    rewards_outside_rounds(storage, v0008=12, v0009=13)
    erasure.erase_user(storage, "rater-1", 0)
    stone = Tombstones(storage).of("rater-1")
    assert stone.models == ["models/v0004", "rewards/v0003", "rewards/v0009"]


def test_a_judge_is_listed_for_its_own_people_alone(storage: Storage) -> None:
    """Whoever else talked taught it nothing, nor did anybody who came after it was made."""
    own, other = (
        next(name for name in (f"person-{n}" for n in range(99)) if (part_of(name, 0) == "judge") is wanted)
        for wanted in (True, False)
    )
    late = next(f"late-{n}" for n in range(99) if part_of(f"late-{n}", 0) == "judge")
    for number, people in ((3, [own, other]), (4, [late])):
        before = table.head(storage)
        append(storage, [event for name in people for event in said(name, 1, "well", "yes", "")])
        slices.pin(storage, f"rounds/{number:04d}/collect", before, table.head(storage))
        with storage.publish(f"rounds/{number:04d}/plan") as folder:
            write_json(folder / "plan.json", {"candidate": f"v{number + 1:04d}"})
        with storage.publish(f"rounds/{number:04d}/evaluate") as folder:
            write_json(folder / "verdict.json", {"judge_version": "v0001"})
        with storage.publish(f"rounds/{number:04d}/hand_over") as folder:
            write_json(folder / "champion.json", {"version": "v0001"})
    publish(Registry(storage, "judges"), "v0001", {"simulated": False})
    for name in (own, other, late):
        erasure.erase_user(storage, name, 0)
    listed = {name: "judges/v0001" in Tombstones(storage).of(name).models for name in (own, other, late)}
    assert listed == {own: True, other: False, late: False}


def test_a_round_under_way_goes_on_from_curate(storage: Storage) -> None:
    erasure.erase_user(storage, "ada", 0)
    done = {
        step
        for step in ("collect", "score", "curate", "train")
        if Ledger(storage).is_done("rounds/0002", step)
    }
    assert done == {"collect", "score"}
    assert not storage.is_published("rounds/0002/iterations/1/set")
    assert not Registry(storage, "models").is_published("v0003"), "made of what is gone, and never served"
    assert storage.is_published("rounds/0001/curate") and Registry(storage, "models").is_published("v0002")


def test_what_comes_back_is_refused_and_what_is_said_later_is_not(storage: Storage) -> None:
    erasure.erase_user(storage, "ada", 0)
    (stone,) = Tombstones(storage)
    append(storage, said("ada", 1, SECRET, REPLY, REMARK))
    append(storage, said("ada", 3, SECRET + " from a lost replica", REPLY, REMARK))
    left = decoded(storage.root)
    assert not any(words in left for words in WORDS)
    append(storage, said("ada", 4, "hello again", "welcome back", "", at=stone.at + 1))
    assert [c.conversation_id for c in read_conversations(storage, 12, table.head(storage))] == ["ada-talk-4"]


def test_asked_over_the_network_it_is_carried_out_between_two_steps(storage: Storage) -> None:
    ask = Event("e-1", "erasure", 50, "ada-talk-1", "ada", "served", "none", False)
    append(storage, [ask], seal=False)
    with pytest.raises(erasure.ErasedMeanwhile):
        erasure.mind(storage)
    erasure.mind(storage)  # once
    assert verify(storage).damages == []
    assert not any(words in decoded(storage.root) for words in WORDS)


@pytest.mark.parametrize("function", ["erase_lines", "erase_rejects", "erase_rows", "erase_from_table_file"])
def test_killed_in_the_middle_it_is_brought_to_its_end(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(erasure.erase, function, killed)
        erasure.erase_user(storage, "ada", 0)
    assert len(list(pending(storage))) == 1
    (stone,) = erasure.carry_out(storage)
    assert stone.done and not list(pending(storage))
    assert verify(storage).damages == []
    assert not any(words in decoded(storage.root) for words in WORDS)


def test_a_user_is_found_under_the_servers_name(storage: Storage, tmp_path: Path) -> None:
    pseudonym = Signer(server_key(storage)).pseudonym("Eve O'Hara, 12")
    append(storage, said(pseudonym, 1, "eve said so", "indeed", ""))
    config = tmp_path / "c.yaml"
    config.write_text(f"storage: {{root: {storage.root}}}\nlog: {{seal_seconds: 0.1}}\n")
    done = CliRunner().invoke(app, ["erase", "--user", "Eve O'Hara, 12", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert "eve said so" not in decoded(storage.root) and SECRET in decoded(storage.root)


def test_while_a_run_works_the_run_does_it(storage: Storage) -> None:
    with only_run(storage):
        assert "a run works on" in erasure.erase_user(storage, "ada", 0)
        assert SECRET in decoded(storage.root)
        with pytest.raises(erasure.ErasedMeanwhile):
            erasure.mind(storage)
    assert SECRET not in decoded(storage.root)


def test_nobody_of_that_name(storage: Storage) -> None:
    with pytest.raises(UserError, match="nobody in the log"):
        erasure.erase_user(storage, "carol", 0)


def test_quotes_in_a_name_erase_nobody_else(storage: Storage) -> None:
    append(storage, said("o' OR 'a'='a", 1, "odd", "yes", ""))
    ask_for_erasure(storage, Request("o' OR 'a'='a"))
    erasure.carry_out(storage)
    left = decoded(storage.root)
    assert "odd" not in left.replace("odd_", "") and SECRET in left and "hi there" in left


def test_numbers_of_scores_go_with_their_person(storage: Storage) -> None:
    erasure.erase_user(storage, "ada", 0)
    scored = read_json(storage.path("rounds/0001/score/scored.json"))
    assert scored["trust"] == {"bob": 0.5} and scored["distrusted"] == []
    turns = pq.read_table(storage.path("rounds/0001/score/turns.parquet"))
    assert turns["conversation_id"].to_pylist() == ["bob-talk-1"]


def test_what_is_stored_of_trust_goes_with_its_person(storage: Storage) -> None:
    erasure.erase_user(storage, "ada", 0)
    folder = storage.verify("rounds/0001/score")
    for file in (PEOPLE, JUDGED, HISTORY):
        assert pq.read_table(folder / file)["person"].to_pylist() == ["bob"], file


def test_what_killed_steps_left_goes_too(storage: Storage) -> None:
    scored = pa.Table.from_pylist([{"conversation_id": "ada-talk-2", "person": "ada"}], schema=SCORED_SCHEMA)
    parts = Parts.open(Resume(storage.path("rounds/0002/scoring"), "inputs"), "stamp", 1)
    parts.publish(0, 0, scored)
    aside = storage.path("tmp", "0123", "slice")
    aside.mkdir(parents=True)
    pq.write_table(pa.table({"text": [SECRET]}), aside / "conversations.parquet")
    erasure.erase_user(storage, "ada", 0)
    left = decoded(storage.root)
    assert "ada-talk" not in left and SECRET not in left
    assert not list(storage.path("rounds").glob("*/scoring"))


def test_deltas_log_does_not_name_who_was_erased(storage: Storage) -> None:
    erasure.erase_user(storage, "ada", 0)
    log = "".join(path.read_text() for path in storage.path("interactions", "_delta_log").glob("*.json"))
    assert "commit_seq IN" in log and "'ada" not in log and '"ada' not in log
    assert erasure.erase_user(storage, "ada", 0).startswith("they were erased already")


def test_the_log_is_whole_after_an_erasure_and_can_be_compacted(storage: Storage) -> None:
    erasure.erase_user(storage, "ada", 0)
    assert verify(storage).damages == []
    append(storage, said("bob", 3, "back again", "hello", ""))
    assert compact(storage, keep_hours=0).files_after == 1
    assert verify(storage).damages == []
    assert len(read_conversations(storage, 0, table.head(storage))) == 3
    assert not any(words in decoded(storage.root) for words in WORDS)


def test_a_file_that_is_ingested_again_brings_nobody_back(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "store")
    dialogs = [
        {
            "dialog_id": n,
            "start_time": "2018-10-29 03:32:08",
            "participant1_id": {"class": "User", "user_id": user},
            "participant2_id": {"class": "Bot", "user_id": "bot"},
            "dialog": [
                {"sender": "participant1", "text": text},
                {"sender": "participant2", "text": "I see", "evaluation_score": 1},
            ],
        }
        for n, (user, text) in enumerate([("ada", SECRET), ("bob", "hello")])
    ]
    file = tmp_path / "talk.json"
    file.write_text(json.dumps(dialogs))
    assert ingest(storage, file, "convai2").events_new == 6
    erasure.erase_user(storage, "ada", 0)
    again = ingest(storage, file, "convai2")
    assert again.events_new == 0
    assert SECRET not in decoded(storage.root) and "hello" in decoded(storage.root)


def test_a_person_of_any_format_is_found_by_the_id_in_the_file(tmp_path: Path) -> None:
    """Readers make pseudonyms of ids: everyone who came with one must be found by it again."""
    storage = Storage(tmp_path / "store")
    messages = [{"role": "user", "content": SECRET}, {"role": "assistant", "content": "I see", "rating": 1}]
    lines = [json.dumps({"messages": messages, "user": "ada"})]
    (tmp_path / "openai.jsonl").write_text("\n".join(lines))
    ingest(storage, tmp_path / "openai.jsonl", "openai")
    release = {
        "user_pseudo_id": "ada",
        "chat_id": "1",
        "message_history": [
            {"sender": "human", "text": SECRET, "human_message_id": "h"},
            {"sender": "bot", "text": "I see", "bot_message_id": "b"},
        ],
    }
    (tmp_path / "bb3.jsonl").write_text(json.dumps(release) + "\n")
    ingest(storage, tmp_path / "bb3.jsonl", "bb3")
    webui = {
        "id": "f",
        "user_id": "ada",
        "data": {"rating": 1},
        "meta": {"chat_id": "c", "message_id": "m2"},
        "snapshot": {
            "chat": {
                "chat": {
                    "history": {
                        "messages": {
                            "m1": {"id": "m1", "parentId": None, "role": "user", "content": SECRET},
                            "m2": {"id": "m2", "parentId": "m1", "role": "assistant", "content": "I see"},
                        }
                    }
                }
            }
        },
    }
    (tmp_path / "webui.json").write_text(json.dumps([webui]))
    ingest(storage, tmp_path / "webui.json", "open-webui")
    assert erasure.erase_user(storage, "ada", 0).count("erased: ") == 3
    assert SECRET not in decoded(storage.root) and table.head(storage) > 0


def test_what_hinders_an_erasure_is_told_and_not_taken_for_a_run(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise UserError("no space left")

    monkeypatch.setattr(erasure.erase, "erase_rows", full)
    with pytest.raises(UserError, match="no space left"):
        erasure.erase_user(storage, "ada", 0)


def test_talk_between_two_people_goes_whole_and_remarks_on_others_go_too(storage: Storage) -> None:
    """Recorded talk names each speaker as the person of what they said; a thumb may be somebody else's."""
    remark = "that was rude of it, says bob@home"
    append(
        storage,
        [
            message("shared", 0, "I am cora and I like tea", person="cora"),
            message("shared", 1, "and I am bob from Leeds", person="bob", bot=False),
            Event(
                "remark",
                "feedback",
                9,
                "ada-talk-2",
                "bob",
                "served",
                "store",
                False,
                message_id="ada-talk-2-m1",
                rating=-1,
                comment=remark,
            ),
        ],
    )
    name = "rounds/0003/collect"
    slices.pin(storage, name, 0, table.head(storage))
    with storage.publish("rounds/0003/plan") as folder:
        write_json(folder / "plan.json", {"candidate": "v0004"})
    training = pa.Table.from_pylist(
        [
            {**row("cora", TOKENS), "row_id": "shared#2"},
            {**row("cora", TOKENS), "row_id": "answers-shared-m1~0"},
            {**row("cora", TOKENS), "row_id": f"{CORRECTED}-shared-m1#2", "source": CORRECTED},
            {**row("cora", [3]), "row_id": "cora-alone"},
        ],
        schema=TRAINING_SCHEMA,
    )
    with storage.publish("rounds/0003/curate") as folder:
        pq.write_table(training, folder / "training_set.parquet")
    with storage.publish("rounds/0003/hand_over") as folder:
        write_json(folder / "champion.json", {"version": "v0001"})

    erasure.erase_user(storage, "bob", 0)
    kept = {c.conversation_id: c for c in load(storage, name)}
    assert set(kept) == {"ada-talk-1", "ada-talk-2"}
    assert not any(f.person == "bob" for c in kept.values() for f in c.feedback)
    assert not any(words in decoded(storage.root) for words in ("bob from Leeds", remark))
    left = pq.read_table(storage.path("rounds/0003/curate/training_set.parquet"))
    assert left["row_id"].to_pylist() == ["cora-alone"]
    assert "models/v0003" in Tombstones(storage).of("bob").models


def test_whoever_is_in_rejected_lines_alone_can_be_erased(storage: Storage) -> None:
    write_rejects(storage, "served-y", [(1, "not valid JSON", '{"user": "nobody else@home", "t"')])
    assert "1 rejected line" in erasure.erase_user(storage, "nobody else@home", 0)
    assert "nobody else@home" not in decoded(storage.path("rejects"))
    with pytest.raises(UserError, match="nobody in the log"):
        erasure.erase_user(storage, "nobody else@home", 0)


def test_who_looks_at_the_log_sees_what_was_said_and_nobody_who_asked_to_go(storage: Storage) -> None:
    root = f"storage.root={storage.root}"
    append(storage, said("dan", 1, "late words", "indeed", ""), seal=False)
    ask_for_erasure(storage, Request("ada"))
    shown = CliRunner().invoke(app, ["show", "bot", "-n", "50", "--json", root])
    assert shown.exit_code == 0, shown.output
    assert "late words" in shown.output and SECRET not in shown.output
    assert list(pending(storage)) == [] and Tombstones(storage).of("ada").done
    told = CliRunner().invoke(app, ["log", "commit", root])
    assert told.exit_code == 0 and "0 segments wait" in told.output


def test_labels_go_with_the_talk_they_are_about_and_with_their_rater(storage: Storage) -> None:
    about = [
        ("ada-talk-2", "ada", "rater-1"),
        ("bob-talk-2", "bob", "rater-1"),
        ("bob-talk-2", "bob", "rater-2"),
    ]
    labels = [
        labelled(f"a{n}", f"{talk}-m1", "good", rater, conversation=talk, person=person)
        for n, (talk, person, rater) in enumerate(about)
    ]
    append(storage, labels)
    name = "rounds/0003/collect"
    slices.pin(storage, name, 0, table.head(storage))
    with storage.publish("rounds/0003/plan") as folder:
        write_json(folder / "plan.json", {"candidate": "v0004"})

    def raters() -> list[str]:
        return [a.rater for c in load(storage, name) for a in c.annotations]

    assert raters() == ["rater-1", "rater-1", "rater-2"]
    erasure.erase_user(storage, "rater-1", 0)
    assert raters() == ["rater-2"] and "rater-1" not in decoded(storage.root)
    assert len(load(storage, name)) == 4, "what they rated stays"
    append(storage, labels)
    assert "rater-1" not in decoded(storage.root), "an old segment brings nobody back"
    assert not [
        damage for damage in verify(storage).damages if "commit_seq" in damage and "missing" in damage
    ]
    erasure.erase_user(storage, "bob", 0)
    assert raters() == [] and "rater-2" not in decoded(storage.root)
