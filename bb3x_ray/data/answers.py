"""Between two iterations: what the candidate is asked, and which of its answers it learns from."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from bb3x_ray.data.mix import labelled_turns
from bb3x_ray.data.row_ids import ANSWERS, answer_id, answer_row_id
from bb3x_ray.language.chat_template import Turn, plain_ids, prompt_ids, render, turns_of
from bb3x_ray.schemas.conversation import Conversation, Message
from bb3x_ray.schemas.learning import ANSWERS_SCHEMA, TRAINING_SCHEMA, CurationReport

MAX_SAME = 2  # the same text teaches so often at most
Row = dict[str, Any]


def questions(
    conversations: Callable[[], Iterable[Conversation]],
    read: Callable[[Sequence[Message]], str],
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str,
    max_prompt_tokens: int,
    count: int,
    per_context: int,
    seed: int,
) -> pa.Table:
    """Rows of ANSWERS_SCHEMA without text and score: what stood before each logged reply of ours.

    conversations   gone through twice: to count what may be asked, and to ask it
    read            the messages before a reply -> context as the reward model reads it
    count           so many contexts are drawn; 0: all
    per_context     answers that each is asked for
    """
    askable = sum(len(_askable(conversation)) for conversation in conversations())
    drawn = set(range(askable))
    if count and count < askable:
        drawn = set(random.Random(seed).sample(range(askable), count))
    rows: list[Row] = []
    place = -1
    for conversation in conversations():
        for index in _askable(conversation):
            place += 1
            if place in drawn:
                before = conversation.context_of(index)
                prompt = prompt_ids(tokenizer, turns_of(before, system_prompt), max_prompt_tokens)
                about = {"context": read(before), "prompt_ids": prompt}
                rows += _asked(conversation, index, about, per_context)
    return pa.Table.from_pylist(rows, schema=ANSWERS_SCHEMA)


def _askable(conversation: Conversation) -> list[int]:
    """Places of the replies of ours that answer what a person said."""
    messages = conversation.messages
    return [
        index
        for index, message in enumerate(messages)
        if message.author.can_be_trained_on
        and index
        and messages[index - 1].author.is_person
        and messages[index - 1].text.strip()
    ]


def _asked(conversation: Conversation, index: int, about: Row, per_context: int) -> list[Row]:
    message_id = conversation.messages[index].message_id
    return [
        {
            "answer_id": answer_id(message_id, number),
            "context_id": message_id,
            "conversation_id": conversation.conversation_id,
            "person": conversation.person,
            **about,
        }
        for number in range(per_context)
    ]


@dataclass(frozen=True, slots=True)
class Choice:
    """How answers become labels; the same thresholds and cap as for logged replies.

    pairs          compare the best with the worst answer to a context (pairwise CRINGE), whatever the labels
    unsafe_above   answers that are less safe are never imitated
    """

    imitate_above: float
    avoid_below: float
    max_avoid_per_imitate: float
    pairs: bool = False
    unsafe_above: float = 1.0

    def is_unsafe(self, answer: Row) -> bool:
        return (answer["unsafe"] or 0.0) > self.unsafe_above


def learn_from_answers(
    own: pa.Table,
    answers: pa.Table,
    more_human: pa.Table,
    tokenizer: PreTrainedTokenizerBase,
    choice: Choice,
    seed: int,
) -> tuple[pa.Table, CurationReport]:
    """(training rows, what became of the answers): the round's set, chosen answers, and human exchanges.

    own          the set of the first iteration
    more_human   human exchanges that `own` does not hold, best first: as many are added as keep their
                 number per labelled machine turn

    The same text is kept twice at most; good and bad are balanced; turns to avoid are capped over the whole
    set. Among equals chance decides, by `seed`.
    """
    dropped: Counter[str] = Counter()
    around = _Around(tokenizer)
    usable = _usable(answers.to_pylist(), dropped)
    usable.sort(key=lambda row: _chance(seed, row["answer_id"]))
    if choice.pairs:
        rows, kept = _pairs(usable, choice, around, dropped)
    else:
        good, bad = _balanced(usable, choice, dropped)
        human = _human(own, len(good), more_human)
        bad = _capped(bad, own, len(good) + human.num_rows, choice.max_avoid_per_imitate, dropped)
        kept = (len(good), len(bad))
        rows = [_row(row, "imitate", around) for row in good] + [_row(row, "avoid", around) for row in bad]
    human = _human(own, sum(kept), more_human)
    chosen = pa.Table.from_pylist(rows, schema=TRAINING_SCHEMA)
    table = pa.concat_tables([own, chosen, human])
    report = CurationReport(
        seen=answers.num_rows,
        imitate=kept[0],
        avoid=kept[1],
        dropped=dict(sorted(dropped.items())),
        human_rows=human.num_rows,
        imitate_tokens=_marked(chosen, "imitate"),
        avoid_tokens=_marked(chosen, "avoid"),
    )
    return table, report


def _usable(rows: Sequence[Row], dropped: Counter[str]) -> list[Row]:
    usable = []
    for row in rows:
        if not row["text"].strip():
            dropped["empty"] += 1
        elif row["error"]:
            dropped["score_error"] += 1
        else:
            usable.append(row)
    return usable


def _balanced(rows: list[Row], choice: Choice, dropped: Counter[str]) -> tuple[list[Row], list[Row]]:
    """As many good as bad ones; `rows` are in an order by chance."""
    times: Counter[str] = Counter()
    sides: dict[bool, list[Row]] = {True: [], False: []}
    for row in rows:
        good = row["good"] >= choice.imitate_above
        if not good and row["good"] > choice.avoid_below:
            dropped["unsure"] += 1
        elif good and choice.is_unsafe(row):
            dropped["unsafe"] += 1
        elif times[_same(row)] == MAX_SAME:
            dropped["too_often"] += 1
        else:
            times[_same(row)] += 1
            sides[good].append(row)
    count = min(map(len, sides.values()))
    dropped["to_balance"] += sum(len(side) - count for side in sides.values())
    return sides[True][:count], sides[False][:count]


def _capped(
    bad: list[Row], own: pa.Table, imitated: int, per_imitate: float, dropped: Counter[str]
) -> list[Row]:
    """The worst of `bad`, as many as the cap allows beside what the round's set avoids."""
    allowed = int(per_imitate * (labelled_turns(own, ["imitate"]) + imitated))
    room = max(0, allowed - labelled_turns(own, ["avoid"]))
    if room < len(bad):
        dropped["too_many_to_avoid"] += len(bad) - room
        bad = sorted(bad, key=lambda row: row["good"])[:room]
    return bad


