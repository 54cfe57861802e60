"""Counts per version, and which thumbs count how much."""

import json
from typing import Any

import numpy as np
import pytest

from bb3x_ray.schemas.event import FAILED_TURN
from bb3x_ray.serve.canary.evidence import Evidence, Reply, Score, Standing, Thumb, replies_of

ARMS = ("v0001", "v0002")


def row(message_id: str, version: str, details: Any = None, kind: str | None = "model") -> dict[str, Any]:
    return {
        "message_id": message_id,
        "person": f"person of {message_id}",
        "author_kind": kind,
        "author_name": version,
        "details": details,
    }


def of_arm(arm: str, **details: Any) -> str:
    return json.dumps({"arm": arm, **details})


def test_the_author_of_a_message_says_which_version_answered() -> None:
    rows = [row("a", "v0001", of_arm("champion")), row("b", "v0002", of_arm("candidate"))]
    rows += [row("c", "v0009", of_arm("candidate")), row("d", "v0001", of_arm("champion"), kind="unverified")]
    assert [(r.message_id, r.version) for r in replies_of(rows, *ARMS)] == [("a", "v0001"), ("b", "v0002")]


@pytest.mark.parametrize("details", [None, "no json", json.dumps([1]), "{}", of_arm("champion"), of_arm("x")])
def test_a_reply_that_the_split_did_not_choose_is_no_evidence(details: str | None) -> None:
    assert replies_of([row("a", "v0002", details)], *ARMS) == ()


@pytest.mark.parametrize(
    ("about", "latency", "failed"),
    [
        ({"latency_ms": 120, "failed": True, "modules": []}, 120.0, True),
        ({"latency_ms": "soon"}, None, False),
        ({"latency_ms": float("nan")}, None, False),
        ({}, None, False),
    ],
)
def test_latency_and_failure_are_read_where_they_are(
    about: dict[str, Any], latency: float | None, failed: bool
) -> None:
    (reply,) = replies_of([row("a", "v0001", of_arm("champion", **about))], *ARMS)
    assert (reply.latency_ms, reply.failed) == (latency, failed)


def test_an_apology_in_a_models_place_is_that_models_failure() -> None:
    details = of_arm("candidate", failed=True, model_version="v0002")
    rows = [row("a", "apology", details, "canned"), row("b", "insult", None, "canned")]
    (reply,) = replies_of(rows, *ARMS)
    assert (reply.version, reply.failed) == ("v0002", True)


def test_a_turn_without_any_reply_is_a_failure_of_its_version() -> None:
    about = {"model_version": "v0002", "failed": True}
    rows = [
        row("a", "", json.dumps({FAILED_TURN: {**about, "arm": "candidate"}}), None),
        row("b", "", json.dumps({FAILED_TURN: about}), None),  # of a version that the client named
        row("c", "", json.dumps(about | {"arm": "candidate"}), None),  # somebody's feedback
    ]
    (reply,) = replies_of(rows, *ARMS)
    assert (reply.message_id, reply.version, reply.failed) == ("a", "v0002", True)


def test_failures_of_people_who_are_distrusted_are_left_out() -> None:
    answers = evidence().failure_answers()
    assert answers.value.tolist() == [[0, 0, 1, 0]] and answers.candidate.tolist() == [[False, True, True]]


def evidence(**changes: Any) -> Evidence:
    replies = (
        Reply("a1", "ada", "v0001", 100.0),
        Reply("a2", "ada", "v0001", 300.0),
        Reply("b1", "bob", "v0002", None, True),
        Reply("c1", "cid", "v0002", 200.0),
        Reply("d1", "dan", "v0002"),
    )
    thumbs = (
        Thumb("b1", "bob", False, 9, ("rude", "other")),
        Thumb("a1", "ada", True, 3),
        Thumb("c1", "cid", True, 5),
        Thumb("d1", "dan", False, 4, ("rude",)),
        Thumb("z1", "zoe", False, 1),
    )
    standing = {"ada": Standing(0.9, 0.7), "bob": Standing(0.6, 0.4), "dan": Standing(0.0, 0.0)}
    scores = {"a1": Score(0.8, False, 0.1), "a2": Score(0.6, False, 0.0), "b1": Score(0.3, True, 0.9)}
    return Evidence("v0001", "v0002", replies, thumbs, scores, standing, **changes)


def test_counts_of_a_version() -> None:
    counts = evidence().counts("v0002")
    assert (counts["replies"], counts["people"], counts["failed"]) == (3, 3, 1)
    assert (counts["thumbs_up"], counts["thumbs_down"], counts["reason_rude"]) == (1, 2, 2)
    assert (counts["thumbs_that_count"], counts["up_share_that_counts"]) == (1, 0)
    assert (counts["unsafe_share"], counts["score"], counts["latency_ms_p50"]) == (1, 0.3, 200)
    assert evidence().counts("v0001")["latency_ms_p50"] == 200 and "reason_rude" not in evidence().counts(
        "v0001"
    )


def test_thumbs_count_by_trust_in_the_order_in_which_they_came() -> None:
    answers = evidence().thumb_answers()
    assert answers.value.tolist() == [[1, 0]]  # ada, bob; dan is distrusted, cid new, zoe's reply nobody's
    assert answers.weight.tolist() == [[0.9, 0.6]] and answers.candidate.tolist() == [[False, True]]
    assert np.allclose(answers.controls, [[[0.7, 0.1], [0.4, 0.0]]])


def test_newcomers_count_where_they_are_let() -> None:
    answers = evidence(newcomers=0.5).thumb_answers()
    assert answers.value.tolist() == [[1, 1, 0]] and answers.weight.tolist() == [[0.9, 0.5, 0.6]]


def test_who_talked_to_both_versions_is_in_both_arms() -> None:
    replies = (Reply("a", "ada", "v0001"), Reply("b", "ada", "v0002"), Reply("c", "ada", "v0002"))
    thumbs = tuple(Thumb(m, "ada", True, n) for n, m in enumerate("abc"))
    answers = Evidence("v0001", "v0002", replies, thumbs, {}, {"ada": Standing(1.0)}).thumb_answers()
    assert answers.unit.tolist() == [[0, 1, 1]] and answers.candidate.tolist() == [[False, True]]


def test_scores_of_distrusted_people_do_not_count_and_new_peoples_do() -> None:
    replies = tuple(Reply(p, p, "v0002") for p in ("ada", "dan", "new"))
    scores = {"ada": Score(0.9, False), "dan": Score(0.1, True), "new": Score(0.5, None, 0.2)}
    standing = {"ada": Standing(0.9), "dan": Standing(0.0)}
    found = Evidence("v0001", "v0002", replies, (), scores, standing)
    assert found.score_answers().value.tolist() == [[0.9, 0.5]]
    assert found.score_answers().controls.tolist() == [[[0.0], [0.2]]]
    assert found.unsafe_answers().value.tolist() == [[0.0]]


def test_nothing_is_no_answer() -> None:
    nothing = Evidence("v0001", "v0002")
    assert nothing.thumb_answers().size == nothing.score_answers().size == 0
    assert nothing.counts("v0002")["replies"] == 0
