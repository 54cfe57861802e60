"""How unsafe a text is, 0 to 1: a classifier beside the word matcher, calibrated together.

The classifier is logistic regression on a frozen encoder's embeddings, trained by the project ("embedded"),
or any Hugging Face text classifier. Both only rank; what they say is calibrated, together with whether the
word matcher found anything, on examples that they were not fitted on, as if half of all texts were unsafe.

A message is judged by itself. So is a reply, but one that goes along with an unsafe message is as unsafe as
that message ("Sure, here is how").
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bb3x_ray.classify.bag_of_words import Logistic
from bb3x_ray.classify.encoder import Encoder, load_encoder
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.classify.words import WordMatcher
from bb3x_ray.schemas.errors import UserError

EMBEDDED = "embedded"
WEIGHTS, ABOUT = "model.safetensors", "config.json"
FOLDS = 5
_BATCH, _MAX_TOKENS = 64, 128  # of a Hugging Face classifier
_EDGE = 1e-6
_AGREES = re.compile(
    r"\W*(?:yes|yeah|yep|sure|of course|ok|okay|absolutely|definitely|exactly|totally|true|certainly|i agree"
    r"|agreed|you(?:'re| are) right|good idea|great idea|no problem|me too|same here|here(?:'s| is) how)\b",
    re.IGNORECASE,
)
_DECLINES = re.compile(
    r"\b(?:can't|cannot|won't|wouldn't|don't|not|never|sorry|rather|please|illegal|wrong)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Example:
    """A text that is unsafe or not. `group`: what must not be on both sides of a fold, such as a talk."""

    text: str
    unsafe: bool
    group: str = ""


class TextClassifier(Protocol):
    """texts -> log odds of unsafe, float64 [N]."""

    def logits(self, texts: Sequence[str]) -> np.ndarray: ...


class EmbeddedClassifier:
    """Logistic regression on sentence embeddings."""

    def __init__(self, encoder: Encoder, model: Logistic) -> None:
        self.encoder, self.model = encoder, model

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return self.model.logits(self.encoder.embed(texts)) if len(texts) else np.zeros(0)


class HubClassifier:
    """A Hugging Face classifier: the folder or hub name `source`, whose `unsafe_labels` mean unsafe."""

    def __init__(self, source: str, unsafe_labels: Sequence[str]) -> None:
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                source, use_safetensors=True
            ).eval()
        except OSError:
            raise UserError(
                f"safety.classifier: no classifier with safetensors at {source!r}; give {EMBEDDED}, a folder "
                "or a hub name."
            ) from None
        labels = {str(name): int(number) for name, number in self._model.config.label2id.items()}
        unknown = [name for name in unsafe_labels if name not in labels]
        if unknown or not unsafe_labels:
            has = ", ".join(sorted(labels))
            raise UserError(f"safety.unsafe_labels: name labels of {source!r} that mean unsafe: {has}.")
        self._unsafe = [labels[name] for name in unsafe_labels]
        of_many = self._model.config.problem_type == "multi_label_classification"
        self._yes_or_no = of_many or len(labels) == 1
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)
        self.source, self.unsafe_labels = source, tuple(unsafe_labels)

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = np.zeros(len(texts))
        for first in range(0, len(order), _BATCH):
            places = order[first : first + _BATCH]
            inputs = self._tokenizer(
                [texts[i] for i in places],
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            ).to(self._device)
            found[places] = self._unsafe_logits(self._model(**inputs).logits.float()).cpu().numpy()
        return found

    def _unsafe_logits(self, logits: torch.Tensor) -> torch.Tensor:
        if self._yes_or_no:  # for each label by itself
            return logits[:, self._unsafe].amax(1)
        p = logits.softmax(1)[:, self._unsafe].sum(1).clamp(_EDGE, 1 - _EDGE)
        return p.logit()


@dataclass(frozen=True, slots=True)
class JointCalibration:
    """log odds = intercept + per_logit · the classifier's + per_word, where a word was found."""

    per_logit: float
    per_word: float
    intercept: float

    @classmethod
    def fit(cls, logits: np.ndarray, hits: np.ndarray, unsafe: np.ndarray) -> "JointCalibration":
        model = Logistic.fit(np.stack([logits, hits], 1), unsafe, half_each(unsafe), 1e-3)
        # A word or a higher logit never makes a text safer.
        return cls(max(float(model.weights[0]), 0.0), max(float(model.weights[1]), 0.0), model.intercept)

    def __call__(self, logits: np.ndarray, hits: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(self.intercept + self.per_logit * logits + self.per_word * hits)))


