"""The log at the size of a deployment: `python -m benchmarks.data [MEASURE | all | growth | generate]`.

Measures share the deployment that `generate` writes once, and the store that `ingest` leaves. What they find
is printed beside what was to be reached, and added to build/bench-data/results.jsonl.
"""

import argparse
import traceback
from pathlib import Path

from rich.console import Console

from bb3x_ray.schemas.errors import UserError
from benchmarks.data import deployment, growth, measures
from benchmarks.data.goals import table_of

BUILD = Path(__file__).parents[2] / "build"


def main() -> None:
    options = _options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # a table that goes into a file is not squeezed
    try:
        failed = (
            growth.grow(_plan(options), console)
            if options.measure == "growth"
            else _measure(options, console)
        )
    except UserError as error:
        console.print(f"bench-data: {error}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    for one in failed:
        console.print(f"bench-data: failed: {one}", style="red", highlight=False, soft_wrap=True)
    if failed:
        raise SystemExit(1)


def _measure(options: argparse.Namespace, console: Console) -> list[str]:
    """Returns what failed; the others are measured all the same."""
    chosen = list(measures.MEASURES) if options.measure == "all" else [options.measure]
    folder = options.folder or options.deployments / f"deployment-{options.conversations}"
    root = options.out / f"store-{folder.name}"
    if options.measure != "acks":
        deployment.write(folder, options.conversations)
    root.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in chosen if options.measure != "generate" else ():
        try:
            goals, result = measures.run(
                name, options.conversations, folder, root, options.repeats, options.out / "results.jsonl"
            )
        except Exception as error:  # told here and at the end; what the others find is not lost
            traceback.print_exc()
            failed.append(f"{name}: {type(error).__name__}: {error}")
            continue
        of = f": {result.conversations} conversations" if result.conversations else ""
        console.print(table_of(f"{name}{of}", goals))
    return failed


def _plan(options: argparse.Namespace) -> growth.Plan:
    return growth.Plan(
        sizes=options.sizes,
        names=options.measures,
        deployments=options.deployments,
        stores=options.out / "growth",
        results=options.out / "results.jsonl",
        plot=options.plot,
        keep=options.keep,
        repeats=options.repeats,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.data", description=__doc__)
    known = ("generate", *measures.MEASURES, "all", "growth")
    parser.add_argument("measure", choices=known, nargs="?", default="all")
    parser.add_argument("--conversations", type=int, default=deployment.CONVERSATIONS)
    parser.add_argument("--folder", type=Path, help="where the deployment lies, or goes")
    parser.add_argument("--deployments", type=Path, default=BUILD, help="else it is deployment-N in here")
    parser.add_argument("--out", type=Path, default=BUILD / "bench-data", help="results.jsonl and the stores")
    parser.add_argument("--repeats", type=int, default=1)
    of_growth = parser.add_argument_group("growth")
    of_growth.add_argument("--sizes", type=_numbers, default=growth.SIZES, help="conversations, by commas")
    of_growth.add_argument("--measures", type=_names, default=measures.OF_SIZE, help="by commas")
    of_growth.add_argument(
        "--keep", action="store_true", help="measure only what results.jsonl does not hold"
    )
    plot = BUILD.parent / "docs" / "img" / "data_growth.png"
    of_growth.add_argument("--plot", type=Path, default=plot)
    options = parser.parse_args()
    if min(*options.sizes, options.conversations, options.repeats) < 1:
        parser.error("sizes and repeats are 1 at least")
    return options


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _names(text: str) -> list[str]:
    wrong = set(text.split(",")) - set(measures.OF_SIZE)
    if wrong:
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(wrong))}: known are {', '.join(measures.OF_SIZE)}"
        )
    return text.split(",")


if __name__ == "__main__":
    main()
