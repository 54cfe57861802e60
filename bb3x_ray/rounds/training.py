"""The train step of a round: the mix, then CRINGE iterations, the last kept one of which is the candidate.

iteration 1: champion ─► the round's set ─► weights
iteration n: the weights answer the round's messages ─► reward ─► set + chosen answers ─► weights

Under rounds/NNNN/iterations/n/ lie, each published when it is whole: `answers` (from the second on), `set`,
`weights` (until the candidate is published), `result`.
"""

import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bb3x_ray.classify.safety import SafetyFolder
from bb3x_ray.config import Config
from bb3x_ray.data.answers import Choice, learn_from_answers, questions
from bb3x_ray.data.late_words import consent_upto
from bb3x_ray.data.mix import HUMAN, SAFETY, by_source, describe, labelled_turns, mix, shares
from bb3x_ray.data.row_ids import conversation_of
from bb3x_ray.data.safety_pairs import load_safety_pairs
from bb3x_ray.data.slices import Slice, info
from bb3x_ray.data.training_rows import talk_rows
from bb3x_ray.evaluate.on_ray import answer_on_ray
from bb3x_ray.evaluate.replies import Asking
from bb3x_ray.language.generation import Decoding
from bb3x_ray.metrics import Metrics, floats
from bb3x_ray.registry import Registry
from bb3x_ray.reward.on_ray import score_turns
from bb3x_ray.reward.signals import context_text
from bb3x_ray.reward.turns import TURNS_SCHEMA
from bb3x_ray.rounds.human_share import Exchange
from bb3x_ray.rounds.round import RoundPlan
from bb3x_ray.schemas.learning import TRAINING_SCHEMA
from bb3x_ray.storage import MANIFEST, Storage, read_json, write_json
from bb3x_ray.train.on_ray import forget, train
from bb3x_ray.train.on_ray.answers import answer_questions

SAMPLES = 10
_SUMMED = (
    "steps",
    "tokens",
    "labelled_tokens",
    "labelled_turns",
    "seconds",
    "startup_seconds",
    "export_seconds",
)


