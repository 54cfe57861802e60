"""Examples of a view, to be read by people: the context as a dialogue, the label, what is said of it."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bb3x_ray.data.views import View, read_view
from bb3x_ray.storage import Storage

# Of longer values of label_info, such as knowledge documents, only the beginning is shown.
_LONGEST = 200


def first_examples(
    storage: Storage, view: View, split: str | None, count: int, left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    """The first `count` examples, in the order of the log, with `turns` and label_info as an object."""
    for row in islice(_rows(storage, view, split, left_out), count):
        yield {**row, "label_info": json.loads(row["label_info"])}


def _rows(
    storage: Storage, view: View, split: str | None, left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    for table in read_view(storage, view, split, with_turns=True, left_out=left_out):
        for batch in table.to_batches(max_chunksize=64):
            yield from batch.to_pylist()


def print_example(example: dict[str, Any], number: int, console: Console) -> None:
    """One example; colours and lines only where the console is a terminal."""
    console.print(Text(_heading(example, number), style="bold cyan"), soft_wrap=not console.is_terminal)
    for turn in example["turns"]:
        _print_turn(console, turn["sender"], turn["text"], "dim")
    side = "human" if example["author_kind"] == "person" else "bot"
    _print_turn(console, f"label, {side}", example["label"], "bold")
    rows = _info_rows(example)
    if rows and console.is_terminal:
        table = Table(show_header=False, box=box.ROUNDED)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(Text(name), Text(value))
        console.print(table)
    else:
        for name, value in rows:
            console.print(Text(f"    {name}: {value}"), soft_wrap=True)
    console.print()


def _heading(example: dict[str, Any], number: int) -> str:
    where = f"{number}. {example['conversation_id']}, message {example['position']}"
    adversarial = {None: "safety not annotated", True: "adversarial human", False: "standard human"}
    about = [where, example["source"], example["split"], adversarial[example["adversarial_human"]]]
    thumb = {1: "thumb up", -1: "thumb down"}.get(example["thumb"])
    return " · ".join([*about, *([thumb] if thumb else [])])


def _print_turn(console: Console, sender: str, text: str, style: str) -> None:
    """Words of people are never read as markup, nor may they move the cursor."""
    shown = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    if not console.is_terminal:
        line = f"{sender + ':':>13} " + shown.replace("\n", "\n" + " " * 14)
        console.print(Text(line), soft_wrap=True)
        return
    turn = Table.grid(padding=(0, 1))
    turn.add_column(width=13, justify="right", style=style)
    turn.add_column(overflow="fold", style=style)
    turn.add_row(Text(sender + ":"), Text(shown))
    console.print(turn)


def _info_rows(example: dict[str, Any]) -> list[tuple[str, str]]:
    """What says something: empty values and false flags are left out."""
    told = (
        (name, value)
        for name, value in example["label_info"].items()
        if value not in (None, False, "", [], {})
    )
    return [(name, _short(value)) for name, value in told]


def _short(value: Any) -> str:
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    words = "".join(c if c.isprintable() else " " for c in words)
    return textwrap.shorten(words, _LONGEST, placeholder=" …") if len(words) > _LONGEST else words


def nothing_found(view: View, split: str | None, left_out: Counter[str]) -> str:
    """One sentence for an empty view."""
    where = f"{view.name}{', ' + split if split else ''}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()) if count)
    return f"no examples in {where}" + (f" (left out: {reasons})." if reasons else ".")
