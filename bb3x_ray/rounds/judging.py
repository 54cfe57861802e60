"""Evaluation of one candidate: answers of every version (kept), the judge (made once), the verdict."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

import numpy as np

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.config import Config
from bb3x_ray.data.parts import part_of
from bb3x_ray.evaluate.adversarial import adversarial
from bb3x_ray.evaluate.gate import Perplexity, verdict
from bb3x_ray.evaluate.judge import Judge, Judgement, train_judge
from bb3x_ray.evaluate.judged import Replies, judge_pair, judge_set
from bb3x_ray.evaluate.nulls import BREVITY_SYSTEM_PROMPT, null_gallery
from bb3x_ray.evaluate.on_ray import answer_on_ray
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.evaluate.replies import Answers, Asking
from bb3x_ray.evaluate.sentences import sentences
from bb3x_ray.language.generation import Decoding
from bb3x_ray.registry import Registry
from bb3x_ray.reward.evidence import INAPPROPRIATE, evidence_of, thumbs
from bb3x_ray.reward.fold_judge import EncoderFoldJudge
from bb3x_ray.reward.trust import estimate_trust
from bb3x_ray.rounds.material import Material
from bb3x_ray.schemas.conversation import Conversation
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.simulate.panel import ask_panel, made_up_replies
from bb3x_ray.simulate.preference import Exchange, judge_exchanges
from bb3x_ray.storage import Storage

Say = Callable[[str], None]


def is_judges_person(pseudonym: str) -> bool:
    """People of the judge's part: their thumbs train the judge and nothing else (law 11)."""
    return part_of(pseudonym, seed=0) == "judge"


def may_teach(config: Config) -> Callable[[str], bool]:
    """person -> whether training may learn from them: not the judge's people, unless a panel judges."""
    if config.talk.people == "simulated":
        return lambda person: True
    return lambda person: not is_judges_person(person)


