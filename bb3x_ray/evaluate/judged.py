"""Put every side before the judge: candidate, champion, v0001, the nulls and the real human replies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bb3x_ray.evaluate.compare import Comparison, Floats, Judged, Kinds
from bb3x_ray.evaluate.equal_length import equalise, without_cut_off
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.evaluate.sentences import word_count
from bb3x_ray.evaluate.structure import structural_failure

# (prompts [N], replies [N]) -> P(good) [N], P(unsafe) [N]
JudgeFunction = Callable[[Sequence[Prompt], Sequence[str]], tuple[Floats, Floats]]
# (prompts [N], replies [N], cut off [N]) -> how good by the simulated people's hidden preference [N], 0 to 1
TruthFunction = Callable[[Sequence[Prompt], Sequence[str], Sequence[bool]], Floats]


@dataclass(frozen=True, slots=True)
class Replies:
    """One reply per prompt. `finish_reasons` may be left out where nothing was cut off."""

    texts: Sequence[str]
    finish_reasons: Sequence[str | None] = ()

    def cut_off(self) -> list[bool]:
        return [reason == "length" for reason in self.finish_reasons] or [False] * len(self.texts)

    def without_cut_offs(self) -> list[str]:
        reasons = self.finish_reasons or [None] * len(self.texts)
        return [without_cut_off(t, r) for t, r in zip(self.texts, reasons, strict=True)]


@dataclass(frozen=True, slots=True)
class NullJudged:
    """A null on all prompts; beside the candidate; and beside people where their reply is known."""

    whole: Judged
    candidate_against_it: Comparison
    it_against_humans: Comparison


@dataclass(frozen=True, slots=True)
class SetJudged:
    """Everything judged on one prompt set. `truth` decides nothing."""

    kinds: Kinds
    comparison: Comparison  # candidate, champion
    against_base: Comparison | None = None  # candidate, v0001
    humans: Judged | None = None  # on the prompts with a human reply only
    nulls: Mapping[str, NullJudged] = field(default_factory=dict)
    truth: Mapping[str, Floats] = field(default_factory=dict)


class _Bench:
    """The judge with a memory: the same reply to the same prompt is judged once."""

    def __init__(self, judge: JudgeFunction) -> None:
        self._judge = judge
        self._known: dict[tuple[str, str], tuple[float, float]] = {}

    def judge(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Judged:
        if len(prompts) != len(texts):
            raise ValueError("every prompt needs exactly one reply")
        keys = [(prompt.prompt_id, text) for prompt, text in zip(prompts, texts, strict=True)]
        new = {k: p for k, p in zip(keys, prompts, strict=True) if k not in self._known}
        if new:
            good, unsafe = self._judge(list(new.values()), [text for _, text in new])
            self._known.update(zip(new, zip(map(float, good), map(float, unsafe), strict=True), strict=True))
        pairs = np.array([self._known[key] for key in keys], np.float64).reshape(-1, 2)
        failed = [structural_failure(p, t) is not None for p, t in zip(prompts, texts, strict=True)]
        words = np.array([word_count(text) for text in texts], np.int64)
        return Judged(pairs[:, 0], pairs[:, 1], np.array(failed, bool), words)

    def compare(self, prompts: Sequence[Prompt], first: Replies, second: Replies) -> Comparison:
        pairs = [
            equalise(a, b) for a, b in zip(first.without_cut_offs(), second.without_cut_offs(), strict=True)
        ]
        return Comparison(
            kinds_of(prompts),
            self.judge(prompts, first.texts),
            self.judge(prompts, second.texts),
            self.judge(prompts, [a for a, _ in pairs]),
            self.judge(prompts, [b for _, b in pairs]),
        )


def kinds_of(prompts: Sequence[Prompt]) -> Kinds:
    return np.array([prompt.kind for prompt in prompts], dtype=np.str_)


def judge_pair(
    prompts: Sequence[Prompt], first: Replies, second: Replies, judge: JudgeFunction
) -> Comparison:
    """Two sides only; for instance two samples of v0001, by which the gates' error rates are measured."""
    return _Bench(judge).compare(prompts, first, second)


def judge_set(
    prompts: Sequence[Prompt],
    candidate: Replies,
    champion: Replies,
    judge: JudgeFunction,
    *,
    base: Replies | None = None,
    nulls: Mapping[str, Sequence[str] | Replies] | None = None,
    truth: TruthFunction | None = None,
) -> SetJudged:
    """Judge one prompt set. Every list is [len(prompts)]; ValueError when one is not.

    base    v0001's replies, for the gain over the whole life of the model
    nulls   from `nulls.null_gallery`; set B needs them, set A does not
    truth   the simulated people's hidden preference, where people are simulated
    """
    bench = _Bench(judge)
    gallery = {k: r if isinstance(r, Replies) else Replies(r) for k, r in (nulls or {}).items()}
    known = np.array([prompt.human_reply is not None for prompt in prompts], bool)
    answered = [prompt for prompt in prompts if prompt.human_reply is not None]
    human = Replies([prompt.human_reply or "" for prompt in answered])
    galleries = {
        name: NullJudged(
            bench.judge(prompts, replies.texts),
            bench.compare(prompts, candidate, replies),
            bench.compare(answered, _chosen(replies, known), human),
        )
        for name, replies in gallery.items()
    }
    sides = {"candidate": candidate, "champion": champion, **({"base": base} if base else {}), **gallery}
    return SetJudged(
        kinds=kinds_of(prompts),
        comparison=bench.compare(prompts, candidate, champion),
        against_base=bench.compare(prompts, candidate, base) if base else None,
        humans=bench.judge(answered, human.texts) if answered else None,
        nulls=galleries,
        truth=_truth(prompts, answered, human, sides, truth) if truth else {},
    )


def _chosen(replies: Replies, chosen: NDArray[np.bool_]) -> Replies:
    reasons = replies.finish_reasons or [None] * len(replies.texts)
    kept = [pair for pair, keep in zip(zip(replies.texts, reasons, strict=True), chosen, strict=True) if keep]
    return Replies([text for text, _ in kept], [reason for _, reason in kept])


def _truth(
    prompts: Sequence[Prompt],
    answered: Sequence[Prompt],
    human: Replies,
    sides: Mapping[str, Replies],
    truth: TruthFunction,
) -> dict[str, Floats]:
    found = {name: np.asarray(truth(prompts, r.texts, r.cut_off()), np.float64) for name, r in sides.items()}
    if answered:
        found["humans"] = np.asarray(truth(answered, human.texts, human.cut_off()), np.float64)
    return found
