"""What a file gives: rows as dicts, and what was rejected, as `ingest` would number it."""

from pathlib import Path
from typing import Any

from bb3x_ray.data.parse import About, cut, parse_block


def parsed(path: Path, format: str) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    _, blocks = cut(path, format)
    rows: list[dict[str, Any]] = []
    rejects: list[tuple[int, str]] = []
    lines, file = 0, 0
    for block in blocks:
        for table in parse_block(block):
            for row in table.to_pylist():
                if row["about"] is None:
                    rows.append(row)
                    continue
                about = About.from_json(row["about"])
                lines = lines if about.file == file else 0
                rejects += [(lines + line, reason) for line, reason, _ in about.rejects]
                lines, file = lines + about.lines, about.file
    return rows, rejects