def _human(own: pa.Table, turns: int, more: pa.Table) -> pa.Table:
    """Exchanges for `turns` new machine turns, so that people's share stays what it is in `own`."""
    sources = Counter(own["source"].to_pylist())
    machine = labelled_turns(own) - sources["human"]
    return more.slice(0, round(turns * sources["human"] / max(1, machine)))


def _pairs(
    rows: list[Row], choice: Choice, around: "_Around", dropped: Counter[str]
) -> tuple[list[Row], tuple[int, int]]:
    """One training row for each context whose answers are not all equally good, and one of them is safe."""
    by_context: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_context[row["context_id"]].append(row)
    times: Counter[str] = Counter()
    pairs = []
    for answers in by_context.values():
        safe = [row for row in answers if not choice.is_unsafe(row)]
        if not safe:
            dropped["unsafe"] += len(answers)
            continue
        best = max(safe, key=lambda row: row["good"])
        worst = min(answers, key=lambda row: row["good"])
        if best["good"] <= worst["good"]:
            dropped["no_difference"] += len(answers)
            continue
        if MAX_SAME in (times[_same(best)], times[_same(worst)]):
            dropped["too_often"] += len(answers)
            continue
        times.update((_same(best), _same(worst)))
        dropped["neither_best_nor_worst"] += len(answers) - 2
        pairs.append(_joined(_row(best, "imitate", around), _row(worst, "avoid", around)))
    return pairs, (len(pairs), len(pairs))


def _joined(better: Row, worse: Row) -> Row:
    lists = ("input_ids", "imitate", "avoid")
    joined = {name: better[name] + worse[name] for name in lists}
    return {**better, **joined, "starts": [0, len(better["input_ids"])]}


class _Around:
    """Words of a reply as tokens between what the template writes behind the prompt and behind the words."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        asked = [Turn("user", "a")]
        rendered = render(tokenizer, [*asked, Turn("assistant", "b")])
        ids, span = rendered.input_ids, rendered.spans[-1]
        # Some templates write a space before a reply that they do not write when they ask for one.
        self._lead = ids[len(prompt_ids(tokenizer, asked, len(ids))) : span.start]
        self._tail = ids[span.end : (span.end_of_turn or span.end) + 1]

    def tokens(self, text: str, stopped: bool) -> tuple[list[int], list[bool]]:
        """(token ids, whether each is learned from): of the template nothing but the end of the turn."""
        words = plain_ids(self._tokenizer, text.strip())
        tail = self._tail if stopped else []
        learned = [False] * len(self._lead) + [True] * len(words)
        return self._lead + words + tail, learned + [i == len(tail) - 1 for i in range(len(tail))]


def _row(answer: Row, label: str, around: _Around) -> Row:
    """The answer behind its prompt. What ends a turn is imitated where the model stopped, never avoided."""
    stopped = answer["finish_reason"] == "stop"
    reply, learned = around.tokens(answer["text"], label == "imitate" and stopped)
    prompt = answer["prompt_ids"]
    marked, unmarked = [False] * len(prompt) + learned, [False] * (len(prompt) + len(reply))
    return {
        "row_id": answer_row_id(answer["answer_id"]),
        "source": ANSWERS,
        "person": answer["person"],
        "input_ids": [*prompt, *reply],
        "imitate": marked if label == "imitate" else unmarked,
        "avoid": marked if label == "avoid" else unmarked,
        "weight": None,
        "starts": None,
    }


def _same(row: Row) -> str:
    return " ".join(row["text"].lower().split())


def _chance(seed: int, answer_id: str) -> str:
    return hashlib.sha256(f"{seed}:{answer_id}".encode()).hexdigest()


def _marked(table: pa.Table, mask: str) -> int:
    return pc.sum(pc.list_flatten(table[mask])).as_py() or 0
