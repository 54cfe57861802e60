"""What several commands take."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="YAML file; see configs/.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides, for instance rounds=3 train.lr=2e-5.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
LOCAL, RECORDED = Path("configs/local.yaml"), Path("configs/recorded.yaml")
