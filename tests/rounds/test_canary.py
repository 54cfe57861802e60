"""A canary on a real log: begun, watched, ended once, wherever it is killed."""

import json
import threading

import pyarrow as pa
import pytest

from bb3x_ray.classify.pair_logistic import PairLogistic
from bb3x_ray.config import Config
from bb3x_ray.data.committer import commit_inbox
from bb3x_ray.registry import Registry, Rollback
from bb3x_ray.reward.score_rows import RowScorer
from bb3x_ray.rounds import canary as canary_module
from bb3x_ray.rounds import canary_evidence
from bb3x_ray.rounds.canary import Canaries
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.serve.canary.split import Split
from bb3x_ray.storage import Storage
from tests.classify.test_pair_logistic import talk
from tests.reward.make import LetterEncoder
from tests.rounds.canary_store import KEY, PEOPLE_KNOWN, VERDICT, change_minds, let_talk, make_store

CONFIG = {"canary": {"share": 50, "every_seconds": 0.01}}
WORSE, BETTER, SAME = (
    {"v0001": 0.8, "v0002": 0.4},
    {"v0001": 0.5, "v0002": 0.9},
    {"v0001": 0.6, "v0002": 0.6},
)


class Killed(BaseException):
    pass


def canaries(storage: Storage, said: list[str] | None = None, **changes: object) -> Canaries:
    config = Config(**{**CONFIG, "canary": {**CONFIG["canary"], **changes}})
    return Canaries(storage, config, (said if said is not None else []).append)


@pytest.fixture
def begun(storage: Storage) -> Registry:
    models = make_store(storage)
    assert canaries(storage).begin(VERDICT).startswith("50 % of people talk to v0002")
    return models


def test_a_worse_canary_is_rolled_back_and_quarantined_with_its_slice(
    storage: Storage, begun: Registry
) -> None:
    let_talk(storage, WORSE)
    canary = canaries(storage).look()
    assert canary is not None and canary.decision == "rollback"
    assert begun.champion == "v0001" and begun.challenger is None
    about = begun.quarantine("v0002")
    assert about["slice"] == "rounds/0001/collect" and about["reason"].startswith("canary: -")
    assert about["evidence"]["candidate"]["replies"] > 400
    assert about["evidence"]["candidate"]["latency_ms_p50"] == 120
    assert canaries(storage).look() is None


def test_a_better_canary_becomes_champion(storage: Storage, begun: Registry) -> None:
    let_talk(storage, BETTER)
    canary = canaries(storage).look()
    assert canary is not None and canary.decision == "promote"
    assert begun.champion == "v0002" and begun.alias("previous") == "v0001" and begun.quarantined() == []
    assert begun.history()[-1]["canary"] == canary.words


def test_little_is_not_enough_and_more_is_added_to_it(storage: Storage, begun: Registry) -> None:
    watch = canaries(storage)
    let_talk(storage, BETTER, PEOPLE_KNOWN[:20])
    canary = watch.look()
    assert canary is not None and canary.decision == "go on" and begun.challenger == "v0002"
    let_talk(storage, BETTER, PEOPLE_KNOWN[20:], visit=1)
    canary = watch.look()
    assert canary is not None and canary.decision == "promote"


def test_people_whom_nobody_knows_do_not_count_unless_let(storage: Storage, begun: Registry) -> None:
    let_talk(storage, WORSE, [f"new-{n}" for n in range(500)])
    canary = canaries(storage).look()
    assert canary is not None and canary.decision == "go on" and "0 thumbs count" in canary.words
    assert canary.numbers["candidate"]["thumbs_down"] > 200
    canary = canaries(storage, newcomers=0.5).look()
    assert canary is not None and canary.decision == "rollback"


def test_trolls_do_not_roll_it_back(storage: Storage) -> None:
    trolls = PEOPLE_KNOWN[::5]
    models = make_store(storage, trolls)
    canaries(storage).begin(VERDICT)
    let_talk(storage, SAME, [p for p in PEOPLE_KNOWN if p not in trolls])
    let_talk(storage, {"v0001": 1.0, "v0002": 0.0}, trolls, thumbs=4, visit=1)
    canary = canaries(storage).look()
    assert canary is not None and canary.decision != "rollback" and models.quarantined() == []


def test_who_asks_for_the_candidate_by_name_has_no_say_on_it(storage: Storage, begun: Registry) -> None:
    """A tenth of the people, all of them trusted, get their thumbs onto the candidate by naming it."""
    trolls = [p for p in PEOPLE_KNOWN if Split("v0001", "v0002", 50, KEY).arm(p, "") == "v0001"][:50]
    let_talk(storage, SAME, [p for p in PEOPLE_KNOWN if p not in trolls])
    let_talk(storage, {"v0001": 1.0, "v0002": 0.0}, trolls, thumbs=6, visit=1, named="v0002")
    canary = canaries(storage).look()
    assert canary is not None and canary.decision != "rollback"
    assert canary.numbers["candidate"]["people"] + canary.numbers["champion"]["people"] == 450


