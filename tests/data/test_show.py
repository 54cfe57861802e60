"""`bb3x show` as people and programs see it."""

import io
import json
from collections import Counter
from dataclasses import replace

from rich.console import Console

from bb3x_ray.data.show import first_examples, nothing_found, print_example
from bb3x_ray.data.views import VIEWS
from bb3x_ray.storage import Storage
from tests.data.make import commit, said, talk, thumb


def shown(storage: Storage, terminal: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=terminal, highlight=False)
    for number, example in enumerate(first_examples(storage, VIEWS["bot"], None, 9, Counter()), start=1):
        print_example(example, number, console)
    return stream.getvalue()


def test_an_example_reads_as_a_dialogue(storage: Storage) -> None:
    details = json.dumps({"search_query": "tea", "memories": [], "safety": None, "is_disliked": False})
    reply = replace(said("c", 3, "Green tea."), details=details)
    commit(storage, *talk("c", 2), said("c", 2, "Which\ntea?"), reply, thumb("t", "c-m3", 1))
    plain = shown(storage)
    assert (
        "       human: words 0\n"
        "         bot: words 1\n"
        "       human: Which\n"
        "              tea?\n"
        "  label, bot: Green tea.\n"
        "    search_query: tea\n"
        "    is_liked: true\n"
    ) in plain
    assert "2. c, message 3 · served · train · safety not annotated · thumb up" in plain
    assert "\x1b" not in plain
    assert "search_query" in shown(storage, terminal=True) and "╭" in shown(storage, terminal=True)


def test_words_of_people_are_no_markup_and_move_no_cursor(storage: Storage) -> None:
    commit(storage, said("c", 0, "[red]a[/] \x1b[2J [/nothing]"), said("c", 1))
    assert "[red]a[/] �[2J [/nothing]" in shown(storage)
    assert "\x1b[2J" not in shown(storage, terminal=True)


def test_programs_get_whole_objects(storage: Storage) -> None:
    commit(storage, *talk("c", 6))
    found = list(first_examples(storage, VIEWS["human"], None, 1, Counter()))
    assert [(row["label"], row["label_info"], row["turns"]) for row in json.loads(json.dumps(found))] == [
        ("words 2", {}, [{"sender": "human", "text": "words 0"}, {"sender": "bot", "text": "words 1"}])
    ]


def test_an_empty_view_says_why(storage: Storage) -> None:
    commit(storage, *talk("c"))
    left_out: Counter[str] = Counter()
    assert list(first_examples(storage, VIEWS["bot-standard"], "train", 5, left_out)) == []
    assert nothing_found(VIEWS["bot-standard"], "train", left_out) == (
        "no examples in bot-standard, train (left out: 1 safety_unknown)."
    )
