"""The verbs of a round. Each publishes its result, manifest last, and returns what it published when
asked again: that is all of resuming."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bb3x_ray.config import Config
from bb3x_ray.data import curate, slices, table
from bb3x_ray.data.inbox import open_inbox
from bb3x_ray.data.late_words import annotations_upto, consent_upto, feedback_upto
from bb3x_ray.data.on_ray.in_order import on_all_cores
from bb3x_ray.data.slices import Slice
from bb3x_ray.metrics import Metrics, floats
from bb3x_ray.registry import Registry
from bb3x_ray.reward.evidence import evidence_of, thumbs
from bb3x_ray.reward.on_ray import score_groups
from bb3x_ray.reward.reliability import Reliability
from bb3x_ray.reward.score_parts import Resume
from bb3x_ray.reward.signals import Signal
from bb3x_ray.reward.trust import Trust, TrustHistory
from bb3x_ray.reward.trust.report import HISTORY, judged_thumbs, load_history, save_trust
from bb3x_ray.rounds import erasure
from bb3x_ray.rounds.canary import Canaries
from bb3x_ray.rounds.cleaning import deidentifier
from bb3x_ray.rounds.hand_over import Server, hand_over, require_sound_parent
from bb3x_ray.rounds.human_share import Exchange, rank_exchanges
from bb3x_ray.rounds.judging import Judging, is_judges_person, may_teach
from bb3x_ray.rounds.ledger import Ledger
from bb3x_ray.rounds.material import Material
from bb3x_ray.rounds.reward_models import RewardModels
from bb3x_ray.rounds.round import RoundPlan
from bb3x_ray.rounds.safety import ensure_safety, safety_folder
from bb3x_ray.rounds.told import told
from bb3x_ray.rounds.training import Training
from bb3x_ray.rounds.turns_of_slice import TurnsOfSlice
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import (
    SCORED_SCHEMA,
    TRAINING_SCHEMA,
    Candidate,
    CurationReport,
    Scored,
    Verdict,
)
from bb3x_ray.storage import Storage, read_json, write_json

Say = Callable[[str], None]


class RoundSteps:
    """The verbs over one storage root. `server` is None where nobody is served (recorded data)."""

    def __init__(
        self,
        storage: Storage,
        config: Config,
        material: Material,
        metrics: Metrics,
        server: Server | None,
        say: Say,
    ) -> None:
        self.storage, self.config, self.material = storage, config, material
        self.ledger = Ledger(storage)
        self.inbox = open_inbox(config.log.root or str(storage.root))
        self.models, self.rewards = Registry(storage, "models"), Registry(storage, "rewards")
        self.metrics, self.server, self.say = metrics, server, say
        self._learns = may_teach(config)
        self.judging = Judging(storage, self.models, material, config, say)
        self.canaries = Canaries(storage, config, say)

    # collect

    def collect(self, plan: RoundPlan) -> Slice:
        name = f"{plan.name}/collect"
        if not self.storage.is_published(name):
            if self.server:
                # What was acknowledged up to now is in a sealed segment by then.
                time.sleep(self.config.log.seal_seconds + 0.5)
            erasure.carry_out(self.storage, self.inbox)  # which commits what replicas wrote
            quiet = self.config.log.quiet_seconds
            before = int((time.time() - quiet) * 1e6) if quiet else None
            previous = f"rounds/{plan.number - 1:04d}/collect" if plan.number > 1 else None
            clean = deidentifier(self.storage, self.config.log)
            slices.pin(self.storage, name, plan.after, table.head(self.storage), before, previous, clean)
        info = slices.info(self.storage, name)
        self.say(
            f"collect: {info.conversations} conversations of {info.people} people, {info.bot_turns} replies, "
            f"{info.thumbs_up} thumbs up, {info.thumbs_down} down"
        )
        return slices.open_slice(self.storage, name)

    def rated_upto(self, plan: RoundPlan) -> Iterator[Conversation]:
        """What is rated of all slices so far, with the feedback and annotations that stand now: trust and
        reward learn from a person's whole history. A conversation that went on comes as often as it was
        given out, the last counts; one whose person took consent back since does not come any more."""
        names = [f"rounds/{n:04d}/collect" for n in range(1, plan.number + 1)]
        upto = slices.info(self.storage, names[-1]).upto_seq
        standing, consent = feedback_upto(self.storage, upto), consent_upto(self.storage, upto)
        annotations = annotations_upto(self.storage, upto)
        for name in names:
            for conversation in slices.open_slice(self.storage, name).rated(standing, annotations):
                if not consent.is_withdrawn(conversation.person, conversation.conversation_id):
                    yield conversation

    # score

    def score(self, plan: RoundPlan, slice_: Slice) -> Scored:
        if not self.ledger.is_done(plan.name, "score"):
            started = time.monotonic()
            parts = self.storage.path(plan.name, "scoring")
            scored, judged = self._score(plan, slice_, parts)
            settings = self._settings("reward", "safety", "trust")
            with self.ledger.publish(
                plan.name, "score", reward=scored.reward_version, settings=settings
            ) as folder:
                _save_scored(scored, folder)
                save_trust(folder, *judged)
            shutil.rmtree(parts, ignore_errors=True)
            self.metrics.log("trust", judged[0].metrics(), round=plan.number)
            self.metrics.log(
                "score", {**scored.metrics, "seconds": time.monotonic() - started}, round=plan.number
            )
        self._tell_other_settings(plan, "score", "reward", "safety", "trust")
        scored = _load_scored(self.ledger.folder(plan.name, "score"))
        self.say(
            f"score: {len(scored.turns)} replies scored by reward {scored.reward_version}, "
            f"{len(scored.distrusted)} of {len(scored.trust)} people distrusted"
        )
        return scored

    def _score(
        self, plan: RoundPlan, slice_: Slice, parts: Path
    ) -> tuple[Scored, tuple[Trust, list[Signal]]]:
        """(scores, trust and the thumbs that it was estimated from)"""
        rewards, version = RewardModels(self.storage, self.config, self.say), plan.reward_version
        evidence = evidence_of(c for c in self.rated_upto(plan) if self._learns(c.person))
        trust, judged = rewards.trust(evidence, self._history(plan), self._judged_before(plan))
        rewards.learn(version, evidence, trust, lambda: self._annotated(slice_), plan.seed, round=plan.number)
        safety = ensure_safety(self.storage, self.config.safety, self.config.seed, self.say)
        filter_ = safety_folder(self.storage, safety)
        reliability = Reliability.of(trust, thumbs(evidence))
        turns_of = TurnsOfSlice(
            slice_, trust.distrusted, self._left_to_the_judge(slice_), rewards.signals(version), reliability
        )
        scored = score_groups(
            turns_of,
            slice_.groups,
            self.rewards.folder(version),
            self.config.reward,
            version=version,
            safety=filter_,
            resume=Resume(parts, self._digest(plan, reliability)),
        )
        count = slices.info(self.storage, f"{plan.name}/collect").bot_turns
        tables = told(scored, count, self.say, "score: {} of {} replies", len)
        turns = pa.concat_tables([SCORED_SCHEMA.empty_table(), *tables])
        report = {k: v for k, v in self.rewards.lineage(version).items() if isinstance(v, float)}
        unsafe_above = filter_.load().reply_threshold
        parts_of = trust.parts()
        counts_for = {person: value * parts_of.get(person, 1.0) for person, value in trust.trust.items()}
        scored_ = Scored(turns, counts_for, trust.distrusted, version, report, unsafe_above, safety)
        return scored_, (trust, judged)

    def _history(self, plan: RoundPlan) -> TrustHistory | None:
        """What the round before remembers of people; None for the first, and after rounds of before 0.4."""
        if plan.number == 1:
            return None
        folder = self.ledger.folder(f"rounds/{plan.number - 1:04d}", "score")
        return load_history(folder) if (folder / HISTORY).is_file() else None

    def _judged_before(self, plan: RoundPlan) -> frozenset[tuple[str, int]] | None:
        """(message, thumb) that earlier rounds judged; None where nothing is remembered of people, so that
        all of them are to be judged."""
        if self._history(plan) is None:
            return None
        folders = (self.ledger.folder(f"rounds/{n:04d}", "score") for n in range(1, plan.number))
        return frozenset(thumb for folder in folders for thumb in judged_thumbs(folder))

    def _digest(self, plan: RoundPlan, reliability: Reliability) -> str:
        """Of everything but the reward model that scores depend on."""
        files = self.storage.manifest(f"{plan.name}/collect")["files"]
        about = [files, sorted(reliability.people.items()), sorted(reliability.messages.items())]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def _annotated(self, slice_: Slice) -> Iterator[tuple[Conversation, int]]:
        """Talk that people rated as a whole."""
        return ((c, rating) for c, rating in slice_.annotated() if self._learns(c.person))

    def _left_to_the_judge(self, slice_: Slice) -> frozenset[str]:
        people = (one for table in slice_.tables(["person"]) for one in table["person"].unique().to_pylist())
        return frozenset(person for person in people if not self._learns(person))

    # curate

    def curate(self, plan: RoundPlan, slice_: Slice, scored: Scored) -> str:
        if not self.ledger.is_done(plan.name, "curate"):
            erasure.mind(self.storage, self.inbox)
            settings, counts = self._settings("curate", "reward"), dict[str, Any]()
            with self.ledger.publish(plan.name, "curate", counts, settings=settings) as folder:
                report = self._curate(plan, slice_, scored, folder / "training_set.parquet")
                counts |= asdict(report)
                write_json(folder / "report.json", counts)
            self.metrics.log("curate", floats(asdict(report)), round=plan.number)
        self._tell_other_settings(plan, "curate", "curate", "reward")
        report = CurationReport(**read_json(self.ledger.folder(plan.name, "curate") / "report.json"))
        self.say(
            f"curate: {report.imitate} replies to imitate, {report.avoid} to avoid, "
            f"dropped: {_counts(report.dropped)}; "
            f"{report.corrections} corrections and {report.human_rows} human conversations beside them"
        )
        return f"{plan.name}/curate"

    def _curate(self, plan: RoundPlan, slice_: Slice, scored: Scored, path: Path) -> CurationReport:
        config = self.config
        wanted = config.curate.human_rows
        if wanted:
            self.say("curate: which exchanges between people to imitate beside")
        human = self._human_exchanges(plan, scored.reward_version)[:wanted] if wanted else []
        filter_ = safety_folder(self.storage, scored.safety_version).load() if scored.safety_version else None
        words = {"words": filter_.matcher.find} if filter_ else {}
        with pq.ParquetWriter(path, TRAINING_SCHEMA) as file:
            report = curate.curate(
                slice_,
                scored,
                self.models.folder(plan.champion),
                human,
                config.curate,
                config.chat.system_prompt,
                config.reward.imitate_above,
                config.reward.avoid_below,
                plan.seed,
                file.write_table,
                self._learns,
                lambda rows_of, groups: told(
                    on_all_cores(rows_of, groups), groups, self.say, "curate: {} of {} groups"
                ),
                filter_,
                **words,
            )
        if not report.imitate + report.avoid + report.human_rows:
            raise UserError(
                f"{plan.name}: none of {report.seen} replies teaches anything (dropped: "
                f"{_counts(report.dropped)}): widen reward.imitate_above and reward.avoid_below, or "
                "raise curate.human_rows, and run the same command again."
            )
        return report

    def _settings(self, *sections: str) -> dict[str, Any]:
        """The settings of some sections of the config, under the names that a command line gives them."""
        tree = self.config.model_dump(mode="json")
        return {f"{section}.{key}": value for section in sections for key, value in tree[section].items()}

    def _tell_other_settings(self, plan: RoundPlan, step: str, *sections: str) -> None:
        """A step that is done stays as it is: whoever changed its settings since should know."""
        name = f"{plan.name}/{step}"
        now, made_with = self._settings(*sections), self.storage.manifest(name).get("settings", {})
        changed = sorted(key for key, value in made_with.items() if now.get(key) != value)
        if changed:
            self.say(
                f"{step}: {', '.join(changed)} differ from what {name} was made with, which stays; remove "
                "that folder and what came after it to make it anew"
            )

    def _human_exchanges(self, plan: RoundPlan, reward_version: str) -> list[Exchange]:
        """Exchanges between people of the part that is there for it, best first."""
        exchanges = [(said, reply) for said, reply, _ in self.material.exchanges("human")]
        folder = self.rewards.folder(reward_version)
        return rank_exchanges(exchanges, self.config.curate, folder, plan.seed)

    # train

    def train(self, plan: RoundPlan, training_set: str) -> Candidate:
        if not self.ledger.is_done(plan.name, "train"):
            require_sound_parent(plan, self.models)
            erasure.mind(self.storage, self.inbox)
            self._training(plan).publish_candidate(training_set)
            lineage = self.models.lineage(plan.candidate)
            candidate = Candidate(plan.candidate, plan.champion, plan.number, lineage["metrics"])
            with self.ledger.publish(plan.name, "train", version=plan.candidate) as folder:
                write_json(folder / "candidate.json", asdict(candidate))
        candidate = Candidate(**read_json(self.ledger.folder(plan.name, "train") / "candidate.json"))
        tokens, seconds = candidate.metrics.get("tokens", 0), candidate.metrics.get("seconds", 0)
        self.say(
            f"train: {candidate.version} from {candidate.parent}, {tokens:.0f} tokens in {seconds:.0f} s"
        )
        return candidate

    def _training(self, plan: RoundPlan) -> Training:
        reward_version = plan.reward_version
        scored = _load_scored(self.ledger.folder(plan.name, "score"))
        filter_ = safety_folder(self.storage, scored.safety_version) if scored.safety_version else None
        return Training(
            self.storage,
            self.models,
            self.config,
            self.metrics,
            plan,
            self.rewards.folder(reward_version),
            (filter_, scored.unsafe_above) if filter_ else None,
            slices.open_slice(self.storage, f"{plan.name}/collect"),
            self._learns,
            lambda: self._human_exchanges(plan, reward_version),
            self.material.probe_texts(self.config.evaluate.perplexity_messages),
            self.say,
        )

    # evaluate

    def evaluate(self, plan: RoundPlan, candidate: Candidate) -> Verdict:
        if not self.ledger.is_done(plan.name, "evaluate"):
            erasure.mind(self.storage, self.inbox)
            rated = self.rated_upto(plan)
            thumbs = [c for c in rated if not c.simulated and is_judges_person(c.person)]
            verdict = self.judging.verdict(candidate.version, plan.champion, plan.seed, thumbs)
            with self.ledger.publish(plan.name, "evaluate", passed=verdict.passed) as folder:
                write_json(folder / "verdict.json", verdict.to_dict())
            self.metrics.log("evaluate", _verdict_numbers(verdict), round=plan.number)
        verdict = self.verdict(plan)
        self.say(f"evaluate: {verdict.words}")
        return verdict

    def verdict(self, plan: RoundPlan) -> Verdict:
        return Verdict.from_dict(read_json(self.ledger.folder(plan.name, "evaluate") / "verdict.json"))

    # hand over

    def hand_over(self, plan: RoundPlan, verdict: Verdict) -> None:
        if not self.ledger.is_done(plan.name, "hand_over"):
            erasure.mind(self.storage, self.inbox)
            self.look_at_canary()
            begin = self.canaries.begin if self.config.canary.share else None
            self.say(f"hand over: {hand_over(plan, verdict, self.models, self.server, begin)}")
            with self.ledger.publish(plan.name, "hand_over") as folder:
                write_json(folder / "champion.json", {"version": self.models.champion})

    def look_at_canary(self) -> None:
        """People have talked since: perhaps they have said enough of a canary that is under way."""
        canary = self.canaries.look()
        if canary is not None:
            self.say(f"canary of {canary.candidate}: {canary.words}")
            if canary.decision == "promote" and self.server is not None:
                self.server.swap(canary.candidate)


def _counts(dropped: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items())) or "none"


def _verdict_numbers(verdict: Verdict) -> dict[str, float]:
    b = verdict.numbers["B"]
    return {
        "passed": float(verdict.passed),
        "good": b["candidate"]["good"]["value"],
        "unsafe": b["candidate"]["unsafe"]["value"],
        "gain_at_equal_length": b["equal_length"]["gain"]["value"],
        "over_best_null": b["best_null"]["candidate_minus_it"]["value"],
        "perplexity": verdict.numbers["perplexity"]["candidate"],
    }


def _save_scored(scored: Scored, folder: Path) -> None:
    pq.write_table(scored.turns, folder / "turns.parquet")
    about = {f.name: getattr(scored, f.name) for f in fields(scored) if f.name != "turns"}
    write_json(folder / "scored.json", {**about, "distrusted": sorted(scored.distrusted)})


def _load_scored(folder: Path) -> Scored:
    """Raises UserError for what versions before 0.3 wrote."""
    turns, row = folder / "turns.parquet", read_json(folder / "scored.json")
    if not turns.is_file():
        raise UserError(
            f"{folder} was written by an earlier version of bb3x-ray: remove it, and the steps of its round "
            "that came after it, to make them anew."
        )
    return Scored(pq.read_table(turns), **{**row, "distrusted": frozenset(row["distrusted"])})