class Training:
    """Trains the candidate of one round.

    safety          what checks its answers before any is imitated, and above what they count as unsafe
    slice_, learns  what the round learns from: the candidate answers the messages of these people again
    human           exchanges between people, best first
    probe           human messages for the perplexity that stops iterations; the gates look at others
    """

    def __init__(
        self,
        storage: Storage,
        models: Registry,
        config: Config,
        metrics: Metrics,
        plan: RoundPlan,
        reward_folder: Path,
        safety: tuple[SafetyFolder, float] | None,
        slice_: Slice,
        learns: Callable[[str], bool],
        human: Callable[[], list[Exchange]],
        probe: list[str],
        say: Callable[[str], None],
    ) -> None:
        self._storage, self._models, self._config, self._metrics = storage, models, config, metrics
        self._plan, self._reward_folder, self._safety, self._say = plan, reward_folder, safety, say
        self._slice, self._learns, self._human, self._probe = slice_, learns, human, probe

    def publish_candidate(self, training_set: str) -> None:
        """Carry out what is not done yet, publish the candidate, remove the weights that led to it."""
        plan, models = self._plan, self._models
        if not models.is_published(plan.candidate):
            results = self._iterations(training_set)
            kept = [result for result in results if result["kept"]]
            lineage = {
                "parent": plan.champion,
                "round": plan.number,
                "training_set": training_set,
                "reward": self._reward_folder.name,
                "mix": self._storage.manifest(self._name(1, "set"))["mix"],
                "iterations": results,
                "metrics": _total([result["metrics"] for result in results], kept[-1]["metrics"]),
            }
            weights = self._storage.verify(self._name(len(kept), "weights"))
            with models.publish(plan.candidate, lineage, _card(plan, self._config, len(kept))) as folder:
                _link(weights, folder)
        for n in range(1, self._config.train.iterations + 1):
            self._storage.discard(self._name(n, "weights"))

    def _name(self, n: int, what: str) -> str:
        return f"{self._plan.name}/iterations/{n}/{what}"

    def _iterations(self, training_set: str) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        parent = self._models.folder(self._plan.champion)
        for n in range(1, self._config.train.iterations + 1):
            if n == 1:
                self._mixed_set(training_set)
            elif not self._answers_set(n, parent):
                self._say(
                    "train: no answer of the candidate teaches anything, so this was the last iteration"
                )
                break
            self._learn(n, parent)
            results.append(self._result(n))
            if results[-1].get("stop"):
                break
            parent = self._storage.verify(self._name(n, "weights"))
        return results

    # What an iteration learns from

    def _mixed_set(self, training_set: str) -> None:
        name, plan = self._name(1, "set"), self._plan
        if not self._storage.is_published(name):
            own, before = _read(self._storage.verify(training_set)), self._earlier()
            pools = {HUMAN: lambda count: self._human_rows(0, count), SAFETY: lambda _: self._safety_rows()}
            table, given = mix(own, before, pools, self._config.train.mix, plan.seed)
            wanted = [entry.model_dump(mode="json") for entry in self._config.train.mix]
            with self._storage.publish(name, mix=given, wanted=wanted) as folder:
                pq.write_table(table, folder / "training_set.parquet")
        manifest = self._storage.manifest(name)
        given = manifest["mix"]
        if manifest.get("wanted") != [entry.model_dump(mode="json") for entry in self._config.train.mix]:
            self._say(f"train: train.mix differs from what {name} was made with, which stays as it is")
        self._metrics.log("mix", floats(given), round=plan.number)
        self._say(f"train: the mix, by labelled turns: {describe(given)}")

    def _earlier(self) -> pa.Table:
        """The sets of earlier rounds, where the mix draws from any, without those who took consent back, and
        without rounds whose candidate is in quarantine."""
        tables = [TRAINING_SCHEMA.empty_table()]
        if any(entry.source not in (HUMAN, SAFETY) for entry in self._config.train.mix):
            upto = info(self._storage, f"{self._plan.name}/collect").upto_seq
            consent = consent_upto(self._storage, upto)
            for n in sorted(set(range(1, self._plan.number)) - self._models.quarantined_rounds()):
                if self._storage.is_published(f"rounds/{n:04d}/curate"):
                    rows = _read(self._storage.verify(f"rounds/{n:04d}/curate"))
                    names = zip(rows["person"].to_pylist(), rows["row_id"].to_pylist(), strict=True)
                    kept = [not consent.is_withdrawn(one, conversation_of(row_id)) for one, row_id in names]
                    tables.append(rows.filter(pa.array(kept, pa.bool_())))
        return pa.concat_tables(tables)

    def _answers_set(self, n: int, parent: Path) -> bool:
        """The set of iteration `n`; False when no answer is in it."""
        name = self._name(n, "set")
        if not self._storage.is_published(name):
            own = _read(self._storage.verify(self._name(1, "set")))
            config = self._config
            choice = Choice(
                config.reward.imitate_above,
                config.reward.avoid_below,
                config.curate.max_avoid_per_imitate,
                config.train.objective == "pairwise_cringe",
                self._safety[1] if self._safety else 1.0,
            )
            answers = self._answers(n, parent)
            more = self._more_human(own, answers.num_rows)
            table, report = learn_from_answers(own, answers, more, self._tokenizer, choice, self._plan.seed)
            with self._storage.publish(name, mix=shares(by_source(table)), **asdict(report)) as folder:
                pq.write_table(table, folder / "training_set.parquet")
        manifest = self._storage.manifest(name)
        dropped = ", ".join(f"{count} {reason}" for reason, count in manifest["dropped"].items()) or "none"
        self._say(
            f"train: iteration {n}: {manifest['seen']} answers of the candidate, {manifest['imitate']} to "
            f"imitate, {manifest['avoid']} to avoid, dropped: {dropped}; {manifest['human_rows']} more human "
            "conversations beside them"
        )
        return bool(manifest["imitate"] + manifest["avoid"])

    def _answers(self, n: int, parent: Path) -> pa.Table:
        """What the weights in `parent` say to the round's messages, scored by the reward model."""
        name, config = self._name(n, "answers"), self._config
        if not self._storage.is_published(name):
            started = time.monotonic()
            asked = self._questions(n)
            self._say(f"train: iteration {n}: the candidate answers {asked.num_rows} messages of the round")
            chat = config.chat
            decoding = Decoding(chat.max_new_tokens, chat.temperature, chat.top_p, self._plan.seed + n)
            said = answer_questions(parent, asked, decoding, config.train.answers, config.model.dtype)
            scored = self._score(said)
            with self._storage.publish(name) as folder:
                pq.write_table(scored, folder / "answers.parquet")
                write_json(folder / "samples.json", _samples(scored, self._plan.seed))
            numbers = {
                "answers": scored.num_rows,
                "good": pc.mean(scored["good"]).as_py() or 0.0,
                "seconds": time.monotonic() - started,
            }
            self._metrics.log("answers", numbers, round=self._plan.number, iteration=n)
        return pq.read_table(self._storage.verify(name) / "answers.parquet")

    def _questions(self, n: int) -> pa.Table:
        config = self._config
        return questions(
            lambda: (c for c in self._slice.conversations() if self._learns(c.person)),
            context_text,
            self._tokenizer,
            config.chat.system_prompt,
            min(config.chat.max_context_tokens, config.curate.max_tokens - config.chat.max_new_tokens - 2),
            config.train.answers.contexts,
            config.train.answers.per_context,
            self._plan.seed + n,
        )

    def _score(self, said: pa.Table) -> pa.Table:
        """`said` with its scores: no thumb, and no next message, can help the reward model here."""
        rows = said.num_rows
        turns = pa.table(
            {
                "conversation_id": said["conversation_id"],
                "message_id": said["answer_id"],
                "person": said["person"],
                "context": said["context"],
                "reply": said["text"],
                "after": pa.nulls(rows, pa.string()),
                "rating": pa.nulls(rows, pa.int8()),
                "evidence": pa.nulls(rows, pa.float64()),
                "trusted": pa.array([True] * rows, pa.bool_()),
            },
            schema=TURNS_SCHEMA,
        )
        reward = self._config.reward
        safety = self._safety[0] if self._safety else None
        scored = score_turns(turns, self._reward_folder, reward, safety=safety)
        for column in ("good", "unsafe", "error"):
            said = said.set_column(
                said.schema.get_field_index(column), said.schema.field(column), scored[column]
            )
        return said

    def _more_human(self, own: pa.Table, turns: int) -> pa.Table:
        """Human exchanges that `own` does not hold, as many as keep their share beside `turns` more."""
        held = pc.sum(pc.equal(own["source"], HUMAN)).as_py() or 0
        machine = max(1, labelled_turns(own) - held)
        # Behind all that the round was offered, for some of those did not fit.
        return self._human_rows(max(held, self._config.curate.human_rows), -(-turns * held // machine))

    def _human_rows(self, first: int, count: int) -> pa.Table:
        config = self._config
        exchanges = self._human()[first : first + count]
        return talk_rows(
            exchanges, self._tokenizer, config.curate.max_tokens, config.chat.system_prompt, HUMAN, first
        )

    def _safety_rows(self) -> pa.Table:
        config = self._config
        pairs = [(pair.context, pair.reply) for pair in load_safety_pairs()]
        return talk_rows(pairs, self._tokenizer, config.curate.max_tokens, config.chat.system_prompt, SAFETY)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            self._models.folder(self._plan.champion)
        )
        return tokenizer

    # Learning

    def _learn(self, n: int, parent: Path) -> None:
        name, plan = self._name(n, "weights"), self._plan
        run_name = f"{self._config.name}-round-{plan.number:04d}-iteration-{n}"
        storage_path = self._storage.path(plan.name, "training")
        if not self._storage.is_published(name):
            training_set = self._storage.verify(self._name(n, "set")) / "training_set.parquet"
            with self._storage.publish(name) as folder:
                metrics = train(
                    training_set,
                    parent,
                    folder,
                    self._config.train,
                    run_name=run_name,
                    storage_path=storage_path,
                    seed=plan.seed,
                    on_step=lambda step: self._on_step(n, step),
                )
                write_json(folder / "training.json", metrics)
        forget(run_name, storage_path)

    def _on_step(self, n: int, step: Mapping[str, Any]) -> None:
        numbers = floats(step)
        at = int(numbers.pop("step", 0))
        self._metrics.log("train", numbers, round=self._plan.number, iteration=n, step=at)
        left = (int(numbers.get("steps", 0)) - at) * numbers.get("seconds", 0.0)
        which = f"iteration {n}, " if self._config.train.iterations > 1 else ""
        self._say(
            f"train: {which}step {at} of {int(numbers.get('steps', 0))}, loss {numbers.get('loss', 0):.3f}, "
            f"about {left / 60:.0f} min left"
        )

    def _result(self, n: int) -> dict[str, Any]:
        """{iteration, metrics, kept}; where more are asked for, human perplexity and {stop} as well."""
        name = self._name(n, "result")
        if not self._storage.is_published(name):
            weights = self._storage.path(self._name(n, "weights"))
            result = {"iteration": n, "metrics": read_json(weights / "training.json"), "kept": True}
            if self._config.train.iterations > 1:
                before, now = self._champions_perplexity(), self._perplexity(weights)
                stop = not now <= self._config.train.perplexity_stop * before
                # The first is all there is: it is judged, whatever it became.
                result |= {
                    "perplexity": now,
                    "champions_perplexity": before,
                    "stop": stop,
                    "kept": n == 1 or not stop,
                }
            with self._storage.publish(name) as folder:
                write_json(folder / "result.json", result)
            self._metrics.log("iteration", floats(result), round=self._plan.number)
        result = read_json(self._storage.verify(name) / "result.json")
        if "perplexity" in result:
            self._say(
                f"train: iteration {n}: human perplexity {result['perplexity']:.1f}, the champion's "
                f"{result['champions_perplexity']:.1f}"
                + ("" if not result["stop"] else "; it rose too far, so this is the last iteration")
                + ("" if result["kept"] else ", and it is undone")
            )
        return result

    def _champions_perplexity(self) -> float:
        first = self._name(1, "result")
        if self._storage.is_published(first):
            return float(read_json(self._storage.verify(first) / "result.json")["champions_perplexity"])
        return self._perplexity(self._models.folder(self._plan.champion))

    def _perplexity(self, folder: Path) -> float:
        config = self._config
        asking = Asking("", Decoding(1), config.chat.max_context_tokens, config.model.dtype)
        found = answer_on_ray(folder, {}, self._probe, asking, config.evaluate).perplexity
        if found is None:
            raise ValueError("perplexity needs human messages")
        return found


def _read(folder: Path) -> pa.Table:
    return pq.read_table(folder / "training_set.parquet").cast(TRAINING_SCHEMA)


def _samples(answers: pa.Table, seed: int) -> list[dict[str, Any]]:
    rows = answers.select(["person", "context", "text", "good"]).to_pylist()
    return random.Random(seed).sample(rows, min(SAMPLES, len(rows)))


def _total(each: list[dict[str, float]], last: dict[str, float]) -> dict[str, float]:
    """The last kept iteration's metrics, with work and time summed over all."""
    summed = {key: sum(metrics[key] for metrics in each) for key in _SUMMED if key in last}
    return {**last, **summed, "iterations": len(each)}


def _link(source: Path, target: Path) -> None:
    """The files of a published folder under a second name; copied where the file system has no links."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name not in (MANIFEST, "training.json"):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)


def _card(plan: RoundPlan, config: Config, iterations: int) -> str:
    """The model card, in the hub's format."""
    people = "simulated people" if config.talk.people == "simulated" else "people"
    train = config.train
    return (
        f"---\ntags: [bb3x-ray, cringe]\n---\n# {plan.candidate}\n\n"
        f"Trained by CRINGE in round {plan.number} from {plan.champion}, on what {people} said of its "
        "replies.\n"
        f"Training set: `{plan.name}/curate`. Verdict: `{plan.name}/evaluate/verdict.json`.\n\n"
        f"Objective: {train.objective}, α {train.alpha:g}, k {train.k}, lr {train.lr:g}, "
        f"{iterations} iteration(s) of {train.epochs} epoch(s), ZeRO stage {train.zero_stage}.\n\n"
        "It may say false or hurtful things; see the verdict for how often it did on the prompt sets.\n"
    )
