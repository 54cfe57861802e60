"""How far annotators agree with each other, and thumbs with annotators. Pure.

cohens_kappa(["good", "good", "other", "other"], ["good", "other", "other", "other"]) = 0.5
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from bb3x_ray.schemas.conversation import LABELS, REASONS, Annotation, Conversation, Feedback

# What the pseudonyms of raters begin with.
RATER = "rater-"
EVERY_BOT = "*"
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % interval. `count`: replies that it is a share of; 0 of them tell nothing: 0.5 in
    [0, 1]."""

    share: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.share:.2f} [{self.low:.2f}, {self.high:.2f}]" if self.count else "–"


# Raters


def cohens_kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Agreement beyond chance of two raters, [N] labels each; NaN where both always said the same one thing,
    or nothing. Raises ValueError for lists of different length."""
    if len(first) != len(second):
        raise ValueError("two raters of the same replies have equally many labels")
    names = sorted({*first, *second})
    number = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    np.add.at(table, ([number[one] for one in first], [number[one] for one in second]), 1)
    return _kappa(table)


def _kappa(table: np.ndarray) -> float:
    """Of a confusion table [K, K] of counts."""
    total = table.sum()
    if not total:
        return math.nan
    seen = np.trace(table) / total
    by_chance = float(table.sum(0) @ table.sum(1)) / total**2
    return float((seen - by_chance) / (1 - by_chance)) if by_chance < 1 else math.nan


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """Two raters on the replies that both rated.

    agree       replies with the same label; `agree_good`: the same side of good or not
    kappa       with `low` and `high`, a 95 % bootstrap interval over conversations; NaN where undefined
    confusion   (label of the first, label of the second) -> replies
    """

    raters: tuple[str, str]
    replies: int
    agree: int
    agree_good: int
    kappa: float
    low: float
    high: float
    confusion: dict[tuple[str, str], int]


def agreement_of(
    raters: tuple[str, str],
    labels: Sequence[tuple[str, str, str]],
    seed: int = 0,
    resamples: int = 1000,
) -> RaterAgreement:
    """labels: (conversation, label of the first, label of the second) of each reply that both rated.

    Replies of one conversation are not independent, so whole conversations are drawn.
    """
    names = sorted({one for _, *both in labels for one in both})
    number = {name: place for place, name in enumerate(names)}
    talks = {talk: place for place, talk in enumerate(sorted({talk for talk, *_ in labels}))}
    tables = np.zeros((len(talks), len(names), len(names)))
    for talk, first, second in labels:
        tables[talks[talk], number[first], number[second]] += 1
    random = np.random.default_rng(seed)
    drawn = [
        _kappa(np.tensordot(random.multinomial(len(talks), [1 / len(talks)] * len(talks)), tables, 1))
        for _ in range(resamples if labels else 0)
    ]
    known = [kappa for kappa in drawn if not math.isnan(kappa)]
    low, high = np.percentile(known, [2.5, 97.5]).tolist() if known else (math.nan, math.nan)
    confusion = Counter((first, second) for _, first, second in labels)
    return RaterAgreement(
        raters,
        len(labels),
        sum(first == second for _, first, second in labels),
        sum((first == "good") == (second == "good") for _, first, second in labels),
        _kappa(tables.sum(0)),
        low,
        high,
        dict(confusion),
    )


def agreements_of(
    conversations: Iterable[Conversation], names: Mapping[str, str] | None = None, seed: int = 0
) -> list[RaterAgreement]:
    """Of each two raters with a message in common, those with most first. Crowdworkers of a release are left
    out: their names hold within a message only.

    names   what to call a rater; else the pseudonym
    """
    called, both = names or {}, defaultdict[tuple[str, str], list[tuple[str, str, str]]](list)
    for conversation in _latest(conversations):
        of_message: dict[str, dict[str, str]] = defaultdict(dict)
        for one in conversation.annotations:
            if one.rater.startswith(RATER):
                of_message[one.message_id][called.get(one.rater, one.rater)] = one.label
        for labels in of_message.values():
            for first, second in combinations(sorted(labels), 2):
                found = (conversation.conversation_id, labels[first], labels[second])
                both[first, second].append(found)
    agreements = [agreement_of(raters, labels, seed) for raters, labels in both.items()]
    return sorted(agreements, key=lambda one: (-one.replies, one.raters))


def _latest(conversations: Iterable[Conversation]) -> Iterable[Conversation]:
    """One that went on may come twice: the last counts."""
    return {one.conversation_id: one for one in conversations}.values()


# Labels


def label_shares(conversations: Iterable[Conversation]) -> dict[str, dict[str, Rate]]:
    """bot -> label -> its share of the bot's annotated replies; `EVERY_BOT` is all of them together.

    Annotations' weights undo how the sample was drawn, so the shares are those of the log's replies.
    """
    sums: dict[str, dict[str, _Sums]] = {}
    for conversation in _latest(conversations):
        votes: dict[str, list[Annotation]] = defaultdict(list)
        for one in conversation.annotations:
            votes[one.message_id].append(one)
        for message in conversation.messages:
            mine = votes.get(message.message_id, []) if message.author.can_be_trained_on else []
            for bot in (EVERY_BOT, message.author.name) if mine else ():
                of_bot = sums.setdefault(bot, {label: _Sums() for label in LABELS})
                weight = sum(one.weight for one in mine) / len(mine)
                for label, its in of_bot.items():
                    share = sum(one.label == label for one in mine) / len(mine)
                    its.add(conversation.person, weight, share)
    return {bot: {label: its.rate() for label, its in of_bot.items()} for bot, of_bot in sums.items()}


# Thumbs against annotations

UP, DOWN, NO_REASON = "up", "down", "no_reason"


@dataclass(frozen=True, slots=True)
class ThumbNoise:
    """Of one kind of thumb (see `NoiseRates.of`), among replies that have both a thumb and an annotation.

    given_good   P(this thumb | annotated good, and there is a thumb); `given_bad`: annotated not good
    good         P(annotated good | this thumb)
    """

    given_good: Rate
    given_bad: Rate
    good: Rate


@dataclass(frozen=True, slots=True)
class NoiseRates:
    """What thumbs say of annotations.

    replies   that have both; `people`: whose thumbs these are
    agrees    thumb up on good ones, thumb down on others
    of        kind -> ThumbNoise; kinds are `up`, `down`, and among these `down:<reason>` for each of REASONS
              and `down:no_reason`. A thumb with two reasons is in both.
    """

    replies: int
    people: int
    agrees: Rate
    of: dict[str, ThumbNoise]


@dataclass(slots=True)
class _Sums:
    """Weights by person."""

    hit: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    all: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    count: int = 0

    def add(self, person: str, weight: float, hit: float) -> None:
        """`hit`: 0 to 1, in what part of the weight it is so."""
        if weight > 0:
            self.all[person] += weight
            self.hit[person] += weight * hit
            self.count += 1

    def rate(self) -> Rate:
        """Wilson's interval, for as many independent opinions as the people's weights are worth: ten thumbs
        of one person count as one."""
        total = sum(self.all.values())
        if not total:
            return Rate(0.5, 0.0, 1.0, 0)
        share = min(1.0, sum(self.hit.values()) / total)
        size = total**2 / sum(weight**2 for weight in self.all.values())
        middle = (share + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
        half = _Z / (1 + _Z**2 / size) * math.sqrt(share * (1 - share) / size + _Z**2 / (4 * size**2))
        return Rate(share, max(0.0, middle - half), min(1.0, middle + half), self.count)


def noise_rates(conversations: Iterable[Conversation]) -> NoiseRates:
    """Estimated where both exist: standing thumbs of the conversation's own person on replies that can be
    trained on, and annotations of these. Raters who differ count in parts: two of three good is good to 2/3.

    Annotations' weights undo how the sample was drawn. A conversation that comes twice counts once, the last.
    """
    kinds = [UP, DOWN, *(f"{DOWN}:{reason}" for reason in (*REASONS, NO_REASON))]
    given_good, given_bad, good = ({kind: _Sums() for kind in kinds} for _ in range(3))
    agrees = _Sums()
    for person, thumb, share, weight in _rated_and_annotated(_latest(conversations)):
        mine = kinds_of(thumb)
        up = thumb.rating == 1
        agrees.add(person, weight, share if up else 1 - share)
        for kind in kinds:
            given_good[kind].add(person, weight * share, kind in mine)
            given_bad[kind].add(person, weight * (1 - share), kind in mine)
            if kind in mine:
                good[kind].add(person, weight, share)
    found = {k: ThumbNoise(given_good[k].rate(), given_bad[k].rate(), good[k].rate()) for k in kinds}
    return NoiseRates(agrees.count, len(agrees.all), agrees.rate(), found)


def kinds_of(thumb: Feedback) -> frozenset[str]:
    """The kinds (see NoiseRates) of a standing thumb; none for one that was taken back."""
    if thumb.rating is None:
        return frozenset()
    if thumb.rating == 1:
        return frozenset({UP})
    return frozenset({DOWN, *(f"{DOWN}:{reason}" for reason in thumb.reasons or (NO_REASON,))})


def _rated_and_annotated(
    conversations: Iterable[Conversation],
) -> Iterable[tuple[str, Feedback, float, float]]:
    """(person, thumb, share of its annotations that are good, weight) of each reply that has both."""
    for conversation in conversations:
        shares = good_shares(conversation)
        if not shares:
            continue
        replies = {m.message_id for m in conversation.messages if m.author.can_be_trained_on}
        mine = {f.message_id: f for f in conversation.feedback if f.person == conversation.person}
        for message_id, thumb in mine.items():
            if thumb.rating is not None and message_id in replies and message_id in shares:
                yield conversation.person, thumb, *shares[message_id]


def good_shares(conversation: Conversation) -> dict[str, tuple[float, float]]:
    """message_id -> (share of its annotations that are good, their mean weight)."""
    votes: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for one in conversation.annotations:
        votes[one.message_id].append((one.label == "good", one.weight))
    return {
        message_id: (
            sum(good for good, _ in mine) / len(mine),
            sum(weight for _, weight in mine) / len(mine),
        )
        for message_id, mine in votes.items()
    }
