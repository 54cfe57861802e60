"""Every bot turn is kept under a mask or dropped with a reason; a mask covers exactly the words meant."""

import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bb3x_ray.config import CurateConfig
from bb3x_ray.data.corrections import MOST_OF_ONE
from bb3x_ray.data.curate import curate
from bb3x_ray.data.slices import Slice, write
from bb3x_ray.language.chat_template import Turn, prompt_ids, turns_of
from bb3x_ray.schemas.conversation import Author, Conversation, Feedback, Message, external, model, person
from bb3x_ray.schemas.learning import SCORED_SCHEMA, TRAINING_SCHEMA, CurationReport, Scored
from tests.data.make import to_table

WIDE = CurateConfig(human_rows=0, max_avoid_per_imitate=1000, max_tokens=2000)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


def conversation(name: str, *turns: tuple[Author, str, str | None]) -> Conversation:
    messages = tuple(
        Message(f"{name}-{i}", author, text, reason) for i, (author, text, reason) in enumerate(turns)
    )
    return Conversation(name, "ada", messages, "served", "store")


def ask(text: str = "Do you like tea?") -> tuple[Author, str, str | None]:
    return person("ada"), text, None


def reply(text: str, finish_reason: str | None = "stop") -> tuple[Author, str, str | None]:
    return model("v0001"), text, finish_reason


def scored(**good: float | str) -> Scored:
    """`c_1=0.9` scores message c-1; a string is an error."""
    rows = [
        {
            "conversation_id": name.split("_")[0],
            "message_id": name.replace("_", "-"),
            "person": "ada",
            "good": 0.0 if isinstance(value, str) else value,
            "rating": None,
            "trusted": True,
            "error": value if isinstance(value, str) else "",
        }
        for name, value in good.items()
    ]
    return Scored(pa.Table.from_pylist(rows, schema=SCORED_SCHEMA), {}, frozenset(), "v0001", {})


def run(
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[Conversation],
    scores: Scored,
    config: CurateConfig = WIDE,
    taught_before: frozenset[str] = frozenset(),
    group: int = 7,
    **about: Any,
) -> tuple[list[dict[str, Any]], CurationReport]:
    settings: dict[str, Any] = {"human": [], "system_prompt": "Be kind.", "seed": 0, **about}
    tables: list[pa.Table] = []
    with tempfile.TemporaryDirectory() as folder:
        slice_ = Slice(Path(folder, "slice.parquet"))
        write(slice_.path, [to_table(conversations, taught_before)], group)
        report = curate(
            slice_,
            scores,
            Path(tokenizer.name_or_path),
            config=config,
            imitate_above=0.6,
            avoid_below=0.4,
            write=tables.append,
            **settings,
        )
    table = pa.concat_tables(tables)
    assert table.schema == TRAINING_SCHEMA
    return table.to_pylist(), report


def words(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any], mask: str) -> str:
    return str(tokenizer.decode([t for t, marked in zip(row["input_ids"], row[mask], strict=True) if marked]))


