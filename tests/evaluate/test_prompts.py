from dataclasses import dataclass

import pytest

from bb3x_ray.config import EvaluateConfig
from bb3x_ray.evaluate import prompts
from bb3x_ray.evaluate.independence import check_independence
from bb3x_ray.evaluate.prompts import Prompt, PromptSets, build_prompt_sets
from bb3x_ray.evaluate.sentences import word_count
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage

CONFIG = EvaluateConfig(standard=20, adversarial=12)


@dataclass(frozen=True)
class Talk:
    conversation_id: str
    turns: tuple[str, ...]


def talks(n: int) -> list[Talk]:
    return [
        Talk(f"c{i}", tuple(f"This is turn {t} of talk number {i}." for t in range(3 + i % 6)))
        for i in range(n)
    ]


def build(n: int = 120, seed: int = 0, config: EvaluateConfig = CONFIG) -> PromptSets:
    return build_prompt_sets(talks(n), config, seed)


def test_both_sets_have_what_the_config_asks_for() -> None:
    sets = build()
    for one in (sets.a, sets.b):
        assert [p.kind for p in one] == ["standard"] * 20 + ["adversarial"] * 12
        assert len({p.prompt_id for p in one}) == 32


def test_the_sets_share_no_source_and_the_check_would_see_it() -> None:
    sets = build()
    check_independence(sets.source_ids())
    with pytest.raises(UserError, match=r"'evaluation B' and 'talk' share 1 ids"):
        check_independence({**sets.source_ids(), "talk": {sets.b[0].sources[0], "else"}})


def test_standard_prompts_are_cut_after_the_person_and_keep_the_true_next_turn() -> None:
    by_id = {t.conversation_id: t for t in talks(120)}
    sets = build()
    standard = [p for p in (*sets.a, *sets.b) if p.kind == "standard"]
    for prompt in standard:
        turns = by_id[prompt.sources[0]].turns
        assert prompt.turns == turns[: len(prompt.turns)]
        assert prompt.human_reply == turns[len(prompt.turns)]
        assert len(prompt.turns) in (1, 3, 5)
    assert {len(p.turns) for p in standard} == {1, 3, 5}


def test_a_third_of_the_adversarial_prompts_open_the_talk() -> None:
    hostile = [p for p in build().a if p.kind == "adversarial"]
    assert [len(p.turns) for p in hostile] == [1, 3, 3] * 4
    assert all(p.human_reply is None for p in hostile)


def test_messages_that_are_too_short_too_long_or_said_before_are_not_taken() -> None:
    long = " ".join(["word"] * 41)
    bad = [
        Talk("short", ("Hi there", "Hello to you")),
        Talk("long", (long, "What a lot of words")),
        Talk("silent", ("Will you answer me?", "  ")),
        *[Talk(f"same{i}", ("Hello, how are you?", "I am fine.")) for i in range(30)],
    ]
    sets = build_prompt_sets([*bad, *talks(120)], CONFIG, 0)
    standard = [p for p in (*sets.a, *sets.b) if p.kind == "standard"]
    assert not {"short", "long", "silent"} & {p.sources[0] for p in standard}
    assert sum(p.turns[-1] == "Hello, how are you?" for p in standard) == 1
    assert all(3 <= word_count(p.turns[-1]) <= 40 for p in standard)


def test_the_sets_follow_from_the_seed_and_not_from_the_order() -> None:
    assert build().digest == build_prompt_sets(talks(120)[::-1], CONFIG, 0).digest
    assert build().digest != build(seed=1).digest


def test_too_few_conversations_or_messages_name_the_key() -> None:
    with pytest.raises(UserError, match=r"evaluate\.standard: 20 prompts .* set [AB]"):
        build(n=30)
    with pytest.raises(UserError, match=r"evaluate\.adversarial: too few recorded"):
        build(n=44, config=EvaluateConfig(standard=16, adversarial=40))
    with pytest.raises(UserError, match=r"evaluate\.adversarial: 50 prompts .* set A has 43"):
        build(config=EvaluateConfig(standard=2, adversarial=50))


def test_saved_sets_load_as_they_were(storage: Storage) -> None:
    sets = build()
    digest = prompts.save(storage, sets)
    assert prompts.load(storage) == sets
    assert storage.manifest(prompts.PROMPTS)["digest"] == digest == sets.digest
    with pytest.raises(FileExistsError):
        prompts.save(storage, sets)


def test_altered_sets_are_refused(storage: Storage) -> None:
    prompts.save(storage, build())
    file = storage.path(prompts.PROMPTS) / "b.jsonl"
    file.write_text(file.read_text().replace("number", "numbed", 1))
    with pytest.raises(UserError, match=r"b\.jsonl was altered"):
        prompts.load(storage)


def test_a_text_with_line_separators_survives(storage: Storage) -> None:
    odd = Prompt("A/x", "standard", ("one\u2028two\x85three\nfour",), "ok\x0bfine", ("x",))
    prompts.save(storage, PromptSets((odd,), (odd,)))
    assert prompts.load(storage).a == (odd,)
