"""Progress is told live, once per step, and added up by tokens."""

import threading
from pathlib import Path
from typing import Any

import pytest

from bb3x_ray.train.progress import Follower, report, total


def test_lines_are_told_while_the_run_goes_on(tmp_path: Path) -> None:
    path, told, first = tmp_path / "progress.jsonl", [], threading.Event()

    def on_step(line: dict[str, Any]) -> None:
        told.append(line["step"])
        first.set()

    with Follower(path, on_step):
        report(path, {"step": 1})
        assert first.wait(5), "not told before the run ended"
        report(path, {"step": 2})
        report(path, {"step": 1})  # a restarted run begins again
        report(path, {"step": 2})
        report(path, {"step": 3})
    assert told == [1, 2, 3]


def test_what_an_earlier_driver_was_told_is_not_told_again(tmp_path: Path) -> None:
    path, told = tmp_path / "progress.jsonl", []
    report(path, {"step": 1})
    report(path, {"step": 2})
    with path.open("a") as file:
        file.write('{"step": 3, "lo')  # killed here
    with Follower(path, lambda line: told.append(line["step"])):
        report(path, {"step": 3})
        report(path, {"step": 4})
    assert told == [3, 4]


def test_a_run_without_steps_tells_nothing(tmp_path: Path) -> None:
    told: list[Any] = []
    with Follower(tmp_path / "progress.jsonl", told.append):
        pass
    assert told == []


def test_an_error_of_the_listener_is_not_lost(tmp_path: Path) -> None:
    def broken(_: dict[str, Any]) -> None:
        raise ValueError("broken listener")

    path = tmp_path / "progress.jsonl"
    with pytest.raises(ValueError, match="broken listener"), Follower(path, broken):
        report(path, {"step": 1})
    with pytest.raises(KeyError, match="the run itself"), Follower(path, broken):
        raise KeyError("the run itself")


def test_means_are_weighed_by_the_tokens_they_are_of() -> None:
    about = {"grad_norm": 1.0, "seconds": 2.0, "tokens": 50.0, "labelled_turns": 5.0, "backward_seconds": 1.0}
    first = about | {
        "labelled_tokens": 30.0,
        "ce_target_tokens": 30.0,
        "ct_target_tokens": 0.0,
        "loss": 2.0,
        "ce_loss": 2.0,
    }
    second = about | {
        "labelled_tokens": 20.0,
        "ce_target_tokens": 10.0,
        "ct_target_tokens": 10.0,
        "loss": 1.0,
        "ce_loss": 1.0,
        "ct_loss": 0.5,
    }
    first |= {"tflops_per_second": 3.0, "mfu": 0.3}
    second |= {"tflops_per_second": 1.0, "mfu": 0.1}
    empty = {"tflops_per_second": 0.0, "mfu": 0.0, "seconds": 1.0, "tokens": 10.0, "labelled_tokens": 0.0}
    result = total([first, second, empty])
    assert result["loss"] == pytest.approx((2.0 * 30 + 1.0 * 20) / 50)
    assert result["ce_loss"] == pytest.approx((2.0 * 30 + 1.0 * 10) / 40)
    assert result["ct_loss"] == 0.5
    assert (result["loss_first"], result["loss_last"], result["steps"]) == (2.0, 1.0, 3.0)
    assert result["tokens"] == 110 and result["tokens_per_second"] == pytest.approx(22)
    assert result["labelled_turns_per_second"] == pytest.approx(2)
    assert result["tflops_per_second"] == pytest.approx((3.0 * 2 + 1.0 * 2) / 5)
    assert result["mfu"] == pytest.approx(0.1 * result["tflops_per_second"])
    del first["mfu"]
    assert "mfu" not in total([first])
    assert result["backward_share"] == pytest.approx(0.4) and result["forward_share"] == 0
