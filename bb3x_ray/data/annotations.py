"""What annotators said, from their sheets into the log; and how it stands to thumbs."""

import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from bb3x_ray.data.agreement import (
    RATER,
    NoiseRates,
    Rate,
    RaterAgreement,
    agreements_of,
    label_shares,
    noise_rates,
)
from bb3x_ray.data.annotation_sample import hidden_id
from bb3x_ray.data.annotation_sheet import Problem, Row, label_of, read_sheet, weight_of
from bb3x_ray.data.collect import NotTaken, Range, collect
from bb3x_ray.data.committer import committing
from bb3x_ray.data.late_words import annotations_upto
from bb3x_ray.data.slices import conversations_of
from bb3x_ray.data.table import head, open_table, scan, stream
from bb3x_ray.schemas.conversation import LABELS, Conversation
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage

_MESSAGE = ["message_id", "conversation_id", "person", "source", "consent_basis", "simulated"]


@dataclass(frozen=True, slots=True)
class Rating:
    """A rater's label of one reply, and where it is written. `rater` is the name that was given."""

    id: str
    rater: str
    label: str
    weight: float
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class AnnotationReport:
    """Of the consented conversations of the log; see `agreement`."""

    agreements: list[RaterAgreement]
    shares: dict[str, dict[str, Rate]]
    noise: NoiseRates


@dataclass(frozen=True, slots=True)
class ImportReport:
    """
    new, known   annotations that were added, and that the log already held
    unrated      rows without a label
    doubles      rows that say again what another row says
    problems     rows that cannot be used
    found        what the log now says
    """

    new: int
    known: int
    unrated: int
    doubles: int
    problems: list[Problem]
    found: AnnotationReport


def import_ratings(
    storage: Storage, key: bytes, files: Sequence[Path], raters: Sequence[str] = (), seed: int = 0
) -> ImportReport:
    """Take ratings into the log, each rater under a pseudonym. Importing twice adds nothing; a rater who
    changed a label is taken at their last word.

    files    sheets: a column `label` of one rater, or columns `label_ann`, `label_bob` of several
    raters   names for the files' own `label` columns, in the order of the files; else a column `rater`
             names them, else the file's name does

    Raises UserError for a file that cannot be read and for one without a single good row.
    """
    sheets = read_ratings(files, raters)
    with committing(storage) as log:
        places = _places(storage, key, {one.id for one in sheets.ratings})
        sheets.check_ids(places)
        if not sheets.ratings:
            first = f": {sheets.problems[0]}" if sheets.problems else ""
            raise UserError(f"there is no rating to take in {', '.join(map(str, files))}{first}.")
        events, known = _events(sheets.ratings, places, _standing(storage), key)
        new = log.append(events)
    return ImportReport(
        new,
        known,
        sheets.unrated,
        sheets.doubles,
        sheets.problems,
        report(storage, {rater_pseudonym(key, one.rater): one.rater for one in sheets.ratings}, seed),
    )


def report(storage: Storage, names: Mapping[str, str] | None = None, seed: int = 0) -> AnnotationReport:
    """names: what to call raters by their pseudonyms, as far as they are known."""
    conversations = list(annotated_conversations(storage))
    return AnnotationReport(
        agreements_of(conversations, names, seed), label_shares(conversations), noise_rates(conversations)
    )


def annotated_conversations(storage: Storage) -> Iterator[Conversation]:
    """The consented conversations of the log with an annotated message, as they stand now."""
    for table in collect(storage, Range(0, head(storage)), NotTaken()):
        yield from conversations_of(table.filter(pc.greater(pc.list_value_length(table["annotations"]), 0)))


def rater_pseudonym(key: bytes, name: str) -> str:
    """The same for "Ann" and " ann"."""
    plain = " ".join(name.casefold().split())
    return f"{RATER}{hmac.new(key, f'rater:{plain}'.encode(), hashlib.sha256).hexdigest()[:16]}"


# Sheets


@dataclass(slots=True)
class Sheets:
    """What was read of some sheets; `problems` are rows left out."""

    ratings: list[Rating] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unrated: int = 0
    doubles: int = 0

    def add(self, rating: Rating, seen: dict[tuple[str, str], Rating]) -> None:
        """A rater's second word on a reply: the same is no news, another one cannot be told apart."""
        before = seen.setdefault((rating.id, rating.rater), rating)
        if before is rating:
            self.ratings.append(rating)
        elif before.label == rating.label:
            self.doubles += 1
        else:
            words = f"rated otherwise in {before.file}, line {before.line}; keep one of the two rows"
            self.problems.append(Problem(rating.file, rating.line, "label", words))
            if before in self.ratings:
                self.ratings.remove(before)

    def check_ids(self, places: dict[str, Any]) -> None:
        """Ratings of what the log does not hold become problems."""
        unknown = [one for one in self.ratings if one.id not in places]
        words = "no reply of this log; import it where the sheet was exported (storage.root)"
        self.problems += [Problem(one.file, one.line, "id", words) for one in unknown]
        self.ratings = [one for one in self.ratings if one.id in places]