class Safety:
    """Call it with pairs for how unsafe their replies are, float64 [N]; a message is a reply to "".

    threshold         above it a message counts as unsafe
    reply_threshold   the same of replies in their context
    report            what was measured when it was trained
    """

    def __init__(
        self,
        classifier: TextClassifier,
        matcher: WordMatcher,
        calibration: JointCalibration,
        about: dict[str, Any],
    ) -> None:
        self.classifier, self.matcher, self.calibration, self.about = classifier, matcher, calibration, about
        self.threshold = float(about.get("threshold", 0.5))
        self.reply_threshold = float(about.get("reply_threshold", self.threshold))

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        scores = self.texts([pair.reply for pair in pairs])
        along = [i for i, pair in enumerate(pairs) if pair.context and goes_along(pair.reply)]
        if along:
            heard = self.texts([pairs[i].context.partition("\n")[0] for i in along])
            scores[along] = np.maximum(scores[along], heard)
        return scores

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """texts -> how unsafe each is by itself, float64 [N]."""
        if not len(texts):
            return np.zeros(0)
        return self.calibration(self.classifier.logits(texts), hits(self.matcher, texts))

    def set_thresholds(self, ordinary: Sequence[Pair], false_alarms: float) -> None:
        """So that `false_alarms` of ordinary messages and replies, not trained on, are above."""
        self.threshold = threshold_at(self.texts([pair.reply for pair in ordinary]), false_alarms)
        self.reply_threshold = threshold_at(self([p for p in ordinary if p.context]), false_alarms)
        self.about |= {"threshold": self.threshold, "reply_threshold": self.reply_threshold}

    def save(self, folder: Path) -> None:
        if isinstance(self.classifier, EmbeddedClassifier):
            save_file({"weights": self.classifier.model.weights}, folder / WEIGHTS)
            self.about |= {
                "classifier": EMBEDDED,
                "encoder": self.classifier.encoder.source,
                "model_intercept": self.classifier.model.intercept,
            }
        elif isinstance(self.classifier, HubClassifier):
            labels = list(self.classifier.unsafe_labels)
            self.about |= {"classifier": self.classifier.source, "unsafe_labels": labels}
        self.about |= {"calibration": asdict(self.calibration)}
        (folder / ABOUT).write_text(json.dumps(self.about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Safety":
        """Raises UserError when the folder holds none."""
        if not (folder / ABOUT).is_file():
            raise UserError(
                f"{folder} holds no safety classifier ({ABOUT}): train one with `bb3x safety train`."
            )
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        classifier: TextClassifier
        if about["classifier"] == EMBEDDED:
            weights = load_file(folder / WEIGHTS)["weights"]
            classifier = EmbeddedClassifier(
                load_encoder(about["encoder"]), Logistic(weights, about["model_intercept"])
            )
        else:
            classifier = HubClassifier(about["classifier"], about["unsafe_labels"])
        matcher = WordMatcher(about["extra_words"], about["allowed_words"])
        return cls(classifier, matcher, JointCalibration(**about["calibration"]), about)


@dataclass(frozen=True, slots=True)
class SafetyFolder:
    """Where an actor finds a safety classifier. `stamp` changes with anything in it."""

    folder: Path

    @property
    def stamp(self) -> str:
        files = sorted(path for path in self.folder.iterdir() if path.suffix in (".json", ".safetensors"))
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    def load(self) -> Safety:
        return Safety.load(self.folder)


def train_safety(
    examples: Sequence[Example], encoder: Encoder, matcher: WordMatcher, l2: float, seed: int
) -> tuple[Safety, np.ndarray]:
    """The embedded classifier, and P(unsafe) of each example by a model that did not see its group."""
    texts, unsafe, fold = [e.text for e in examples], _unsafe(examples), folds_of(examples, seed)
    x, found = encoder.embed(texts), hits(matcher, texts)  # once: embedding costs far more than fitting
    logits = np.zeros(len(examples))
    for number in range(FOLDS):
        test = fold == number
        logits[test] = _fit(x[~test], unsafe[~test], l2).logits(x[test])
    calibration = JointCalibration.fit(logits, found, unsafe)
    whole = EmbeddedClassifier(encoder, _fit(x, unsafe, l2))
    return Safety(whole, matcher, calibration, {}), calibration(logits, found)


def adopt_safety(classifier: TextClassifier, examples: Sequence[Example], matcher: WordMatcher) -> Safety:
    """A classifier that somebody else trained, calibrated on examples of ours."""
    texts = [e.text for e in examples]
    calibration = JointCalibration.fit(classifier.logits(texts), hits(matcher, texts), _unsafe(examples))
    return Safety(classifier, matcher, calibration, {})


def _fit(x: np.ndarray, unsafe: np.ndarray, l2: float) -> Logistic:
    return Logistic.fit(x, unsafe, half_each(unsafe), l2)


def _unsafe(examples: Sequence[Example]) -> np.ndarray:
    return np.array([e.unsafe for e in examples])


def folds_of(examples: Sequence[Example], seed: int) -> np.ndarray:
    """[N] fold of each example, by its group, or its text where it has none."""
    return np.array(
        [hashlib.sha256(f"{seed}:{e.group or e.text}".encode()).digest()[0] % FOLDS for e in examples]
    )


def hits(matcher: WordMatcher, texts: Sequence[str]) -> np.ndarray:
    """1 where the matcher finds a word, float64 [N]."""
    return np.array([float(bool(matcher.find(text))) for text in texts])


def half_each(unsafe: np.ndarray) -> np.ndarray:
    """Weights [N] by which unsafe and safe examples count the same; their mean is 1."""
    share = float(np.mean(unsafe))
    if share in (0.0, 1.0):
        raise UserError("safety: all examples are of one kind; give unsafe and safe ones (safety.files).")
    return np.where(unsafe, 0.5 / share, 0.5 / (1 - share))


def threshold_at(ordinary: np.ndarray, false_alarms: float) -> float:
    """The lowest threshold that at most this share of ordinary texts is above."""
    if not len(ordinary):
        return 0.5
    return float(np.sort(ordinary)[::-1][min(int(false_alarms * len(ordinary)), len(ordinary) - 1)])


def goes_along(reply: str) -> bool:
    """It begins as one that says yes, and declines nothing."""
    return bool(_AGREES.match(reply)) and not _DECLINES.search(reply)
