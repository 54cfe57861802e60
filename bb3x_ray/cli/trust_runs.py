"""What `bb3x trust benchmark` and `poison` do: many mixes with a progress bar, tables, files."""

import csv
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bb3x_ray.classify.words import unsafe_words
from bb3x_ray.config import TrustMethod
from bb3x_ray.data.readers.chitchat import read_chitchat
from bb3x_ray.reward.poison import poison
from bb3x_ray.reward.safety_mix import MIXED, TROLLS, Pools
from bb3x_ray.reward.safety_pools import read_texts
from bb3x_ray.reward.trust.methods import METHODS
from bb3x_ray.reward.trust_benchmark import TextFeatures, measure
from bb3x_ray.reward.trust_plots import draw_methods, draw_poison
from bb3x_ray.reward.trust_tables import PoisonRow, best_method, method_rows, poison_rows
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Interval

CHOOSING = 10  # seeds on which the best method is chosen: 0 to 9. Reported are those from 100 on
FIRST = 100
_SAFE_TEXTS, _LEAST_WORDS = 2000, 4
_HH_RLHF = "hh-rlhf/harmless-base-even.jsonl.gz"
Item = TypeVar("Item")


def safe_texts(path: Path | None) -> list[str]:
    """The texts of a file, else ordinary talk of the chitchat package without unsafe words."""
    if path is not None:
        return read_texts(path)
    turns = {turn for talk in read_chitchat() for turn in talk.turns}
    plain = sorted(t for t in turns if len(t.split()) >= _LEAST_WORDS and not unsafe_words(t))
    return random.Random(0).sample(plain, _SAFE_TEXTS)