def test_a_candidate_whose_turns_fail_is_rolled_back_though_nobody_can_press_a_thumb(
    storage: Storage, begun: Registry
) -> None:
    let_talk(storage, SAME, fails={"v0002": 5, "v0001": 100})
    canary = canaries(storage).look()
    assert canary is not None and canary.decision == "rollback" and "fail more often" in canary.words
    assert canary.numbers["candidate"]["failed"] > 60 and canary.numbers["champion"]["failed"] > 0
    assert begun.quarantined() == ["v0002"]


def test_failures_that_both_versions_have_are_nobodys_harm(storage: Storage, begun: Registry) -> None:
    let_talk(storage, SAME, fails={"v0002": 5, "v0001": 5})
    canary = canaries(storage).look()
    assert canary is not None and canary.decision != "rollback"
    assert canary.numbers["failed_difference"]["harm_at_least"] < 0


def test_killed_between_decision_and_alias_it_does_what_was_decided(
    storage: Storage, begun: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_talk(storage, BETTER)

    def dies(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "move_champion", dies)
        with pytest.raises(Killed):
            canaries(storage).look()
    assert begun.champion == "v0001" and begun.challenger == "v0002"
    # What people say later does not change what was decided.
    let_talk(storage, {"v0001": 1.0, "v0002": 0.0}, visit=1, thumbs=6)
    canary = canaries(storage).look()
    assert canary is not None and canary.decision == "promote" and begun.champion == "v0002"
    assert [move["by"] for move in begun.history()] == ["Bootstrap", "Promotion"]


def test_two_watches_decide_once(storage: Storage, begun: Registry) -> None:
    let_talk(storage, WORSE)
    one, other = canaries(storage), canaries(storage)
    seen = one.seen()
    assert seen is not None and seen.decision == "rollback" and begun.challenger == "v0002"
    first = other.look()
    assert first == seen and one.look() is None
    assert begun.quarantined() == ["v0002"]


def test_a_look_follows_from_the_log_as_it_is_and_not_from_looks_before(
    storage: Storage, begun: Registry
) -> None:
    """Who thinks better of it is heard where they first spoke, so that what went on then may end now."""
    let_talk(storage, SAME, PEOPLE_KNOWN[:250])
    watch = canaries(storage)
    before = watch.look()
    assert before is not None and before.decision == "go on"
    change_minds(storage, "v0002", -1)
    seen = watch.seen()
    assert seen == canaries(storage).seen() and seen is not None and seen.decision == "rollback"
    assert seen.numbers["thumbs"]["counted"] == before.numbers["thumbs"]["counted"]
    canary = canaries(storage).look()
    change_minds(storage, "v0001", -1)
    assert canary is not None and watch.look() is None and begun.quarantined() == ["v0002"]  # that stands


def test_begun_twice_is_begun_once_and_counts_from_the_first(storage: Storage, begun: Registry) -> None:
    began = storage.path("canaries", "v0002", canary_module.BEGAN)
    before = began.read_text()
    let_talk(storage, SAME, PEOPLE_KNOWN[:50])
    canaries(storage).look()
    canaries(storage).begin(VERDICT)
    assert began.read_text() == before


def test_what_was_said_before_it_began_does_not_count(storage: Storage) -> None:
    make_store(storage)
    let_talk(storage, WORSE)
    watch = canaries(storage)
    commit_inbox(storage)
    watch.begin(VERDICT)
    canary = watch.look()
    assert canary is not None and canary.decision == "go on"
    assert canary.numbers["candidate"]["replies"] == 0


def test_another_candidate_waits_for_its_turn(storage: Storage, begun: Registry) -> None:
    with begun.publish(begun.reserve(), {"parent": "v0001", "round": 2}, ""):
        pass
    other = Verdict("v0003", "v0001", True, (), {}, "v0001", "")
    with pytest.raises(UserError, match=r"v0003 waits: a canary of v0002"):
        canaries(storage).begin(other)
    begun.move_challenger(Rollback("enough"), expected="v0002")
    canaries(storage).begin(other)
    assert begun.challenger == "v0003"


def test_its_folder_holds_numbers_and_a_plot_and_no_words(storage: Storage, begun: Registry) -> None:
    let_talk(storage, BETTER)
    canaries(storage).look()
    folder = storage.path("canaries", "v0002")
    assert {p.name for p in folder.iterdir()} == {
        "began.json",
        "state.json",
        "looks.json",
        "end.json",
        "plot.png",
    }
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    looks = json.loads((folder / "looks.json").read_text())
    assert looks[-1]["thumbs"] > looks[0]["thumbs"] and set(looks[0]) == {
        "thumbs",
        "difference",
        "rollback",
        "promote",
    }
    words = "".join(path.read_text() for path in folder.glob("*.json"))
    assert "reply that nobody" not in words and "u-0001" not in words


def test_the_watch_says_what_changes_and_outlives_what_can_be_mended(
    storage: Storage, begun: Registry
) -> None:
    said: list[str] = []
    stopped = threading.Event()
    began = storage.path("canaries", "v0002", canary_module.BEGAN)
    away = began.with_suffix(".away")
    began.rename(away)
    thread = threading.Thread(target=canaries(storage, said).watch, args=(stopped,))
    thread.start()
    while not said:
        stopped.wait(0.01)
    assert "began.json is missing" in said[0]
    let_talk(storage, BETTER)
    away.rename(began)
    while begun.champion != "v0002":
        stopped.wait(0.01)
    stopped.set()
    thread.join()
    assert "promotes it" in said[-1]


def test_the_watch_outlives_what_nobody_thought_of(
    storage: Storage, begun: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    let_talk(storage, BETTER)
    damaged = storage.path("canaries", "v0002", canary_evidence.SCORES)
    damaged.write_text("a secret, and no Parquet file")
    said: list[str] = []
    stopped = threading.Event()
    thread = threading.Thread(target=canaries(storage, said).watch, args=(stopped,))
    thread.start()
    while not said:
        stopped.wait(0.01)
    assert "the watch looks again" in said[0] and "secret" not in said[0] + caplog.text
    assert "a look at the canary failed" in caplog.text
    damaged.unlink()
    while begun.champion != "v0002":
        assert thread.is_alive()
        stopped.wait(0.01)
    stopped.set()
    thread.join()


SAID = {"v0001": "And what do you do with it?", "v0002": "There are seven of them"}


@pytest.fixture
def with_rewards(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A reward model, on an encoder that has no weights, that likes what v0001 says."""
    rewards = Registry(storage, "rewards")
    with rewards.publish(rewards.reserve(), {}, "") as folder:
        PairLogistic.fit(talk(200, 0), LetterEncoder(), l2=0.3).save(folder)
    monkeypatch.setattr(
        canary_evidence, "load_pair_model", lambda folder: PairLogistic.load(folder, LetterEncoder())
    )
    models = make_store(storage, reward="v0001")
    canaries(storage).begin(VERDICT)
    return models


def test_worse_replies_roll_back_before_people_have_pressed_much(
    storage: Storage, with_rewards: Registry
) -> None:
    let_talk(storage, SAME, PEOPLE_KNOWN[:120], thumbs=1, texts=SAID)
    seen = canaries(storage).seen()
    assert seen is not None and seen.decision == "rollback"
    assert seen.numbers["champion"]["scored"] + seen.numbers["candidate"]["scored"] == 120
    scores = storage.path("canaries", "v0002", canary_evidence.SCORES)
    assert scores.is_file()
    canary = canaries(storage).look()
    assert canary == seen and "its replies score lower" in canary.words
    assert with_rewards.quarantined() == ["v0002"] and not scores.is_file()


def test_a_reply_is_scored_once(
    storage: Storage, with_rewards: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = canaries(storage)
    let_talk(storage, SAME, PEOPLE_KNOWN[:12], texts=SAID)
    watch.look()
    let_talk(storage, SAME, PEOPLE_KNOWN[12:15], texts=SAID, visit=1)
    asked: list[int] = []
    score = RowScorer.__call__

    def counted(self: RowScorer, turns: pa.Table) -> pa.Table:
        asked.append(len(turns))
        return score(self, turns)

    monkeypatch.setattr(RowScorer, "__call__", counted)
    watch.look()
    canaries(storage).look()
    assert sum(asked) == 6


def test_good_scores_alone_promote_nobody(storage: Storage, with_rewards: Registry) -> None:
    swapped = {"v0001": SAID["v0002"], "v0002": SAID["v0001"]}
    let_talk(storage, SAME, PEOPLE_KNOWN[:45], thumbs=1, texts=swapped)
    canary = canaries(storage, fewest=10).look()
    assert canary is not None and canary.decision == "go on"
    assert canary.numbers["score_difference"]["value"] > 0.1


def test_without_a_reward_model_people_decide_alone(storage: Storage, begun: Registry) -> None:
    let_talk(storage, SAME, PEOPLE_KNOWN[:30])
    canary = canaries(storage).look()
    assert canary is not None and canary.numbers["candidate"]["scored"] == 0
