"""From signals to trust per person: the door for rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bb3x_ray.config import TrustConfig
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust.confusion import Population, observe
from bb3x_ray.reward.trust.folds import Judge, Thumbs, errors_of, fold_of, thumbs_of_people
from bb3x_ray.reward.trust.groups import deeds_of, find_groups, joined
from bb3x_ray.reward.trust.history import TrustHistory
from bb3x_ray.reward.trust.methods import Cleaned, clean, level_errors

# (thumbs to learn from, their labels 0..1 [N], weights [N], thumbs to judge) -> P(label = 1) of the latter
FoldJudge = Callable[[Sequence[Signal], np.ndarray, np.ndarray, Sequence[Signal]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Trust:
    """Trust per person, 0 to 1: for the method `confusion` the probability that the person is a helper.

    trust       where the fold models know nothing, the same for all
    agreement   mean of 1 − error of the thumbs of those who are listened to, of this round and of those
                before: 0.5 or less means that the fold models know nothing, and then nobody is distrusted
    thumbs      how many each person ever gave, those that faded counted in part
    right       how often the person is right about good replies, and about bad ones
    weights     by message: how much its thumb counts, 0 to 1, where that is not 1
    labels      by message: what its thumb is taken for, 0 to 1, where that is not the thumb itself
    said        by message: P(thumb up) by models that did not see the thumb
    groups      people who do the same far more often than chance has it, or did so in an earlier round; they
                count as one person, each account's thumbs as a share of that person's
    history     what the next round starts from; None for the method none, which judged nobody: a later round
                with another method has all thumbs still to judge
    """

    trust: dict[str, float]
    distrusted: frozenset[str]
    agreement: float
    thumbs: dict[str, int]
    right: dict[str, tuple[float, float]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    labels: dict[str, float] = field(default_factory=dict)
    said: dict[str, float] = field(default_factory=dict)
    groups: tuple[frozenset[str], ...] = ()
    history: TrustHistory | None = None

    def weight(self, signal: Signal) -> float:
        """How much a thumb counts: 0 when it is dropped."""
        return 0.0 if signal.person in self.distrusted else self.weights.get(signal.message_id, 1.0)

    def label(self, signal: Signal) -> float:
        """What a thumb is taken for."""
        return self.labels.get(signal.message_id, float(signal.label))

    def parts(self) -> dict[str, float]:
        """What of one person each account of a group is."""
        return {person: 1 / len(group) for group in self.groups for person in group}

    def metrics(self) -> dict[str, float]:
        return {
            "people": float(len(self.trust)),
            "people_distrusted": float(len(self.distrusted)),
            "groups": float(len(self.groups)),
            "people_in_groups": float(sum(map(len, self.groups))),
            "agreement": self.agreement,
            "thumbs": float(sum(self.thumbs.values())),
            "thumbs_left_out": float(sum(self.thumbs[p] for p in self.distrusted)),
        }


def estimate_trust(
    signals: Sequence[Signal],
    fold_judge: FoldJudge,
    config: TrustConfig,
    history: TrustHistory | None = None,
    earlier: Sequence[Signal] = (),
) -> Trust:
    """Trust of everybody who ever gave a thumb.

    signals   thumbs to judge. Without `history`, pass those of all conversations so far: few thumbs say
              little about a person. With it, those that are new since it was made
    history   what earlier rounds found out about people; they are not judged again
    earlier   thumbs of earlier rounds, which the fold models may learn from as well

    People with fewer than `config.min_thumbs` thumbs are not distrusted by themselves, nor is anybody where
    the models know nothing, or where there are fewer than `config.min_all_thumbs` thumbs of all people. The
    same arguments give the same trust.
    """
    history = history or TrustHistory.empty()
    everything = [*signals, *earlier]
    names = sorted({s.person for s in everything} | set(history.people))
    past = history.of(names)
    if not names:
        return Trust({}, frozenset(), 0.5, {})
    thumbs = _numbered(everything, len(signals), names, config.folds)
    found = clean(thumbs, _by_rows(everything, fold_judge), config, past)
    counts = past + observe(thumbs, found.p)
    groups = _groups(everything, names, past, history, config) if config.method != "none" else []
    if groups:
        found = _as_one_person(found, thumbs, counts, groups, config)
    agreement = _agreement(thumbs, found, past)
    knows = agreement > 0.5 and counts.sum() >= config.min_all_thumbs
    if not knows and config.method != "none":
        found = replace(
            found,
            label=thumbs.label.astype(float),
            weight=_shares(thumbs, groups),
            trust=found.trust if agreement > 0.5 else np.full(len(names), float(np.median(found.trust))),
            distrusted=np.zeros(thumbs.people, bool),
        )
    return _told(found, thumbs, everything, len(signals), names, counts, groups, agreement, history, config)


def _told(
    found: Cleaned,
    thumbs: Thumbs,
    everything: Sequence[Signal],
    new: int,
    names: Sequence[str],
    counts: np.ndarray,
    groups: Sequence[np.ndarray],
    agreement: float,
    history: TrustHistory,
    config: TrustConfig,
) -> Trust:
    ids = [signal.message_id for signal in everything]
    alike = tuple(frozenset(names[i] for i in group) for group in groups)
    now = observe(thumbs, found.p)
    return Trust(
        trust=dict(zip(names, found.trust.tolist(), strict=True)),
        distrusted=frozenset(names[i] for i in np.flatnonzero(found.distrusted).tolist()),
        agreement=agreement,
        thumbs={name: round(count) for name, count in zip(names, counts.sum(1).tolist(), strict=True)},
        right={name: (good, bad) for name, (good, bad) in zip(names, found.right.tolist(), strict=True)},
        weights={ids[i]: float(found.weight[i]) for i in np.flatnonzero(found.weight != 1)},
        labels={ids[i]: float(found.label[i]) for i in np.flatnonzero(found.label != thumbs.label)},
        said={ids[i]: float(found.p[i]) for i in range(new)},
        groups=alike,
        history=None if config.method == "none" else history.after(names, now, config.memory, alike),
    )


def _numbered(everything: Sequence[Signal], new: int, names: Sequence[str], folds: int) -> Thumbs:
    number = {name: i for i, name in enumerate(names)}
    thumbs = thumbs_of_people(
        [s.label for s in everything], [s.person for s in everything], [fold_of(s, folds) for s in everything]
    )
    return replace(
        thumbs,
        person=np.array([number[s.person] for s in everything], np.int64),
        people=len(names),
        judged=np.arange(len(everything)) < new,
    )


def _by_rows(everything: Sequence[Signal], fold_judge: FoldJudge) -> Judge:
    def judge(train: np.ndarray, labels: np.ndarray, weights: np.ndarray, test: np.ndarray) -> np.ndarray:
        return fold_judge([everything[i] for i in train], labels, weights, [everything[i] for i in test])

    return judge


def _agreement(thumbs: Thumbs, found: Cleaned, past: np.ndarray) -> float:
    """Of all that people ever did, weighted by their trust: a round of few thumbs, or of none, says nothing
    against models that were right before. Errors of this round are exact, those of earlier rounds as exact
    as their levels."""
    new = thumbs.new
    errors = errors_of(thumbs.label, found.p)[new]
    wrong = past @ level_errors() + np.bincount(thumbs.person[new], errors, thumbs.people)
    given = past.sum(1) + np.bincount(thumbs.person[new], minlength=thumbs.people)
    if not (found.trust * given).sum() > 0:
        return 0.5
    return float(1 - found.trust @ wrong / (found.trust @ given))


def _groups(
    everything: Sequence[Signal],
    names: Sequence[str],
    past: np.ndarray,
    history: TrustHistory,
    config: TrustConfig,
) -> list[np.ndarray]:
    """Remembered groups, with the new accounts that do what theirs do or did, and groups of new accounts.
    Who has long been talking, and not as one of a group, is known by what they did."""
    number = {name: i for i, name in enumerate(names)}
    remembered = [sorted(number[name] for name in group) for group in history.groups]
    candidates = past.sum(1) == 0
    candidates[[person for group in remembered for person in group]] = True
    person = np.array([number[s.person] for s in everything], np.int64)
    deeds = [(person[row], deed) for row, deed in deeds_of(everything)]
    # One new account and one of a group are too few for a group of their own, not to join that one.
    found = find_groups(deeds, candidates, config.group_false_alarms, 2)
    return joined(found, remembered, config.group_size)


def _as_one_person(
    found: Cleaned, thumbs: Thumbs, counts: np.ndarray, groups: Sequence[np.ndarray], config: TrustConfig
) -> Cleaned:
    """A group's thumbs together are those of one person, who is trusted or not; if so, each account's thumbs
    count as a share of that person's."""
    together = np.array([counts[group].sum(0) for group in groups])
    population = Population.of(
        np.concatenate([counts, together]), config.threshold, config.min_thumbs, config.evidence
    )
    trust, distrusted, right = found.trust.copy(), found.distrusted.copy(), found.right.copy()
    weight, shares = found.weight.copy(), _shares(thumbs, groups)
    for i, group in enumerate(groups):
        of_group = len(counts) + i
        trust[group], right[group] = population.trust[of_group], population.right[of_group]
        distrusted[group] = population.distrusted[of_group]
        own = np.isin(thumbs.person, group)
        weight[own] = 0.0 if population.distrusted[of_group] else shares[own]
    return replace(found, trust=trust, distrusted=distrusted, right=right, weight=weight)


def _shares(thumbs: Thumbs, groups: Sequence[np.ndarray]) -> np.ndarray:
    """[N] what of a person each thumb's account is: all of one, or its part of a group."""
    share = np.ones(thumbs.people)
    for group in groups:
        share[group] = 1 / len(group)
    return np.asarray(share[thumbs.person])