def unsafe_texts(path: Path | None) -> list[str]:
    """The texts of a file, else what people said first in hh-rlhf's red-team talks."""
    if path is None:
        folder = Path(os.environ.get("BB3X_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
        path = folder / _HH_RLHF
        if not path.is_file():
            raise UserError(f"no unsafe texts at {path}: give --unsafe FILE, or set BB3X_TEST_DATA.")
    return read_texts(path)


def asked_kinds(words: str, mixed: bool) -> list[str]:
    """Raises UserError for a kind that there is not."""
    known = [*TROLLS, *([MIXED] if mixed else [])]
    asked = [word.strip() for word in words.split(",") if word.strip()] or known
    if wrong := [kind for kind in asked if kind not in known]:
        raise UserError(f"--kinds: no kind is called {wrong[0]!r}; there are {', '.join(known)}.")
    return list(dict.fromkeys(asked))


def asked_methods(words: str) -> list[TrustMethod]:
    """`none` is always among them. Raises UserError for a method that there is not."""
    asked = [word.strip() for word in words.split(",") if word.strip()] or list(METHODS)
    if wrong := [method for method in asked if method not in METHODS]:
        raise UserError(f"--methods: no method is called {wrong[0]!r}; there are {', '.join(METHODS)}.")
    return [method for method in METHODS if method == "none" or method in asked]


def asked_shares(words: str) -> list[float]:
    """Raises UserError for what is no share."""
    try:
        shares = [float(word) for word in words.split(",") if word.strip()]
    except ValueError:
        shares = []
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise UserError("--shares: give numbers from 0 to 1 with commas, for instance 0.3,0.5.")
    return shares


def run_benchmark(
    pools: Pools,
    features: TextFeatures,
    kinds: Sequence[str],
    methods: Sequence[TrustMethod],
    seeds: int,
    *,
    trolls: float,
    noise: float,
    test: int,
    out: Path | None,
) -> None:
    """Measures, prints the table, and writes it with its plot."""
    console = Console(highlight=False)
    how: dict[str, Any] = {"noise": noise, "test": test}
    first = measure(pools, features, kinds, range(CHOOSING), methods, trolls=trolls, **how)
    chosen = list(_watched(first, CHOOSING * len(kinds) * (len(methods) + 1), "choosing", console))
    reported = range(FIRST, FIRST + seeds)
    second = measure(pools, features, kinds, reported, methods, trolls=trolls, **how)
    found = list(_watched(second, seeds * len(kinds) * (len(methods) + 1), "measuring", console))
    # Without trolls every kind is the same.
    third = measure(pools, features, kinds[:1], reported, methods, trolls=0.0, **how)
    helpers = list(_watched(third, seeds * (len(methods) + 1), "without trolls", console))
    rows = method_rows(found)
    best = best_method(chosen) if len(methods) > 1 else "none"
    title = f"SafetyMix, {trolls:.0%} trolls, {seeds} seeds: % of test texts wrong by gold labels"
    table = Table(title=title, caption=_CAPTION.format(best=best))
    for column in ("method", *kinds, "mean", "harm left", "pooled", "helpers wrong*", "trolls found"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows:
        wrong = [m.helpers_distrusted for m in helpers if m.method == row.method]
        caught = [value for value in row.trolls_distrusted.values() if value == value]
        table.add_row(
            f"{row.method}{' ←' if row.method == best else ''}",
            *(f"{100 * row.errors[kind].value:.1f}" for kind in kinds),
            _points(row.mean),
            ""
            if row.method == "clean"
            else f"{row.left.value:.2f} [{row.left.low:.2f}, {row.left.high:.2f}]",
            "" if row.method == "clean" else f"{row.left_pooled.value:.2f}",
            "" if row.method == "clean" else f"{100 * sum(wrong) / len(wrong):.1f}",
            f"{100 * sum(caught) / len(caught):.0f}" if caught else "",
        )
    _wide(console, table)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / "benchmark.csv", [*found, *helpers])
        draw_methods(rows, out / "benchmark.png", title)
        console.print(f"{out / 'benchmark.csv'}, {out / 'benchmark.png'}")


_CAPTION = (
    "harm left: mean over kinds of (error − clean) ÷ (none − clean), 95 % bootstrap interval over seeds; "
    "pooled: of the means.\n* without trolls. ←: the best on ten other seeds ({best})."
)


def run_poison(
    pools: Pools,
    features: TextFeatures,
    kinds: Sequence[str],
    shares: Sequence[float],
    seeds: int,
    *,
    noise: float,
    out: Path | None,
) -> None:
    """Runs the poisoned rounds, prints the table, and writes it with its plot."""
    console = Console(highlight=False)
    rounds = poison(pools, features, kinds, shares, range(FIRST, FIRST + seeds), noise=noise)
    found = list(_watched(rounds, 4 * len(kinds) * len(shares) * seeds, "rounds", console))
    rows = poison_rows(found)
    title = f"Poisoned rounds, {seeds} seeds: % of labels that are right by gold labels"
    table = Table(title=title, caption=_POISON_CAPTION)
    for column in ("trolls", "", "label", "honest", "absent", "trust on", "trust off"):
        table.add_column(column, justify="right" if column not in ("trolls", "label") else "left")
    for column in ("on − honest", "on − absent", "on − off", "labels"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        for label in ("imitate", "avoid"):
            table.add_row(*_poison_cells(row, label))
    _wide(console, table)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / "poison.csv", found)
        draw_poison(rows, out / "poison.png", title)
        console.print(f"{out / 'poison.csv'}, {out / 'poison.png'}")


_POISON_CAPTION = (
    "honest: the same people and turns, nobody trolls; absent: trolls press no thumb; both with trust on.\n"
    "Differences in points, paired by seed, with 95 % bootstrap intervals. labels: how many, honest and on.\n"
    "Unlike a round: no groups, thumbs count by the method alone, signals learn nothing, no history."
)


def _poison_cells(row: PoisonRow, label: str) -> list[str]:
    right = row.right[label]
    share = f"{row.trolls:.0%}" if label == "imitate" else ""
    return [
        row.kind if label == "imitate" else "",
        share,
        label,
        *(f"{100 * right[side].value:.1f}" for side in ("honest", "absent", "on", "off")),
        _points(row.lost[label], sign=True),
        _points(row.lost_to_absent[label], sign=True),
        _points(row.gained[label], sign=True),
        f"{row.turns[label]['honest']:.0f}, {row.turns[label]['on']:.0f}",
    ]


def _points(found: Interval, sign: bool = False) -> str:
    form = "+.1f" if sign else ".1f"
    return f"{100 * found.value:{form}} [{100 * found.low:{form}}, {100 * found.high:{form}}]"


def _watched(items: Iterable[Item], total: int, words: str, console: Console) -> Iterator[Item]:
    yield from track(
        items, words, total=total, console=console, transient=True, disable=not console.is_terminal
    )


def _wide(console: Console, table: Table) -> None:
    """Where nobody watches, the table gets the width that it needs."""
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)


def _write(path: Path, rows: Sequence[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
