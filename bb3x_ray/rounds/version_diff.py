"""How two versions differ: lineage, config, verdict, and every tensor, one at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bb3x_ray.language.weight_change import Change, changes
from bb3x_ray.language.weights import WeightFiles
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.versions import About, about
from bb3x_ray.storage import Storage, read_json

_VERDICT = {
    "good": ("B", "candidate", "good", "value"),
    "unsafe": ("B", "candidate", "unsafe", "value"),
    "gain at equal length": ("B", "equal_length", "gain", "value"),
    "over the best null": ("B", "best_null", "candidate_minus_it", "value"),
    "perplexity": ("perplexity", "candidate"),
}


def diff(storage: Storage, first: str, second: str, most: int, console: Console) -> None:
    """Print it. `most` tensors are shown, those that changed most; the others are summed up.

    Raises UserError for a version that is not there, or whose files were altered.
    """
    models, one, other = Registry(storage, "models"), about(storage, first), about(storage, second)
    folders = models.folder(first), models.folder(second)
    pair = (one, other)
    console.print(_differences("lineage", pair, _flat(one.lineage), _flat(other.lineage)))
    console.print(_differences("config.json", pair, _config(folders[0]), _config(folders[1])))
    console.print(_differences("verdict", pair, _verdict(one), _verdict(other), alike=True))
    _print_tensors(changes(*(WeightFiles(folder) for folder in folders)), most, console)


def _differences(
    title: str, pair: tuple[About, About], a: dict[str, str], b: dict[str, str], *, alike: bool = False
) -> Table:
    """Rows that differ; all of them with `alike`."""
    table = Table("", *(one.version for one in pair), title=title, title_justify="left")
    for name in dict.fromkeys([*a, *b]):
        if alike or a.get(name) != b.get(name):
            table.add_row(*map(escape, (name, a.get(name, ""), b.get(name, ""))))
    return table


def _flat(values: dict[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in sorted(values.items()):
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            found[f"{before}{name}"] = f"{len(value)} entries"
        else:
            found[f"{before}{name}"] = f"{value:.6g}" if isinstance(value, float) else str(value)
    return found


def _config(folder: Path) -> dict[str, str]:
    path = folder / "config.json"
    return {name: json.dumps(value) for name, value in read_json(path).items()} if path.is_file() else {}


def _verdict(one: About) -> dict[str, str]:
    if one.verdict is None:
        return {}
    found = {"passed": "yes" if one.verdict.passed else "no", "against": one.verdict.champion}
    for name, path in _VERDICT.items():
        value: Any = one.verdict.numbers
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            found[name] = f"{value:.4f}"
    return found


def _print_tensors(found: Iterator[Change], most: int, console: Console) -> None:
    every = sorted(found, key=lambda change: -change.relative)
    table = Table("tensor", "shape", "relative change", title="weights", title_justify="left")
    for change in every[:most]:
        relative = change.why or f"{change.relative:.3e}"
        table.add_row(escape(change.name), "×".join(map(str, change.shape)), relative)
    console.print(table)
    same = sum(not change.why and not change.relative for change in every)
    console.print(f"{len(every)} tensors, {same} of them the same, {max(0, len(every) - most)} not shown")