class Judging:
    """Everything that a verdict needs. `thumbs` are conversations with feedback of the judge's people."""

    def __init__(
        self, storage: Storage, models: Registry, material: Material, config: Config, say: Say
    ) -> None:
        self._storage, self._models, self._material, self._config = storage, models, material, config
        self._judges = Registry(storage, "judges")
        self._say = say

    @property
    def simulated(self) -> bool:
        return self._config.talk.people == "simulated"

    def verdict(self, candidate: str, champion: str, seed: int, thumbs: Sequence[Conversation]) -> Verdict:
        """Candidate against champion on sets A and B, the nulls and real people beside them."""
        self._material.check_independence()
        sets, config = self._material.sets, self._config.evaluate
        base = self._models.versions()[0]
        first, kept, new = self.answers(base), self.answers(champion), self.answers(candidate)
        brevity = self._brevity(base)
        judge, version = self.judge(first, thumbs)
        truth = self.truth if self.simulated else None
        nulls: dict[str, Sequence[str] | Replies] = {
            **null_gallery(sets.b, first.replies["B"].texts, brevity.replies["B"].texts),
            "brevity": brevity.replies["B"],
        }
        sides = {
            name: judge_set(
                prompts,
                new.replies[name],
                kept.replies[name],
                judge,
                base=first.replies[name],
                nulls=nulls if name == "B" else None,
                truth=truth,
            )
            for name, prompts in (("A", sets.a), ("B", sets.b))
        }
        return verdict(
            candidate,
            champion,
            set_a=sides["A"],
            set_b=sides["B"],
            perplexity=Perplexity(_known(new), _known(kept), _known(first)),
            self_pair=judge_pair(sets.a, first.replies["A"], first.replies["A again"], judge),
            config=config,
            seed=seed,
            judge_version=version,
            judge_report={**judge.report, **self.about_judge(version)},
        )

    def answers(self, version: str) -> Answers:
        """What `version` replies to both sets; the first version also answers twice, and the judge's part."""
        sets = self._material.sets
        prompts: dict[str, Sequence[Prompt]] = {"A": sets.a, "B": sets.b}
        if version == self._models.versions()[0]:
            prompts |= {"A again": sets.a, "judge": self._judge_prompts()}
        texts = self._material.perplexity_texts(self._config.evaluate.perplexity_messages)
        return self._kept_answers(version, version, prompts, texts, self._asking())

    def _brevity(self, base: str) -> Answers:
        asking = replace(self._asking(), system_prompt=BREVITY_SYSTEM_PROMPT)
        return self._kept_answers(f"{base}-brevity", base, {"B": self._material.sets.b}, [], asking)

    def _kept_answers(
        self, name: str, version: str, prompts: dict[str, Sequence[Prompt]], texts: list[str], asking: Asking
    ) -> Answers:
        path = f"evaluations/{name}"
        foretold = sha256("\n".join(texts).encode()).hexdigest()
        how = {
            "asking": asdict(asking),
            "prompts": self._material.sets.digest,
            "asked": {which: len(of_it) for which, of_it in prompts.items()},
            "foretold": foretold,
        }
        if self._storage.is_published(path):
            kept = self._storage.manifest(path)
            if any(kept.get(key, how[key]) != how[key] for key in how):
                raise UserError(
                    f"{self._storage.path(path)}: {name} answered under other settings (chat, model.dtype, "
                    "evaluate) or foretold other messages; go back to them, or remove that folder so that "
                    "every version answers anew."
                )
        else:
            count = sum(map(len, prompts.values()))
            self._say(f"{name} answers {count} prompts")
            found = answer_on_ray(
                self._models.folder(version),
                prompts,
                texts,
                asking,
                self._config.evaluate,
                on_wait=_every(20, lambda s: self._say(f"{name} is still answering ({s:.0f} s)")),
            )
            with self._storage.publish(path, **how) as folder:
                found.save(folder / "answers.json")
        return Answers.load(self._storage.verify(path) / "answers.json")

    def _asking(self) -> Asking:
        chat = self._config.chat
        decoding = Decoding(chat.max_new_tokens, chat.temperature, chat.top_p, self._config.seed + 1)
        return Asking(chat.system_prompt, decoding, chat.max_context_tokens, self._config.model.dtype)

    # The judge

    def judge(self, base: Answers, thumbs: Sequence[Conversation]) -> tuple[Judge, str]:
        """The judge of this storage root and its version: trained the first time that a verdict is asked for,
        and anew where annotators have said more since."""
        encoder = load_encoder(self._encoder)
        # A panel of simulated people learns nothing from annotators.
        annotated = 0 if self.simulated else sum(e.share_good is not None for e in evidence_of(thumbs))
        newest = (self._judges.versions() or [""])[-1]
        if newest and annotated <= self._judges.lineage(newest).get("annotated", 0):
            return Judge.load(self._judges.folder(newest), encoder), newest
        panel = self._panel(base, thumbs)
        self._say(f"the judge learns from {len(panel)} judgements")
        judge = train_judge(panel, encoder, self._config.seed + 17)
        about = {"independence": self._independence(), "simulated": self.simulated, "annotated": annotated}
        version = self._judges.reserve()
        card = f"# Judge {version}\n\n{about['independence']}\n\n" + "".join(
            f"- {name}: {value:.3f}\n" for name, value in judge.report.items()
        )
        with self._judges.publish(version, {**about, **judge.report}, card) as folder:
            judge.save(folder)
        return Judge.load(self._judges.folder(version), encoder), version

    def about_judge(self, version: str) -> dict[str, Any]:
        """How a judge came by its labels, as it was when it was made."""
        lineage = self._judges.lineage(version)
        return {key: lineage[key] for key in ("independence", "simulated")}

    @property
    def _encoder(self) -> str:
        return self._config.evaluate.encoder or self._config.reward.encoder

    def _independence(self) -> str:
        labels = (
            "a panel of simulated helpers who take no part in training; three of them judge each reply and "
            "the majority counts, so it is a slightly noisy copy of the hidden preference"
            if self.simulated
            else "what the trusted people of the judge's part said of replies, and annotators of replies to "
            "them; these people take no part in training, annotators rate replies of both parts. What is "
            "unsafe it learned from the written rule in simulate/preference.py, which shares its word list "
            "with the filter of what is imitated"
        )
        return (
            f"The judge is trained on {labels}. It was also shown echoes, templates, constants and first "
            f"sentences as replies to messages of its own part. {self._backbone()}"
        )

    def _backbone(self) -> str:
        if self._encoder != self._config.reward.encoder:
            return f"Its backbone is {self._encoder}, the reward model's is {self._config.reward.encoder}."
        return (
            "It shares its encoder, and with it the cosine that the hidden preference looks at, with the "
            "reward model: it is independent by data alone."
        )

    def _judge_prompts(self) -> list[Prompt]:
        standard = self._material.judge_prompts(self._config.evaluate.panel)
        hostile = [
            Prompt(f"judge-{p.id}", "adversarial", (p.text,), None, (p.id,)) for p in adversarial("judge")
        ]
        return [*standard, *hostile]

    def _panel(self, base: Answers, thumbs: Sequence[Conversation]) -> list[Judgement]:
        asked = self._exchanges(base)
        embed = load_encoder(self._config.reward.encoder).embed
        seed, noise = self._config.seed + 23, self._config.talk.noise if self.simulated else 0.0
        opinions = ask_panel(asked, embed, noise, seed)
        panel = [
            Judgement(o.exchange.context[-1], o.exchange.reply, o.good, o.unsafe, o.group) for o in opinions
        ]
        if self.simulated:
            return panel
        # Real people say what is good; what is unsafe follows the written rule.
        return [*self._from_thumbs(thumbs), *(replace(j, good=None) for j in panel)]

    def _from_thumbs(self, conversations: Sequence[Conversation]) -> list[Judgement]:
        """What raters said of the judge's people's talk, else the thumbs of those people, without those whom
        trust finds to be trolls."""
        evidence = evidence_of(conversations)
        signals = thumbs(evidence)
        judge = EncoderFoldJudge(load_encoder(self._encoder), signals)
        trust = estimate_trust(signals, judge, self._config.trust)
        found = []
        for e in evidence:
            asked, share = e.context.partition("\n")[0], e.share_good
            if share is not None and share != 0.5:
                unsafe = e.annotations.count(INAPPROPRIATE) * 2 > len(e.annotations)
                found.append(Judgement(asked, e.reply, share > 0.5, unsafe, e.person))
            elif share is None and e.thumb and e.person not in trust.distrusted:
                found.append(Judgement(asked, e.reply, e.thumb > 0, None, e.person))
        return found

    def _exchanges(self, base: Answers) -> dict[str, list[Exchange]]:
        prompts = self._judge_prompts()
        rng = random.Random(self._config.seed + 29)
        humans = [p.human_reply for p in prompts if p.human_reply]
        said = base.replies["judge"]
        exchanges: dict[str, list[Exchange]] = {}
        for p, text, reason in zip(prompts, said.texts, said.finish_reasons, strict=True):
            hostile = p.kind == "adversarial"
            whole = [p.human_reply, rng.choice(humans)] if p.human_reply else [rng.choice(humans)]
            first = sentences(text)[:1] if text else []
            replies = [*whole, *first, *made_up_replies(p.turns[-1], rng, hostile)]
            exchanges.setdefault(p.sources[0], []).extend(
                [Exchange(p.turns, text, hostile, reason == "length")]
                + [Exchange(p.turns, r, hostile) for r in replies if r]
            )
        # The judge must know people's ways of writing as well as a model's.
        between_people = self._material.exchanges("judge")
        rng.shuffle(between_people)
        for message, reply, conversation_id in between_people[: 3 * self._config.evaluate.panel]:
            other = rng.choice(between_people)[1]
            exchanges.setdefault(conversation_id, []).extend(
                [Exchange((message,), reply), Exchange((message,), other)]
            )
        return exchanges

    def truth(self, prompts: Sequence[Prompt], replies: Sequence[str], cut_off: Sequence[bool]) -> np.ndarray:
        """What the simulated people's hidden preference says, 0 to 1, [N]. It decides nothing."""
        embed = load_encoder(self._config.reward.encoder).embed
        asked = [
            Exchange(p.turns, reply, p.kind == "adversarial", cut)
            for p, reply, cut in zip(prompts, replies, cut_off, strict=True)
        ]
        return np.array([float(o.likes) for o in judge_exchanges(asked, embed)])


def _known(answers: Answers) -> float:
    if answers.perplexity is None:
        raise ValueError("these answers were kept without a perplexity")
    return answers.perplexity


def _every(seconds: float, say: Callable[[float], None]) -> Callable[[float], None]:
    """Call `say` about every so many seconds of waiting."""
    last = 0.0

    def wait(passed: float) -> None:
        nonlocal last
        if passed - last >= seconds:
            last = passed
            say(passed)

    return wait
