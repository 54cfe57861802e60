"""The log, or a view of it, as files for others: consented talk only, cleaned, with a data card.

Written aside as a stream and published by one rename: an export that is killed leaves nothing at its
place, and the next one to the same place removes what it left beside it.
"""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.consented import consented
from bb3x_ray.data.data_card import CardCounts, data_card
from bb3x_ray.data.export_formats import FORMATS, Writer
from bb3x_ray.data.shard import runs
from bb3x_ray.data.shards import shards
from bb3x_ray.data.views import View, of_split, wrong_name
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import EVENT_SCHEMA
from bb3x_ray.storage import Storage, fsync_path

# (text, the pseudonym of the conversation's person) -> the text that may leave the log.
Clean = Callable[[str, str], str]

CARD = "README.md"
_COLUMNS = [name for name in EVENT_SCHEMA.names if name != "commit_seq"]
_KINDS = ("message", "feedback", "annotation", "consent")
# Values of `details` that are words of a fixed vocabulary, not of people or pages.
_FIXED = frozenset(
    {"safety", "reward", "mturk", "memory_decision", "search_decision", "dislike_type"}
    | {"previous_interaction_failure", "bot_message_id", "human_message_id"}
)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """`records`: lines or rows written; `left_out`: reason -> conversations, or labels where a view is
    exported; `cleaned`: texts that de-identification changed."""

    records: int
    conversations: int
    left_out: dict[str, int] = field(default_factory=dict)
    cleaned: int = 0


def export(
    storage: Storage,
    out: str | Path,
    format: str,
    view: View | None = None,
    split: str | None = None,
    clean: Clean | None = None,
    upto_seq: int | None = None,
) -> ExportReport:
    """Write `format` into the new folder `out`, with README.md, the data card.

    view   its examples instead of whole conversations (trl: bot, if none is given; bb3: none)
    split  of this one only; None: all
    clean  applied to every text and to the words in `details`; None: as they are

    Raises UserError for an unknown format, a view that the format does not know, a place that is
    taken, and when nothing may be exported.
    """
    make = _format_named(format)
    make.check(view)
    out = Path(out).expanduser().absolute()
    left_out: Counter[str] = Counter()
    counts, cleaner = CardCounts(), _Cleaner(clean)
    with _published(out) as folder:
        writer = make(folder, view, left_out)
        try:
            for rows in shards(storage, _COLUMNS, upto_seq, _KINDS):
                rows = of_split(consented(rows, left_out), split)
                if make.leaves_out_unverified:
                    rows = _verified(rows, left_out)
                rows = cleaner(rows)
                if len(rows):
                    counts.add(rows)
                    writer.write(rows)
        finally:
            writer.close()
        left_out = Counter({reason: count for reason, count in left_out.items() if count})
        if not writer.records:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
            raise UserError(
                f"there is nothing to export as {format} under {storage.root}"
                f"{' (left out: ' + reasons + ')' if reasons else ''}: nothing was written."
            )
        card = data_card(
            folder, format, view, split, counts, left_out, None if clean is None else cleaner.changed
        )
        (folder / CARD).write_text(card, encoding="utf-8")
    return ExportReport(writer.records, counts.conversations, dict(left_out), cleaner.changed)


def _format_named(name: str) -> type[Writer]:
    if name not in FORMATS:
        raise UserError(wrong_name("export format", name, FORMATS))
    return FORMATS[name]


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, which becomes `out` when the block ends without an error."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: give a new folder, or remove it first.")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.unfinished")
    aside.mkdir(exist_ok=True)
    lock = os.open(aside, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another export to {out} is under way: wait for it, or give another folder."
            ) from None
        for left in aside.iterdir():  # by an export that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield aside
            for path in aside.rglob("*"):
                fsync_path(path)
            os.replace(aside, out)
            fsync_path(out.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _verified(rows: pa.Table, left_out: Counter[str]) -> pa.Table:
    """Without conversations in which a client only claims what the bot said: the format cannot say so."""
    unverified = pc.equal(rows["author_kind"], "unverified")
    if not pc.any(unverified).as_py():
        return rows
    starts = runs(rows["conversation_id"])
    claimed = np.logical_or.reduceat(unverified.to_numpy(), starts)
    left_out["unverified"] += int(claimed.sum())
    return rows.filter(pa.array(np.repeat(~claimed, np.diff(np.append(starts, len(rows))))))


class _Cleaner:
    """Rows -> rows whose texts went through `clean`; counts how many of them it changed."""

    def __init__(self, clean: Clean | None) -> None:
        self._clean = clean
        self.changed = 0

    def __call__(self, rows: pa.Table) -> pa.Table:
        if self._clean is None or not len(rows):
            return rows
        people = rows["person"].to_pylist()
        text = [self._text(t, p) for t, p in zip(rows["text"].to_pylist(), people, strict=True)]
        details = [self._details(d, p) for d, p in zip(rows["details"].to_pylist(), people, strict=True)]
        feedback = [self._feedback(f) for f in rows["feedback"].to_pylist()]
        for name, values in (("text", text), ("details", details), ("feedback", feedback)):
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, pa.array(values, rows.schema.field(name).type))
        return rows

    def _text(self, text: str, person: str) -> str:
        assert self._clean is not None
        cleaned = self._clean(text, person)
        self.changed += cleaned != text
        return cleaned

    def _details(self, details: str | None, person: str) -> str | None:
        if details is None:
            return None
        return json.dumps(self._words(json.loads(details), person), ensure_ascii=False)

    def _words(self, value: Any, person: str) -> Any:
        if isinstance(value, str):
            return self._text(value, person) if value else value
        if isinstance(value, list):
            return [self._words(one, person) for one in value]
        if isinstance(value, dict):
            return {k: v if k in _FIXED else self._words(v, person) for k, v in value.items()}
        return value

    def _feedback(self, feedback: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        if feedback is None:
            return None
        return [
            {**one, **{name: self._text(one[name], one["person"]) for name in ("comment", "correction")}}
            for one in feedback
        ]
