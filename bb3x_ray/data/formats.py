"""The formats of recorded talk: what each is, and who reads it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bb3x_ray.data.parsed_rows import Row
from bb3x_ray.data.readers import bb3, chitchat, convai2, hh_rlhf, open_webui, openai
from bb3x_ray.data.readers.json_records import OnReject
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event

# Appends the events of one JSON object to the rows, or raises ValueError with the reason.
AddRecord = Callable[[dict[str, Any], list[Row], int | None], None]
# Events of a whole file; bad entries are reported.
ReadFile = Callable[[Path, OnReject], Iterator[Event]]

JSON_ENDINGS = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz")


@dataclass(frozen=True, slots=True)
class Format:
    """Either `add` (one JSON object a line, or an array of them) or `read` (a file that only makes sense
    whole) is there; Parquet, which is rows already, has neither.

    keys   an object that holds none of them is no entry
    writes whether `bb3x export` writes it
    """

    name: str
    about: str
    add: AddRecord | None = None
    keys: tuple[str, ...] = ()
    read: ReadFile | None = None
    reads: bool = True
    writes: bool = False
    endings: tuple[str, ...] = JSON_ENDINGS


_ALL = (
    Format("bb3", "BlenderBot 3's release: a conversation a line, in chunks", bb3.add, bb3.KEYS, writes=True),
    Format("chitchat", "people with people: the installed package, or its JSON", read=chitchat.read),
    Format("convai2", "ConvAI2's volunteers: thumbs, a score per dialog", read=convai2.read),
    Format("hh-rlhf", "pairs of a chosen and a rejected reply", hh_rlhf.add, hh_rlhf.KEYS),
    Format("open-webui", "Open WebUI's feedback export", read=open_webui.read),
    Format("openai", "chat messages, with or without thumbs", openai.add, openai.KEYS, writes=True),
    Format("parquet", "events as rows: our own export", writes=True, endings=(".parquet",)),
    Format("trl", "prompt, completion, label, for TRL's KTO", reads=False, writes=True),
)
FORMATS: dict[str, Format] = {one.name: one for one in _ALL}


def readable(name: str) -> Format:
    """Raises UserError for a name that is none, or a format that is only written."""
    if name not in FORMATS or not FORMATS[name].reads:
        known = ", ".join(one.name for one in _ALL if one.reads)
        raise UserError(f"unknown format {name!r}: the formats are {known}.")
    return FORMATS[name]


def file_of(path: Path, name: str) -> Path:
    """What to read: `path`, or for `package` the installed package's file. Raises UserError where it is
    not."""
    return chitchat.package_file() if name == "chitchat" and path == Path("package") else path
