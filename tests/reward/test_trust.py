"""Helpers are told from trolls of every kind, few thumbs decide nothing, and history counts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bb3x_ray.classify.pairs import auroc
from bb3x_ray.config import TrustConfig
from bb3x_ray.reward.fold_judge import EncoderFoldJudge
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import Trust, TrustHistory, estimate_trust, fold_of
from bb3x_ray.reward.trust.methods import METHODS
from bb3x_ray.reward.trust.report import HISTORY, load_history, load_report, save_trust
from bb3x_ray.schemas.errors import UserError
from tests.reward.make import LetterEncoder, crowd

CONFIG = TrustConfig()


def knowing(
    train: Sequence[Signal], labels: np.ndarray, weights: np.ndarray, test: Sequence[Signal]
) -> np.ndarray:
    """A judge that knows what is good in `crowd`."""
    return np.array([0.9 if s.reply.startswith("I ") else 0.1 for s in test])


def clueless(
    train: Sequence[Signal], labels: np.ndarray, weights: np.ndarray, test: Sequence[Signal]
) -> np.ndarray:
    return np.array([1.0 - s.label for s in test]) * 0.6 + 0.2


def method(name: str) -> TrustConfig:
    return CONFIG.model_copy(update={"method": name})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trust_separates_helpers_from_flippers_given_enough_thumbs(seed: int) -> None:
    signals = crowd(20, 6, thumbs=8, seed=seed)
    trust = estimate_trust(signals, EncoderFoldJudge(LetterEncoder(), signals), CONFIG)
    values = np.array(list(trust.trust.values()))
    helps = np.array([float(p.startswith("helper")) for p in trust.trust])
    assert auroc(values, helps) > 0.95
    assert sum(p.startswith("flipper") for p in trust.distrusted) >= 5
    assert sum(p.startswith("helper") for p in trust.distrusted) <= 1


@pytest.mark.parametrize("label", [0, 1])
def test_who_always_presses_the_same_thumb_is_found_though_half_of_it_is_right(label: int) -> None:
    """Ten of thirty people: their thumbs move the models towards them."""
    signals = crowd(30, 0, thumbs=10, seed=5)
    signals = [
        replace(s, label=label) if s.person in {f"helper-{i}" for i in range(10)} else s for s in signals
    ]
    judge = EncoderFoldJudge(LetterEncoder(), signals)
    found = estimate_trust(signals, judge, CONFIG).distrusted
    assert len(found & {f"helper-{i}" for i in range(10)}) >= 8
    assert len(found - {f"helper-{i}" for i in range(10)}) <= 1
    assert len(found) > 2 * len(estimate_trust(signals, judge, method("user_removal")).distrusted)


def test_no_thumb_is_judged_by_a_model_that_saw_its_text() -> None:
    signals = crowd(6, 2, thumbs=4, seed=0) * 2  # every text twice: both copies are in one fold
    seen: list[bool] = []

    def spy(
        train: Sequence[Signal], labels: np.ndarray, weights: np.ndarray, test: Sequence[Signal]
    ) -> np.ndarray:
        seen.append(bool({s.reply for s in train} & {s.reply for s in test}))
        assert len(weights) == len(labels) == len(train)
        return np.full(len(test), 0.5)

    for name in METHODS:
        estimate_trust(signals, spy, method(name))
    assert seen and not any(seen)
    assert {fold_of(s, 3) for s in signals} == {0, 1, 2}


def test_few_thumbs_decide_nothing_and_many_do() -> None:
    helpers = crowd(10, 0, 5, seed=1, noise=0.0)
    once = Signal("x", "x", "once", "What about it?", "I like my x.", 0)
    few = estimate_trust([*helpers, once], knowing, CONFIG)
    many = estimate_trust([*helpers, *crowd(0, 1, 20, seed=2, noise=0.0)], knowing, CONFIG)
    assert few.distrusted == frozenset() and many.distrusted == {"flipper-0"}
    assert (
        many.trust["flipper-0"] < 0.05 < few.trust["once"] < min(few.trust[f"helper-{i}"] for i in range(10))
    )


def test_nobody_is_distrusted_when_the_fold_models_know_nothing() -> None:
    for name in ("confusion", "user_removal"):
        trust = estimate_trust(crowd(10, 3, thumbs=5, seed=3), clueless, method(name))
        assert trust.agreement < 0.5 and trust.distrusted == frozenset() and not trust.weights


def test_later_models_hear_trolls_softly() -> None:
    heard: list[dict[str, float]] = []

    def listening(
        train: Sequence[Signal], labels: np.ndarray, weights: np.ndarray, test: Sequence[Signal]
    ) -> np.ndarray:
        heard.append(dict(zip((s.person for s in train), weights, strict=True)))
        return knowing(train, labels, weights, test)

    estimate_trust(crowd(10, 3, thumbs=8, seed=4), listening, CONFIG)
    assert set(heard[0].values()) == {1.0}
    helpers = [w for who, w in heard[-1].items() if who.startswith("helper")]
    flippers = [w for who, w in heard[-1].items() if who.startswith("flipper")]
    assert min(helpers) > 0.5 > 0.1 > max(flippers) > 0


def test_no_thumbs_no_trust() -> None:
    trust = estimate_trust([], knowing, CONFIG)
    assert trust.trust == {} and trust.metrics()["people"] == 0


def test_metrics_count_what_was_left_out() -> None:
    metrics = estimate_trust(crowd(10, 3, thumbs=8, seed=4), knowing, CONFIG).metrics()
    assert metrics["people_distrusted"] == 3 and metrics["thumbs_left_out"] == 24 and metrics["thumbs"] == 104


def test_with_trust_off_every_thumb_counts_and_no_model_is_asked() -> None:
    def never(*_: object) -> np.ndarray:
        raise AssertionError

    signals = crowd(5, 5, thumbs=8, seed=4)
    trust = estimate_trust(signals, never, method("none"))
    assert trust.distrusted == frozenset() and set(trust.trust.values()) == {1.0}
    assert all(trust.weight(s) == 1 and trust.label(s) == s.label for s in signals)
    assert trust.history is None


def test_thumbs_of_rounds_without_trust_are_judged_once_it_is_on(tmp_path: Path) -> None:
    earlier, new = crowd(10, 3, thumbs=8, seed=4), renamed(crowd(10, 0, thumbs=1, seed=5), 2)
    off = estimate_trust(earlier, knowing, method("none"), TrustHistory.empty())
    save_trust(tmp_path, off, earlier)
    assert load_report(tmp_path) and not (tmp_path / HISTORY).exists()
    on = estimate_trust([*new, *earlier], knowing, CONFIG)  # as rounds do without a history
    assert {"flipper-10", "flipper-11", "flipper-12"} <= on.distrusted
    save_trust(tmp_path, on, [*new, *earlier])
    assert load_history(tmp_path).counts.sum() == len(earlier) + len(new)


def test_what_counts_of_each_thumb_is_told_by_message() -> None:
    signals = crowd(10, 3, thumbs=8, seed=4, noise=0.1)
    dropped = estimate_trust(signals, knowing, method("example_removal"))
    turned = estimate_trust(signals, knowing, method("example_flip"))
    for signal in signals:
        wrong = (knowing([], np.zeros(0), np.zeros(0), [signal])[0] > 0.5) != signal.label
        assert dropped.weight(signal) == float(not wrong) and dropped.label(signal) == signal.label
        assert turned.weight(signal) == 1 and turned.label(signal) == signal.label ^ wrong
    trust = estimate_trust(signals, knowing, CONFIG)
    assert {s.person for s in signals if trust.weight(s) == 0} == trust.distrusted


# History


def in_rounds(parts: Sequence[Sequence[Signal]], config: TrustConfig = CONFIG) -> list[Trust]:
    found: list[Trust] = []
    for part in parts:
        found.append(estimate_trust(part, knowing, config, found[-1].history if found else None))
    return found


def test_thumbs_of_several_rounds_add_up_and_old_ones_are_not_counted_again() -> None:
    signals = crowd(10, 3, thumbs=8, seed=4, noise=0.0)
    parts = [signals[i::8] for i in range(8)]  # one thumb of each person a round

    found = in_rounds(parts)
    assert found[0].distrusted == frozenset()
    assert found[-1].distrusted == {"flipper-10", "flipper-11", "flipper-12"}
    earlier = [s for part in parts[:7] for s in part]
    with_history = estimate_trust(parts[7], knowing, CONFIG, found[6].history, earlier)
    assert with_history.distrusted == found[-1].distrusted and with_history.thumbs == found[-1].thumbs


@pytest.mark.parametrize("name", ["example_removal", "example_flip", "confusion_relabel"])
def test_what_old_thumbs_are_taken_for_is_not_forgotten_a_round_later(name: str) -> None:
    earlier = crowd(10, 3, thumbs=8, seed=4, noise=0.1)
    first = estimate_trust(earlier, knowing, method(name))
    new = renamed(crowd(10, 0, 2, seed=5, noise=0.0), 2)
    second = estimate_trust(new, knowing, method(name), first.history, earlier)
    taken = [(first.weight(s) > 0, first.label(s)) for s in earlier]
    assert [(second.weight(s) > 0, second.label(s)) for s in earlier] == taken


def test_trust_recovers_slowly() -> None:
    helpers = crowd(10, 0, thumbs=10, seed=1, noise=0.0)
    troll = crowd(0, 1, thumbs=10, seed=2, noise=0.0)
    reformed = [
        [
            *crowd(10, 0, 10, seed=s, noise=0.0),
            *(replace(x, person="flipper-0") for x in crowd(1, 0, 10, seed=s + 50, noise=0.0)),
        ]
        for s in range(3, 9)
    ]
    trust = [t.trust["flipper-0"] for t in in_rounds([[*helpers, *troll], *reformed])]
    assert trust[0] < 0.05 and trust[1] < 0.5 < trust[-1]
    unforgiving = CONFIG.model_copy(update={"memory": 1.0})
    kept = [t.trust["flipper-0"] for t in in_rounds([[*helpers, *troll], *reformed], unforgiving)]
    assert kept[-1] <= trust[-1] + 1e-9


def renamed(signals: Sequence[Signal], round_: int) -> list[Signal]:
    """With message ids of their own round."""
    return [replace(s, message_id=f"{round_}-{s.message_id}") for s in signals]


@pytest.mark.parametrize("name", ["confusion", "user_removal"])
def test_a_round_of_few_thumbs_or_none_sets_nobody_free(name: str) -> None:
    earlier = crowd(10, 3, thumbs=8, seed=4, noise=0.1)
    first = estimate_trust(earlier, knowing, method(name))
    assert len(first.distrusted) == 3
    wrong = renamed(crowd(0, 1, thumbs=2, seed=5, noise=0.0), 2)
    for new in (
        [],
        [replace(s, person="helper-3") for s in wrong],
        [replace(s, person="eve") for s in wrong],
    ):
        second = estimate_trust(new, knowing, method(name), first.history, earlier)
        assert second.distrusted >= first.distrusted and second.agreement > 0.6
        assert not {f"helper-{i}" for i in range(10)} & second.distrusted
        assert {s.person for s in earlier if second.weight(s) == 0} == first.distrusted
    nothing = estimate_trust([], knowing, method(name), first.history)
    assert nothing.distrusted == first.distrusted and nothing.agreement > 0.6
    assert nothing.history is not None and first.history is not None
    assert nothing.history.counts.sum() == first.history.counts.sum()


def test_models_that_never_knew_anything_distrust_nobody_in_a_later_round_either() -> None:
    earlier = crowd(10, 3, thumbs=8, seed=4)
    first = estimate_trust(earlier, clueless, CONFIG)
    for new in ([], renamed(crowd(2, 1, thumbs=3, seed=5), 2)):
        assert not estimate_trust(new, clueless, CONFIG, first.history, earlier).distrusted
    few = estimate_trust(crowd(2, 1, thumbs=8, seed=4), knowing, CONFIG)
    assert not few.distrusted and not estimate_trust([], knowing, CONFIG, few.history).distrusted


def test_who_is_away_is_remembered_as_they_were() -> None:
    helpers = crowd(10, 0, thumbs=10, seed=1, noise=0.0)
    troll = crowd(0, 1, thumbs=10, seed=2, noise=0.0)
    away = [crowd(10, 0, 10, seed=s, noise=0.0) for s in range(3, 9)]
    found = in_rounds([[*helpers, *troll], *away, []])
    assert all(t.distrusted == {"flipper-0"} for t in found)


def test_a_resumed_round_gives_the_same_and_history_survives_the_disk(tmp_path: Path) -> None:
    first = estimate_trust(crowd(10, 3, thumbs=3, seed=4), knowing, CONFIG)
    assert first.history is not None
    first.history.save(tmp_path / "history.parquet")
    loaded = TrustHistory.load(tmp_path / "history.parquet")
    assert loaded.people == first.history.people
    np.testing.assert_array_equal(loaded.counts, first.history.counts)
    again = crowd(10, 3, thumbs=3, seed=5)
    whole, resumed = (estimate_trust(again, knowing, CONFIG, h) for h in (first.history, loaded))
    assert whole.trust == resumed.trust and whole.distrusted == resumed.distrusted
    TrustHistory.empty().save(tmp_path / "none.parquet")
    assert TrustHistory.load(tmp_path / "none.parquet").people == ()


def test_a_missing_history_is_an_error_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"history\.parquet is missing"):
        TrustHistory.load(tmp_path / "history.parquet")