def read_ratings(files: Sequence[Path], raters: Sequence[str] = ()) -> Sheets:
    """Raises UserError for a file that is no sheet of ratings, and for more names than files."""
    if len(raters) > len(files):
        raise UserError(f"{len(raters)} raters are named for {len(files)} files: give --rater once a file.")
    sheets, seen = Sheets(), dict[tuple[str, str], Rating]()
    for number, path in enumerate(files):
        columns, rows = read_sheet(path, sheets.problems)
        named = _rater_columns(path, columns, raters[number] if number < len(raters) else "")
        for row in rows:
            for column, rater in named.items():
                _read(sheets, seen, path.name, row, column, rater)
    return sheets


def _rater_columns(path: Path, columns: list[str], given: str) -> dict[str, str]:
    """Column of labels -> its rater's name."""
    found = {
        name: name.removeprefix("label").strip(" _-") for name in columns if re.match(r"label\b|label_", name)
    }
    if not found:
        raise UserError(f"{path}, line 1: there is no column label; the labels are {', '.join(LABELS)}.")
    return {
        name: rater or given or ("" if "rater" in columns else path.stem) for name, rater in found.items()
    }


def _read(
    sheets: Sheets, seen: dict[tuple[str, str], Rating], file: str, row: Row, column: str, rater: str
) -> None:
    def problem(field: str, words: str) -> None:
        sheets.problems.append(Problem(file, row.line, field, words))

    cells = row.cells
    if not cells[column].strip():
        sheets.unrated += 1
        return
    id, label = cells.get("id", cells.get("message_id", "")).strip(), label_of(cells[column])
    name, weight = rater or cells.get("rater", "").strip(), weight_of(cells.get("weight", ""))
    if not id:
        problem("id", "is missing; copy it from the exported sheet")
    elif label is None:
        problem(column, f"none of the labels; write {', '.join(LABELS)}, or 1 to {len(LABELS)}")
    elif not name:
        problem("rater", "is missing; fill it in, or name the rater with --rater")
    elif weight is None:
        problem("weight", "not a number above 0; copy it from the exported sheet")
    else:
        sheets.add(Rating(id, name, label, weight, file, row.line), seen)


# The log


def _places(storage: Storage, key: bytes, ids: set[str]) -> dict[str, dict[str, Any]]:
    """id in a sheet -> what the log says of its message. Ids may be hidden ones, or the messages' own."""
    table = open_table(storage)
    if table is None or not ids:
        return {}
    wanted: dict[str, set[str]] = {}
    for batch in stream(storage, table, ["kind", "message_id"]):
        messages = batch.filter(pc.equal(batch["kind"], "message"))
        for message_id in messages["message_id"].to_pylist():
            for one in {message_id, hidden_id(key, message_id)} & ids:
                wanted.setdefault(message_id, set()).add(one)
    mine = ds.field("message_id").isin(pa.array(wanted, pa.string()))
    rows = scan(storage, table, _MESSAGE, (ds.field("kind") == "message") & mine)
    return {one: row for row in rows.to_pylist() for one in wanted[row["message_id"]]}


def _standing(storage: Storage) -> dict[tuple[str, str], tuple[str, str]]:
    """(message, rater) -> (label, event id) that stand."""
    return {
        (one.message_id, one.rater): (one.label, one.event_id)
        for several in annotations_upto(storage, head(storage)).values()
        for one in several
    }


def _events(
    ratings: Iterable[Rating],
    places: dict[str, dict[str, Any]],
    standing: dict[tuple[str, str], tuple[str, str]],
    key: bytes,
) -> tuple[list[Event], int]:
    """(events of what is new, how many labels stand already). An event's id follows from what it says and
    from the word before it, so that a rater may go back to an earlier label."""
    events, known, now = list[Event](), 0, time.time_ns() // 1000
    for one in ratings:
        place, rater = places[one.id], rater_pseudonym(key, one.rater)
        label, before = standing.get((place["message_id"], rater), ("", ""))
        if label == one.label:
            known += 1
            continue
        said = "\0".join((place["message_id"], rater, one.label, before))
        event = Event(
            event_id=f"a-{hashlib.sha256(said.encode()).hexdigest()[:32]}",
            kind="annotation",
            at=now,
            author_kind="person",
            author_name=rater,
            reasons=(one.label,),
            weight=one.weight,
            **place,
        )
        events.append(event)
    return events, known
