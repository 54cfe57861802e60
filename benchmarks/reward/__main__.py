"""How well the reward model predicts people: `python -m benchmarks.reward [convai2 | hh | all] [--splits
20]`.

Thumbs of ConvAI2's volunteers and pairs of hh-rlhf, cut into five folds by person, many times; ours beside a
tf-idf logistic regression, the frozen encoder alone, and length and turn alone. Data: BB3X_TEST_DATA, else
../shared/data. What is found is printed beside what was to be reached, and added to
benchmarks/reward/results.jsonl.
"""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pair_features import features
from bb3x_ray.config import RewardConfig
from bb3x_ray.schemas.errors import UserError
from benchmarks.data.goals import Goal, table_of
from benchmarks.reward.arms import OURS, PLAIN, TFIDF, predict
from benchmarks.reward.findings import Findings, findings_of
from benchmarks.reward.material import Material, convai2, hh

RESULTS = Path(__file__).with_name("results.jsonl")
READ: dict[str, Callable[[Path], Material]] = {"convai2": convai2, "hh": hh}


def main() -> None:
    options = _options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=130)
    torch.set_num_threads(1)  # the matrices are small: threads mostly wait for each other
    try:
        for name in READ if options.material == "all" else (options.material,):
            _measure(READ[name](options.data), options, console)
    except UserError as error:
        console.print(f"benchmarks.reward: {error}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None


def _measure(material: Material, options: argparse.Namespace, console: Console) -> None:
    up = int(material.labels.sum())
    people = len(set(material.groups))
    console.print(f"{material.name}: {len(material.pairs)} replies, {up} of them good, of {people} groups")
    x = features(material.pairs, load_encoder(options.encoder))
    say = console.print if options.progress else (lambda line: None)
    predictions = predict(material, x, options.l2, options.splits, options.seed, say)
    found = findings_of(material, predictions, options.seed)
    console.print(_arms(material.name, found))
    console.print(table_of(f"{material.name}: goals", goals(found)))
    line = {
        "material": material.name,
        "replies": len(material.pairs),
        "groups": people,
        **{name: getattr(options, name) for name in ("splits", "seed", "l2", "encoder")},
        **asdict(found),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with options.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _arms(name: str, found: Findings) -> Table:
    table = Table(title=f"{name}: {found.measure}, mean over splits, 95 % interval over people")
    for heading in ("arm", *(view for view in found.views)):
        table.add_column(heading)
    for arm in next(iter(found.views.values())).arms:
        table.add_row(arm, *(str(view.arms[arm]) for view in found.views.values()))
    for arm in next(iter(found.views.values())).gains:
        table.add_row(f"ours − {arm}", *(str(view.gains[arm]) for view in found.views.values()))
        table.add_row("  corrected t", *(str(view.corrected[arm]) for view in found.views.values()))
    for arm in next(iter(found.views.values())).at_length:
        cells = (str(view.at_length[arm]) for view in found.views.values())
        table.add_row(f"{arm}, replies of a length", *cells)
    for reason in next(iter(found.views.values())).by_reason:
        table.add_row(f"down as {reason}", *(f"{v.by_reason[reason]:.3f}" for v in found.views.values()))
    for words, key in (
        ("calibration error, calibrated", "calibrated"),
        ("  as learned", "uncalibrated"),
        ("balanced accuracy", "balanced"),
    ):
        table.add_row(words, *(f"{getattr(view, key):.3f}" for view in found.views.values()))
    return table


def goals(found: Findings) -> list[Goal]:
    rows = []
    for name, view in found.views.items():
        least = 0.03 if found.measure == "AUROC" else 0.0
        for arm, wanted in ((TFIDF, least), (PLAIN, 0.0)):
            gain = view.gains[arm]
            text = f"≥ {wanted:.2f}, interval above 0" if wanted else "interval above 0"
            rows.append(Goal(f"{name}: ours − {arm}", str(gain), text, gain.value >= wanted and gain.low > 0))
        level, plain = view.at_length[OURS], view.at_length[PLAIN]
        reached = level.low > plain.value
        rows.append(Goal(f"{name}: replies of a length", str(level), f"above {plain.value:.3f}", reached))
        error = view.calibrated
        rows.append(Goal(f"{name}: calibration error", f"{error:.3f}", "≤ 0.05", error <= 0.05))
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.reward", description=__doc__)
    parser.add_argument("material", choices=(*READ, "all"), nargs="?", default="all")
    parser.add_argument("--splits", type=int, default=20, help="ways to cut people into 5 folds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--l2", type=float, default=RewardConfig().l2, help="default: the product's")
    parser.add_argument("--encoder", default="minilm", help="minilm, a folder or a hub name")
    here = Path(__file__).parents[2].parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BB3X_TEST_DATA", here)))
    parser.add_argument("--results", type=Path, default=RESULTS, help="where a line of JSON is added")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    if options.splits < 1:
        parser.error("one split at least")
    return options


if __name__ == "__main__":
    main()
