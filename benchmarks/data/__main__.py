"""The log at the size of a deployment: `python -m benchmarks.data generate | ingest | view`.

Each measure is a subcommand; they share the deployment that `generate` writes once.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks.data import deployment, ingest, view
from benchmarks.data.goals import Goal, table_of

ROOT = Path(__file__).parents[2]


def _ingest(options: argparse.Namespace, folder: Path, aside: Path) -> list[Goal]:
    return ingest.measure(folder, aside, options.repeats)


def _view(options: argparse.Namespace, folder: Path, aside: Path) -> list[Goal]:
    return view.measure(folder, aside, options.repeats)


MEASURES: dict[str, Callable[[argparse.Namespace, Path, Path], list[Goal]]] = {
    "ingest": _ingest,
    "view": _view,
}


def main() -> None:
    options = _options()
    console = Console()
    folder = options.folder or ROOT / "build" / f"deployment-{options.conversations}"
    deployment.write(folder, options.conversations)
    chosen = list(MEASURES) if options.measure == "all" else [options.measure]
    for name in chosen if options.measure != "generate" else ():
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            found = MEASURES[name](options, folder, Path(aside))
        console.print(table_of(f"{name}: {options.conversations} conversations", found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.data", description=__doc__)
    parser.add_argument("measure", choices=("generate", *MEASURES, "all"), nargs="?", default="all")
    parser.add_argument("--conversations", type=int, default=deployment.CONVERSATIONS)
    parser.add_argument("--folder", type=Path, help="where the deployment lies, or goes; else under build/")
    parser.add_argument("--repeats", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
