"""The safety classifier of a store: trained from what the project ships and what its owner adds.

Law 11: it learns from our own messages and from the human part of ordinary talk, and its thresholds are set
on the talk part; never on the judge's or the evaluation's people, nor on evaluate's prompts.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.classify.safety import (
    EMBEDDED,
    EmbeddedClassifier,
    Example,
    HubClassifier,
    Safety,
    SafetyFolder,
    adopt_safety,
    train_safety,
)
from bb3x_ray.classify.safety_numbers import balanced_calibration_error, share
from bb3x_ray.classify.words import WordMatcher
from bb3x_ray.config import SafetyConfig
from bb3x_ray.data.parts import split_parts
from bb3x_ray.data.readers.chitchat import ChitchatConversation, read_chitchat
from bb3x_ray.data.safety_messages import MESSAGES, load_safety_messages
from bb3x_ray.data.safety_pairs import PAIRS, load_safety_pairs
from bb3x_ray.registry import Registry
from bb3x_ray.storage import Storage, sha256_file

KIND = "safety"
_LEARN, _DECIDE = "human", "talk"  # parts of ordinary talk


def ensure_safety(storage: Storage, config: SafetyConfig, seed: int, say: Callable[[str], None]) -> str:
    """The newest version that was made with these settings and files; trained where there is none."""
    registry, made_with = Registry(storage, KIND), _made_with(config)
    for version in reversed(registry.versions()):
        if registry.lineage(version)["made_with"] == made_with:
            return version
    version = registry.reserve()
    say(f"safety: {version} learns which texts are unsafe")
    safety = make_safety(config, seed)
    lineage = {"made_with": made_with, **safety.about["report"]}
    with registry.publish(version, lineage, safety_card(safety, version)) as folder:
        safety.save(folder)
    return version


def safety_folder(storage: Storage, version: str) -> SafetyFolder:
    """What score_turns and score_groups take as `safety`; every hash verified."""
    return SafetyFolder(Registry(storage, KIND).folder(version))


def make_safety(config: SafetyConfig, seed: int) -> Safety:
    """Trained or adopted, calibrated, with thresholds for `config.false_alarms` and a report."""
    matcher = WordMatcher(config.extra_words, config.allowed_words)
    own = own_examples(config)
    parts = split_parts(read_chitchat(2), seed=0)
    decide, judge_false_alarms = (
        [pair for pair, _ in _ordinary(talks, config.ordinary, seed)]
        for talks in (parts[_DECIDE][::2], parts[_DECIDE][1::2])
    )
    report: dict[str, float] = {
        "unsafe_examples": float(sum(e.unsafe for e in own)),
        "harmless_examples": float(sum(not e.unsafe for e in own)),
    }
    if config.classifier == EMBEDDED:
        talks = _ordinary(parts[_LEARN], config.ordinary, seed)
        examples = [*own, *(Example(pair.reply, False, name) for pair, name in talks)]
        safety, p = train_safety(examples, load_encoder(config.encoder), matcher, config.l2, seed)
        unsafe = np.array([e.unsafe for e in examples], np.float64)
        report["ordinary_examples"] = float(len(talks))
        report["calibration_error"] = balanced_calibration_error(p, unsafe)
    else:
        safety = adopt_safety(HubClassifier(config.classifier, config.unsafe_labels), own, matcher)
        p = safety.texts([e.text for e in own])
    safety.set_thresholds(decide, config.false_alarms)
    safety.about |= {"extra_words": list(config.extra_words), "allowed_words": list(config.allowed_words)}
    report |= _measured(safety, own, p[: len(own)], judge_false_alarms)
    safety.about["report"] = report
    return safety


def _measured(
    safety: Safety, own: Sequence[Example], p: np.ndarray, ordinary: Sequence[Pair]
) -> dict[str, float]:
    """`p`: P(unsafe) of our own examples, out of fold; as it says now of a classifier that others trained."""
    flagged = p > safety.threshold
    unsafe = np.array([e.unsafe for e in own])
    replies = [pair for pair in ordinary if pair.context]
    return {
        "recall": share(flagged[unsafe]).value,
        "false_alarms_harmless": share(flagged[~unsafe]).value,
        "false_alarms": share(safety.texts([p.reply for p in ordinary]) > safety.threshold).value,
        "false_alarms_replies": share(safety(replies) > safety.reply_threshold).value,
        "ordinary_measured": float(len(ordinary)),
    }


def own_examples(config: SafetyConfig) -> list[Example]:
    """What ships with the package, and the files that the config names."""
    examples = [Example(p.context, True) for p in load_safety_pairs() if p.kind not in _HARMLESS_KINDS]
    examples += [Example(p.reply, False) for p in load_safety_pairs()]
    for path in (MESSAGES, *map(Path, config.files)):
        examples += [Example(m.text, m.unsafe) for m in load_safety_messages(path)]
    return examples


# Delicate, but a person who asks is not unsafe for it.
_HARMLESS_KINDS = frozenset({"politics"})


def undecided_talk(count: int, seed: int) -> list[Pair]:
    """Ordinary utterances that nothing was learned from and no threshold was set by, each with what it
    answers ("" for an opener)."""
    talks = split_parts(read_chitchat(2), seed=0)[_DECIDE][1::2]
    return [pair for pair, _ in _ordinary(talks, count, seed)]


def _ordinary(talks: Sequence[ChitchatConversation], count: int, seed: int) -> list[tuple[Pair, str]]:
    said = [
        (Pair(talk.turns[i - 1] if i else "", text), talk.conversation_id)
        for talk in talks
        for i, text in enumerate(talk.turns)
    ]
    order = np.random.default_rng(seed).permutation(len(said))[:count]
    return [said[i] for i in order]


def _made_with(config: SafetyConfig) -> str:
    files = [sha256_file(path) for path in (PAIRS, MESSAGES, *map(Path, config.files)) if path.is_file()]
    return hashlib.sha256(f"{config.model_dump_json()} {files}".encode()).hexdigest()


def safety_card(safety: Safety, version: str) -> str:
    """The model card, in Markdown."""
    report, ours = safety.about["report"], isinstance(safety.classifier, EmbeddedClassifier)
    seen = "out of fold" if ours else "on which it was calibrated"
    unused = "neither trained on nor used for the threshold" if ours else "not used for the threshold"
    measured = "\n".join(
        f"| {words.format(seen=seen, unused=unused)} | {report[key]:.3f} |"
        for key, words in _MEASURED.items()
        if key in report
    )
    return f"""# Safety classifier {version}

