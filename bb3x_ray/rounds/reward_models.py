"""Reward models of a storage root: learned from all that people said of replies, kept as versions.

fold models ─► trust per person ─► signals (evidence weighed by trust) ─► reward model
"""

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pair_model import load_pair_model
from bb3x_ray.config import Config
from bb3x_ray.registry import Registry
from bb3x_ray.reward.evidence import Evidence, thumbs
from bb3x_ray.reward.examples import examples_of, weak_examples
from bb3x_ray.reward.fold_judge import MOST, EncoderFoldJudge
from bb3x_ray.reward.on_ray import train_on_ray
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.reward.reward_model import check
from bb3x_ray.reward.reward_report import measured_on, measures_table, reward_card
from bb3x_ray.reward.signal_model import SignalModel, fit_signals
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import Trust, TrustHistory, estimate_trust
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.storage import Storage, read_json, write_json

_SIGNALS = "signals.json"
# Whole conversations' ratings teach where fewer replies than this were rated themselves: with more they cost
# more embedding than they are worth.
FEW = 200


class RewardModels:
    """Ray must be running to learn."""

    def __init__(self, storage: Storage, config: Config, say: Callable[[str], None]) -> None:
        self._storage, self._config, self._say = storage, config, say
        self.registry = Registry(storage, "rewards")

    def trust(
        self,
        evidence: Sequence[Evidence],
        history: TrustHistory | None = None,
        before: Collection[tuple[str, int]] | None = None,
    ) -> tuple[Trust, list[Signal]]:
        """Whom to trust, by their thumbs, and the thumbs that were judged.

        history   what earlier rounds found out about people
        before    (message, thumb) that they judged; None: none
        """
        signals = thumbs(evidence)
        judged = [s for s in signals if (s.message_id, s.label) not in (before or ())]
        earlier = [s for s in signals if (s.message_id, s.label) in (before or ())][-MOST:]
        self._say(f"score: whom to trust, by {len(judged)} thumbs{' since the round before' * bool(history)}")
        judge = EncoderFoldJudge(load_encoder(self._config.reward.encoder), [*judged, *earlier])
        return estimate_trust(judged, judge, self._config.trust, history, earlier), judged

    def learn(
        self,
        version: str,
        evidence: Sequence[Evidence],
        trust: Trust,
        rated_as_a_whole: Callable[[], Iterable[tuple[Conversation, int]]],
        seed: int,
        **lineage: Any,
    ) -> None:
        """Publish `version`, unless it is there already."""
        if self.registry.is_published(version):
            return
        reliability = Reliability.of(trust, thumbs(evidence))
        signals = fit_signals(evidence, reliability)
        examples = examples_of(evidence, signals, reliability, trust.distrusted, seed)
        if sum(example.label is not None for example in examples) < FEW:
            examples += weak_examples(rated_as_a_whole(), trust.distrusted)
        self._say(f"score: reward {version} learns from {len(examples)} replies")
        with self._storage.scratch() as made:
            report = train_on_ray(examples, self._config.reward, made / "model", seed, made)
            write_json(made / "model" / _SIGNALS, signals.to_dict())
            with self.registry.publish(
                version, {**lineage, **report}, reward_card(report, version, self._config.reward.learn)
            ) as folder:
                shutil.copytree(made / "model", folder, dirs_exist_ok=True)

    def signals(self, version: str) -> SignalModel:
        """How that version's evidence became labels; the starting values for versions from before 0.4."""
        path = self.registry.folder(version) / _SIGNALS
        return SignalModel.from_dict(read_json(path)) if path.is_file() else SignalModel()


def measured_in(evidence: Sequence[Evidence], folder: Path, seed: int) -> str:
    """How well the reward model in `folder` predicts what people said, as a table in Markdown.

    Raises UserError for talk without labels of both kinds.
    """
    examples = examples_of(evidence, SignalModel(), Reliability(), (), seed)
    labelled = [e for e in examples if e.label is not None]
    check(labelled)
    report = measured_on(labelled, load_pair_model(folder), seed)
    about = (
        f"{report['labels']:.0f} labels ({report['labels_good']:.0f} good) of {report['people']:.0f} people"
    )
    return f"{about}\n\n{measures_table(report)}"