def test_masks_decode_to_exactly_the_replies(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation(
        "c",
        ask(),
        reply("I do, green tea most of all."),
        ask("Why <|im_end|>?"),
        reply("Because", "length"),
        ask("Because?"),
        reply("Go away!"),
        ask("Rude."),
        reply("Perhaps."),
    )
    rows, report = run(tokenizer, [talk], scored(c_1=0.9, c_3=0.7, c_5=0.1, c_7=0.5))
    (row,) = rows
    # The end of turn is imitated after a real stop only, and never avoided.
    assert words(tokenizer, row, "imitate") == "I do, green tea most of all.<|im_end|>Because"
    assert words(tokenizer, row, "avoid") == "Go away!"
    assert (report.seen, report.imitate, report.avoid, report.dropped) == (4, 2, 1, {"unsure": 1})
    assert (row["row_id"], row["source"], row["person"]) == ("c", "served", "ada")
    assert tokenizer.decode(row["input_ids"]).startswith("<|im_start|>system\nBe kind.<|im_end|>")
    assert report.imitate_tokens == sum(row["imitate"]) and report.avoid_tokens == sum(row["avoid"])
    assert row["avoid"][-1]  # nothing is computed behind the last label


def test_every_drop_has_its_reason(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation(
        "c",
        ask(),
        (Author("unverified", "client"), "said a client", None),
        (Author("canned", "safety"), "Let us talk of something else.", None),
        reply("  "),
        reply("unsure"),
        reply("broken"),
        reply("nobody scored me"),
        reply("again"),
        reply("good"),
    )
    rows, report = run(
        tokenizer,
        [talk],
        scored(c_1=1.0, c_2=1.0, c_3=1.0, c_4=0.5, c_5="no context", c_7=0.9, c_8=0.9),
        taught_before=frozenset({"c-7"}),
    )
    assert report.dropped == {
        "not_ours": 2,
        "empty": 1,
        "unsure": 1,
        "score_error": 1,
        "not_scored": 1,
        "taught_before": 1,
    }
    assert words(tokenizer, rows[0], "imitate") == "good<|im_end|>"


def test_bots_of_recorded_talk_never_teach_where_to_stop(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("c", (external("bot 4"), "hi there", None), ask(), (external("bot 4"), "good", None))
    rows, _ = run(tokenizer, [talk], scored(c_0=0.9, c_2=0.9))
    assert words(tokenizer, rows[0], "imitate") == "hi theregood"


def test_long_conversations_become_windows_that_label_each_reply_once(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    said = [f"{name} likes tea." for name in "Ann Bob Cid Dora Ed Fay Gil Hal Ida Joe".split()]
    talk = conversation("c", *(turn for text in said for turn in (ask(), reply(text))))
    scores = scored(**{f"c_{i}": 0.9 for i in range(1, 20, 2)})
    (whole,), _ = run(tokenizer, [talk], scores)
    for limit in range(60, len(whole["input_ids"]) + 4, 23):
        rows, report = run(tokenizer, [talk], scores, WIDE.model_copy(update={"max_tokens": limit}))
        assert (report.imitate, report.dropped) == (10, {})
        taught = "".join(words(tokenizer, row, "imitate") for row in rows)
        assert taught.split("<|im_end|>")[:-1] == said
        assert all(len(row["input_ids"]) <= limit for row in rows)
        assert [row["row_id"] for row in rows] == ["c", *(f"c#{n}" for n in range(2, len(rows) + 1))]
        for row in rows:  # each is a conversation of its own: system prompt first, then the person
            assert tokenizer.decode(row["input_ids"]).startswith(
                "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nDo you like tea?"
            )
        for row in rows[1:]:  # what came before is there, and not learned again
            before = tokenizer.decode(row["input_ids"][: row["imitate"].index(True)])
            assert limit < 110 or "likes tea." in before


def test_a_reply_that_fits_into_no_window_is_dropped(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("c", ask(), reply("Yes."), ask(), reply("tea " * 80), ask(), reply("Sorry."))
    config = WIDE.model_copy(update={"max_tokens": 70})
    rows, report = run(tokenizer, [talk], scored(c_1=0.9, c_3=0.9, c_5=0.1), config)
    assert (report.imitate, report.avoid, report.dropped) == (1, 1, {"cut_by_max_tokens": 1})
    assert [words(tokenizer, row, "imitate") for row in rows] == ["Yes.<|im_end|>", ""]
    assert words(tokenizer, rows[1], "avoid") == "Sorry."


def test_a_window_teaches_what_the_whole_conversation_would(tokenizer: PreTrainedTokenizerBase) -> None:
    """Each window is rendered by the template anew: it is what serving would send from there on."""
    talk = conversation("c", *([ask(), reply("I like tea.")] * 6))
    scores = scored(**{f"c_{i}": 0.9 for i in range(1, 12, 2)})
    rows, _ = run(tokenizer, [talk], scores, WIDE.model_copy(update={"max_tokens": 90}))
    served = [Turn("system", "Be kind."), *turns_of(talk.messages[:2])]
    assert rows[0]["input_ids"][: len(prompt_ids(tokenizer, served[:2], 2000))] == prompt_ids(
        tokenizer, served[:2], 2000
    )
    assert len(rows) > 1


def test_what_a_thumb_labelled_weighs_as_its_person_is_trusted(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("c", ask(), reply("Yes, tea."), ask(), reply("No."))
    scores = scored(c_1=0.9, c_3=0.1)
    ratings = pa.array([1, None], pa.int8())
    turns = scores.turns.set_column(SCORED_SCHEMA.get_field_index("rating"), "rating", ratings)
    scores = replace(scores, turns=turns, trust={"ada": 0.75})
    (row,), _ = run(tokenizer, [talk], scores, WIDE.model_copy(update={"weigh_by_trust": True}))
    weights = Counter(w for w, i in zip(row["weight"], row["imitate"], strict=True) if i)
    assert set(weights) == {0.75} and weights[0.75] == sum(row["imitate"])
    assert {w for w, i in zip(row["weight"], row["imitate"], strict=True) if not i} == {1.0}
    (plain,), _ = run(tokenizer, [talk], scores)
    assert plain["weight"] is None


def test_too_many_to_avoid_are_capped_keeping_the_worst(tokenizer: PreTrainedTokenizerBase) -> None:
    talks = [conversation(f"c{n}", ask(), reply(f"reply {n}")) for n in range(8)]
    scores = scored(c0_1=0.9, c1_1=0.8, **{f"c{n}_1": n / 20 for n in range(2, 8)})
    config = CurateConfig(human_rows=1, max_avoid_per_imitate=1.0, max_tokens=500)
    rows, report = run(tokenizer, talks, scores, config, human=[["hello", "hi"]])
    assert (report.imitate, report.avoid, report.human_rows) == (2, 3, 1)
    assert report.dropped == {"too_many_to_avoid": 3}
    assert [row["row_id"] for row in rows if any(row["avoid"])] == ["c2", "c3", "c4"]
    assert len(rows) == 6  # those without any label left are gone


def test_human_rows_imitate_the_second_speaker(tokenizer: PreTrainedTokenizerBase) -> None:
    human = [["hello", "hi you", "how are you?", "fine"], ["nobody answers"], ["a", "b"]]
    config = CurateConfig(human_rows=2, max_tokens=500)
    rows, report = run(tokenizer, [], scored(), config, human=human)
    assert report.human_rows == 2 and report.seen == 0
    assert {row["row_id"] for row in rows} == {"human-00000", "human-00002"}
    by_id = {row["row_id"]: row for row in rows}
    assert words(tokenizer, by_id["human-00000"], "imitate") == "hi you<|im_end|>fine<|im_end|>"
    assert {row["source"] for row in rows} == {"human"}
    assert not any(any(row["avoid"]) for row in rows)
    drawn = [
        run(tokenizer, [], scored(), config, human=[["x", "y"]] * 50, seed=seed)[0] for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_in_it_adds_up(tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    draw = random.Random(seed)
    authors = [model("v0001"), external("b"), Author("canned", "s"), Author("unverified", "u"), person("ada")]
    texts = ["", " ", "tea", "<|im_start|>assistant", "I do.\n\nYou?", "🙂 ok", "words " * 30]
    talks = [
        conversation(
            f"c{n}",
            *(
                (draw.choice(authors), draw.choice(texts), draw.choice(["stop", "length", None]))
                for _ in range(draw.randrange(9))
            ),
        )
        for n in range(20)
    ]
    values: list[float | str] = [0.0, 0.2, 0.4, 0.5, 0.6, 1.0, "failed"]
    scores = scored(
        **{
            m.message_id.replace("-", "_"): draw.choice(values)
            for talk in talks
            for m in talk.messages
            if draw.random() < 0.9
        }
    )
    config = CurateConfig(human_rows=3, max_avoid_per_imitate=draw.choice([0, 0.5, 1]), max_tokens=120)
    human = [[draw.choice(texts) for _ in range(draw.randrange(5))] for _ in range(6)]
    rows, report = run(tokenizer, talks, scores, config, human=human, seed=seed)
    assert (rows, report) == run(tokenizer, talks, scores, config, human=human, seed=seed, group=3)
    bots = [m for talk in talks for m in talk.messages if m.author.is_bot]
    assert report.seen == len(bots) == report.imitate + report.avoid + sum(report.dropped.values())
    by_id = {talk.conversation_id: talk for talk in talks}
    good = {turn["message_id"]: turn["good"] for turn in scores.turns.to_pylist() if not turn["error"]}
    for row in rows:
        assert len(row["input_ids"]) == len(row["imitate"]) == len(row["avoid"]) <= 120
        assert not any(i and a for i, a in zip(row["imitate"], row["avoid"], strict=True))
        assert any(row["imitate"]) or any(row["avoid"])
        if row["source"] != "human":
            allowed = {
                label: Counter(
                    m.text.strip()
                    for m in by_id[row["row_id"].partition("#")[0]].messages
                    if m.author.can_be_trained_on and m.message_id in good and keep(good[m.message_id])
                )
                for label, keep in (("imitate", lambda g: g >= 0.6), ("avoid", lambda g: g <= 0.4))
            }
            for label, texts_of in allowed.items():
                left = words(tokenizer, row, label).replace("<|im_end|>", "")
                assert len(left) <= sum(len(text) * count for text, count in texts_of.items())


def test_a_reply_in_two_messages_ends_where_its_turn_ends(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("c", ask(), reply("Yes, tea."), reply("And you?"), ask("Too."), reply("Nice."))
    (row,), _ = run(tokenizer, [talk], scored(c_1=0.9, c_2=0.5, c_4=0.5))
    assert words(tokenizer, row, "imitate") == "Yes, tea."  # the turn goes on


def test_whose_replies_judge_others_teach_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    talks = [conversation("c", ask(), reply("Yes, tea.")), conversation("d", ask(), reply("No."))]
    talks[1] = replace(talks[1], person="bob")
    rows, report = run(tokenizer, talks, scored(c_1=0.9, d_1=0.9), learns=lambda person: person != "bob")
    assert [row["row_id"] for row in rows] == ["c"]
    assert (report.seen, report.imitate, report.dropped) == (2, 1, {"judges_part": 1})


def test_what_people_say_a_reply_should_have_been_is_imitated(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("c", ask(), reply("Buy a car!"), ask("No."), reply("Sorry."))
    better = Feedback("f", "c-1", "ada", -1, ("off_topic",), "", "I do, green tea.")
    rows, report = run(tokenizer, [replace(talk, feedback=(better,))], scored(c_1=0.1, c_3=0.5))
    assert (report.avoid, report.corrections, report.corrections_dropped) == (1, 1, {})
    row = next(row for row in rows if row["source"] == "correction")
    words = tokenizer.decode([i for i, on in zip(row["input_ids"], row["imitate"], strict=True) if on])
    assert words == "I do, green tea.<|im_end|>"
    assert "Buy a car" not in tokenizer.decode(row["input_ids"]) and not any(row["avoid"])
    assert row["person"] == "ada"


@pytest.mark.parametrize(
    ("said", "who", "distrusted", "why"),
    [
        ("I do, green tea.", "ada", frozenset({"ada"}), {"distrusted": 1}),
        ("I do, you motherfucker.", "ada", frozenset(), {"unsafe": 1}),
        ("tea " * 61, "ada", frozenset(), {"too_long": 1}),
        ("I do, green tea.", "bob", frozenset(), {}),  # who was not even in this conversation
        ("  ", "ada", frozenset(), {}),
        ("Take a rope to the roof.", "ada", frozenset(), {"unsafe": 1}),  # by the classifier
    ],
)
def test_corrections_that_teach_nothing(
    tokenizer: PreTrainedTokenizerBase, said: str, who: str, distrusted: frozenset[str], why: dict[str, int]
) -> None:
    talk = conversation("c", ask(), reply("Buy a car!"))
    better = Feedback("f", "c-1", who, -1, (), "", said)
    scores = replace(scored(c_1=0.1), distrusted=distrusted)
    about = {"unsafe": lambda pairs: np.array([0.9 * ("rope" in pair.reply) for pair in pairs])}
    scores = replace(scores, unsafe_above=0.5)
    rows, report = run(tokenizer, [replace(talk, feedback=(better,))], scores, **about)
    assert (report.corrections, report.corrections_dropped) == (0, why)
    assert not [row for row in rows if row["source"] == "correction"]


def test_corrections_need_a_thumb_down_on_a_reply_that_can_teach_and_are_few(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    def better(message: str, rating: int | None = -1) -> Feedback:
        return Feedback(f"f-{message}", message, "ada", rating, (), "", "I do, green tea.")

    liked = replace(conversation("a", ask(), reply("Buy a car!")), feedback=(better("a-1", 1),))
    canned = conversation("b", ask(), (Author("canned", "safety"), "Let us talk of something else.", None))
    canned = replace(canned, feedback=(better("b-1"),))
    many = [
        replace(conversation(f"m{i}", ask(), reply("Buy a car!")), feedback=(better(f"m{i}-1"),))
        for i in range(MOST_OF_ONE + 2)
    ]
    trusted = replace(scored(a_1=0.5), trust={"ada": 0.5})
    rows, report = run(tokenizer, [liked, canned, *many], trusted)
    assert report.corrections == MOST_OF_ONE
    assert report.corrections_dropped == {"not_disliked": 1, "not_ours": 1, "too_many_of_one": 2}
    weights = [row["weight"] for row in rows if row["source"] == "correction"]
    assert all(set(weight[-3:]) == {0.5} for weight in weights)


def test_a_correction_that_was_taught_before_teaches_no_second_time(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    talk = conversation("c", ask(), reply("Buy a car!"))
    better = Feedback("f", "c-1", "ada", -1, (), "", "I do, green tea.")
    _, report = run(
        tokenizer, [replace(talk, feedback=(better,))], scored(c_1=0.1), taught_before=frozenset({"c-1"})
    )
    assert (report.corrections, report.corrections_dropped) == (0, {"taught_before": 1})
