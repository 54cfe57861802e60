"""What the candidate is asked between iterations, and which of its answers it learns from."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bb3x_ray.data.answers import Choice, learn_from_answers, questions
from bb3x_ray.data.mix import labelled_turns
from bb3x_ray.data.training_rows import talk_rows
from bb3x_ray.language.chat_template import Turn, prompt_ids, render, turns_of
from bb3x_ray.schemas.conversation import Author, Conversation, Message, external, model, person
from bb3x_ray.schemas.learning import ANSWERS_SCHEMA, TRAINING_SCHEMA, CurationReport
from tests.language.templates import GOOD, tokenizer_with

ADA, BOT = person("ada"), model("v0001")
NO_CAP = Choice(0.6, 0.4, 1000.0)
NOTHING = TRAINING_SCHEMA.empty_table()


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


def conversation(*turns: tuple[Author, str]) -> Conversation:
    messages = tuple(Message(f"m{i}", author, text) for i, (author, text) in enumerate(turns))
    return Conversation("c", "ada", messages, "served", "store")


def answer(number: int, good: float, text: str = "", context: str = "", **about: Any) -> dict[str, Any]:
    return {
        "answer_id": f"m{number}~0",
        "context_id": context or f"m{number}",
        "conversation_id": "c",
        "person": "ada",
        "context": "Hello",
        "prompt_ids": [5, 6, 7],
        "text": text or f"Answer number {number}.",
        "finish_reason": "stop",
        "good": good,
        "unsafe": 0.1,
        "error": "",
        **about,
    }


def learn(
    tokenizer: PreTrainedTokenizerBase,
    answers: list[dict[str, Any]],
    own: pa.Table = NOTHING,
    human: pa.Table = NOTHING,
    choice: Choice = NO_CAP,
) -> tuple[list[dict[str, Any]], CurationReport]:
    table, report = learn_from_answers(
        own, pa.Table.from_pylist(answers, schema=ANSWERS_SCHEMA), human, tokenizer, choice, seed=0
    )
    assert table.schema == TRAINING_SCHEMA
    return table.to_pylist(), report


def human(tokenizer: PreTrainedTokenizerBase, count: int, first: int = 0) -> pa.Table:
    talks = [("Do you like tea?", f"I do, cup number {n}.") for n in range(first, first + count)]
    return talk_rows(talks, tokenizer, 100, "", "human", first)


def read(before: Sequence[Message]) -> str:
    return "|".join(message.text for message in before)


def test_each_logged_reply_is_asked_for_again(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation((ADA, "Hello"), (BOT, "Hi"), (ADA, "Tea?"), (external("poet"), "Yes"), (ADA, "Bye"))
    asked = questions(lambda: [talk], read, tokenizer, "Be kind.", 200, 0, 2, 0).to_pylist()
    assert [row["answer_id"] for row in asked] == ["m1~0", "m1~1", "m3~0", "m3~1"]
    assert asked[2]["context"] == "Hello|Hi|Tea?"
    assert asked[2]["prompt_ids"] == prompt_ids(tokenizer, turns_of(talk.messages[:3], "Be kind."), 200)
    assert asked[2]["text"] is None and asked[2]["good"] is None


def test_what_we_did_not_say_is_not_asked_for(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation(
        (BOT, "Welcome"), (ADA, "Hello"), (Author("unverified", "client"), "Hi"), (ADA, " "), (BOT, "Yes?")
    )
    assert questions(lambda: [talk], read, tokenizer, "", 200, 0, 1, 0).num_rows == 0


def test_some_contexts_are_drawn_by_seed(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation(*[(ADA, "Hello") if i % 2 == 0 else (BOT, "Hi") for i in range(40)])

    def ids(seed: int) -> list[str]:
        return list(questions(lambda: [talk], read, tokenizer, "", 500, 5, 1, seed)["context_id"].to_pylist())

    assert len(ids(0)) == 5 and ids(0) == ids(0) != ids(1)


def test_good_and_bad_are_balanced_and_every_drop_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    answers = [answer(n, 0.9) for n in range(5)] + [answer(n, 0.1) for n in range(5, 8)]
    answers += [answer(8, 0.5), answer(9, 0.9, " "), answer(10, 0.5, error="no text")]
    rows, report = learn(tokenizer, answers)
    assert (report.imitate, report.avoid) == (3, 3)
    assert {k: n for k, n in report.dropped.items() if n} == {
        "empty": 1,
        "score_error": 1,
        "to_balance": 2,
        "unsure": 1,
    }
    assert len(rows) == 6


@pytest.mark.parametrize("pairs", [False, True])
def test_what_is_unsafe_is_avoided_at_most(tokenizer: PreTrainedTokenizerBase, pairs: bool) -> None:
    choice = Choice(0.6, 0.4, 1000.0, pairs, unsafe_above=0.5)
    answers = [
        answer(0, 0.9, "Rude.", "m0", unsafe=0.9),
        answer(1, 0.8, "Kind.", "m0"),
        answer(2, 0.1, "Rude and bad.", "m0", unsafe=0.9),
        answer(3, 0.95, "Rude again.", "m3", unsafe=0.6),
        answer(4, 0.2, "Bad again.", "m3", unsafe=0.6),
    ]
    rows, report = learn(tokenizer, answers, choice=choice)
    assert report.seen == 5 and report.dropped["unsafe"] == 2
    taught = [_imitated(tokenizer, row) for row in rows if any(row["imitate"])]
    assert len(taught) == 1 and "Kind." in taught[0]


def _imitated(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]) -> str:
    ids = [token for token, marked in zip(row["input_ids"], row["imitate"], strict=True) if marked]
    return str(tokenizer.decode(ids))


def test_the_same_text_teaches_twice_at_most(tokenizer: PreTrainedTokenizerBase) -> None:
    answers = [answer(n, 0.9, "I do  not KNOW.") for n in range(6)] + [answer(n, 0.1) for n in range(6, 12)]
    rows, report = learn(tokenizer, answers)
    assert report.imitate == report.avoid == 2
    assert report.dropped["too_often"] == 4
    said = Counter(
        tokenizer.decode([t for t, m in zip(r["input_ids"], r["imitate"], strict=True) if m]) for r in rows
    )
    assert said["I do  not KNOW.<|im_end|>"] == 2


@pytest.mark.parametrize("style", GOOD)
def test_an_answer_s_row_is_what_a_logged_reply_s_would_be(tiny_model: Path, style: str) -> None:
    tokenizer = tokenizer_with(tiny_model, GOOD[style])
    turns = [Turn("user", "Do you like tea?")]
    prompt = prompt_ids(tokenizer, turns, 200)
    answers = [answer(0, 0.9, "I do.", prompt_ids=prompt), answer(1, 0.1, "No.", prompt_ids=prompt)]
    good, bad = learn(tokenizer, answers)[0]
    rendered = render(tokenizer, [*turns, Turn("assistant", "I do.")])
    span = rendered.spans[-1]
    assert span.end_of_turn is not None
    assert good["input_ids"] == rendered.input_ids[: span.end_of_turn + 1]
    assert [i for i, m in enumerate(good["imitate"]) if m] == [*range(span.start, span.end), span.end_of_turn]
    assert not any(good["avoid"]) and not any(bad["imitate"])
    avoided = [t for t, m in zip(bad["input_ids"], bad["avoid"], strict=True) if m]
    assert tokenizer.decode(avoided) == "No."  # the end of a turn is never avoided


def test_an_answer_cut_off_by_the_length_limit_teaches_no_end(tokenizer: PreTrainedTokenizerBase) -> None:
    answers = [answer(0, 0.9, finish_reason="length"), answer(1, 0.1)]
    good = learn(tokenizer, answers)[0][0]
    assert tokenizer.decode(good["input_ids"][3:]) == "Answer number 0."


def test_people_keep_their_share(tokenizer: PreTrainedTokenizerBase) -> None:
    machine = talk_rows([("Hello", f"Hi {n}.") for n in range(10)], tokenizer, 100, "", "served")
    own = pa.concat_tables([machine, human(tokenizer, 20)])
    answers = [answer(n, 0.9) for n in range(4)] + [answer(n, 0.1) for n in range(4, 8)]
    rows, report = learn(tokenizer, answers, own, human(tokenizer, 100, first=20))
    assert report.human_rows == 16  # two for each machine turn, as before
    assert Counter(row["source"] for row in rows) == {"served": 10, "human": 36, "answers": 8}
    assert len({row["row_id"] for row in rows}) == len(rows)


def test_turns_to_avoid_are_capped_over_the_whole_set(tokenizer: PreTrainedTokenizerBase) -> None:
    own = talk_rows([("Hello", f"Hi {n}.") for n in range(10)], tokenizer, 100, "", "served")
    answers = [answer(n, 0.9) for n in range(5)] + [answer(n, n / 100) for n in range(5, 10)]
    rows, report = learn(tokenizer, answers, own, choice=Choice(0.6, 0.4, 0.2))
    assert report.imitate == 5 and report.avoid == 3 and report.dropped["too_many_to_avoid"] == 2
    table = pa.Table.from_pylist(rows, schema=TRAINING_SCHEMA)
    assert labelled_turns(table, ["avoid"]) <= 0.2 * labelled_turns(table, ["imitate"])
    worst = {row["row_id"] for row in rows if any(row["avoid"])}
    assert worst == {f"answers-m{n}~0" for n in (5, 6, 7)}


def test_pairs_are_the_best_and_the_worst_answer_to_a_context(tokenizer: PreTrainedTokenizerBase) -> None:
    answers = [answer(n, good, context="x") for n, good in enumerate((0.3, 0.5, 0.4))]
    answers += [answer(n, 0.2, context="y") for n in (3, 4)]
    rows, report = learn(tokenizer, answers, choice=Choice(0.6, 0.4, 0.2, pairs=True))
    (pair,) = rows
    better, worse = pair["input_ids"][: pair["starts"][1]], pair["input_ids"][pair["starts"][1] :]
    assert tokenizer.decode(better[3:]) == "Answer number 1.<|im_end|>"
    assert tokenizer.decode(worse[3:]) == "Answer number 0."
    assert pair["starts"][0] == 0
    assert len(pair["imitate"]) == len(pair["avoid"]) == len(pair["input_ids"])
    assert not any(pair["imitate"][pair["starts"][1] :]) and not any(pair["avoid"][: pair["starts"][1]])
    assert report.dropped == {"neither_best_nor_worst": 1, "no_difference": 2}