How unsafe a message or a reply is, 0 to 1. {_what(safety)}
beside a word matcher, calibrated together as if half of all texts were unsafe. A message counts as unsafe
above {safety.threshold:.3f}, a reply above {safety.reply_threshold:.3f}.

{_taught(report, ours)}

| | |
|---|---|
{measured}

{_OURS if ours else _OF_OTHERS} It is the filter of what is imitated, never the judge's detector.
"""


def _what(safety: Safety) -> str:
    if isinstance(safety.classifier, EmbeddedClassifier):
        return f"Logistic regression on embeddings of the encoder `{safety.classifier.encoder.source}`"
    if isinstance(safety.classifier, HubClassifier):
        return f"The Hugging Face classifier `{safety.classifier.source}`"
    return "A classifier"


def _taught(report: Mapping[str, float], ours: bool) -> str:
    own = (
        f"{report['unsafe_examples']:.0f} unsafe and {report['harmless_examples']:.0f} harmless examples\n"
        "of the project's and its owner's"
    )
    if not ours:
        return (
            f"Trained by others, on what their card tells. Calibrated on {own}.\n{_THRESHOLDS} ordinary talk."
        )
    ordinary = f"{report['ordinary_examples']:.0f} utterances of ordinary talk"
    return f"Trained on {own}, and {ordinary}.\n{_THRESHOLDS} other people's ordinary talk."


_THRESHOLDS = "The thresholds are set on"

_OURS = """\
A few hundred short examples teach a floor, no more: it misses what is unsafe in ways that they do not show,
and whatever needs more than one message to be understood. Give your own examples (`safety.files`) or a
larger classifier (`safety.classifier`)."""

_OF_OTHERS = """\
It finds what its makers taught it to find, one message at a time. Measured on examples that it was
calibrated on, it looks a little better than it is; `bb3x safety report` measures it on talk of others."""

_MEASURED: dict[str, str] = {
    "recall": "recall on our own unsafe messages, {seen}",
    "false_alarms_harmless": "false alarms on our own messages that only sound unsafe, {seen}",
    "false_alarms": "false alarms on ordinary messages, {unused}",
    "false_alarms_replies": "false alarms on ordinary replies, the same",
    "calibration_error": "calibration error out of fold, where half of all examples are unsafe",
}
