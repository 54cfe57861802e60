"""README.md of an export: what is in it, where it comes from, who agreed, what was left out and why."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.label_info import has_key, thumbs, tripped
from bb3x_ray.data.shard import runs
from bb3x_ray.data.views import SPLITS, View
from bb3x_ray.storage import sha256_file

WHY = {
    "no_consent": "conversations whose person did not agree",
    "consent_withdrawn": "conversations whose person took their consent back",
    "no_text": "conversations of which the log holds no words",
    "unverified": "conversations with replies that a client only claims to have had (in a view: labels)",
    "not_standard": "conversations whose person tripped a safety annotation",
    "safety_unknown": "conversations without safety annotations, which are in no standard view",
    "first_message": "labels that begin a conversation, so have no context",
    "not_annotated": "labels without crowdworker annotations",
    "no_thumb": "replies without a thumb, or with contradicting ones",
}
_HOLDS = {
    "bb3": "One conversation a line, in the release format of BlenderBot 3; chunks 0 to 2 are the test set, "
    "3 to 5 validation, 6 to 99 training. It has no place for times, versions, comments, corrections and "
    "ratings of whole conversations.",
    "trl": "`prompt` (messages), `completion` (one message) and `label` (true: thumb up, or what somebody "
    "said that it should have been), for trainers of unpaired preferences such as TRL's KTO.",
    "openai": "`messages` in OpenAI's shape, one conversation a line; rated replies carry `rating` "
    "(1 or -1), `reasons`, `comment` and `correction`. It has no place for annotations, memories and search "
    "results.",
    "parquet": "The events of the interaction log: messages, and the feedback on them and their "
    "annotations that stand.",
}


@dataclass
class CardCounts:
    """Filled from the rows that are exported; counts only, no text."""

    splits: dict[str, Counter[str]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    people: set[str] = field(default_factory=set)
    bots: Counter[str] = field(default_factory=Counter)
    simulated: int = 0
    first_at: int = 0
    last_at: int = 0

    @property
    def conversations(self) -> int:
        return sum(of["conversations"] for of in self.splits.values())

    def add(self, rows: pa.Table) -> None:
        """Whole conversations, with the column `split`."""
        starts = pa.array(runs(rows["conversation_id"]))
        first = rows.select(["split", "source", "consent_basis", "person", "simulated"]).take(starts)
        self.people.update(first["person"].unique().to_pylist())
        self.sources.update(zip(first["source"].to_pylist(), first["consent_basis"].to_pylist(), strict=True))
        self.simulated += pc.sum(first["simulated"]).as_py() or 0
        bots = rows["author_name"].filter(pc.not_equal(rows["author_kind"], "person"))
        for entry in bots.value_counts().to_pylist():
            self.bots[entry["values"]] += entry["counts"]
        self._time(rows["at"])
        for split in rows["split"].unique().to_pylist():
            mine = rows.filter(pc.equal(rows["split"], split))
            count = self.splits[split]
            count["conversations"] += pc.sum(pc.equal(first["split"], split)).as_py()
            human = pc.sum(pc.equal(mine["author_kind"], "person")).as_py() or 0
            count["human"] += human
            count["bot"] += len(mine) - human
            rated = thumbs(mine["feedback"])
            count["up"] += pc.sum(pc.equal(rated, 1)).as_py() or 0
            count["down"] += pc.sum(pc.equal(rated, -1)).as_py() or 0
            count["safety"] += int(tripped(mine["details"])[1].sum())
            count["mturk"] += int(has_key(mine["details"], "mturk").sum())

    def _time(self, at: pa.ChunkedArray) -> None:
        known = at.filter(pc.greater(at, 86_400_000_000))  # sources without times count up from 0
        if len(known):
            span = pc.min_max(known).as_py()
            self.first_at = min(self.first_at or span["min"], span["min"])
            self.last_at = max(self.last_at, span["max"])


def data_card(
    folder: Path,
    format: str,
    view: View | None,
    split: str | None,
    counts: CardCounts,
    left_out: Mapping[str, int],
    cleaned: int | None,
) -> str:
    """The text of README.md for the files in `folder`. cleaned: texts changed; None: not de-identified."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    parts = [
        _front_matter(files),
        "# Conversations exported from an interaction log",
        _what(format, view, split),
    ]
    parts += ["## What is in it", _split_table(counts), _people(counts)]
    parts += ["## Where it comes from, and who agreed", _source_table(counts)]
    parts += ["## What was left out", _left_out(left_out)]
    parts += ["## De-identification", _cleaned(cleaned)]
    parts += ["## Languages", "Not determined: nothing was guessed from the texts."]
    parts += [
        "## Licence",
        "**To be filled in** by whoever publishes this; the sources above have their own terms.",
    ]
    parts += ["## Before you use it", _CAUTION]
    parts += ["## Files", _table(("file", "bytes", "sha256"), (_about(path) for path in files))]
    return "\n\n".join(parts) + "\n"


_CAUTION = (
    "What people and bots said may be offensive, wrong, or meant to provoke. A thumb is one person's "
    "opinion, and some press thumbs to mislead. Whoever asks for their words to be erased must be found here "
    "too: the pseudonyms are those of the log."
)


# Names of the files of a split: ours, and the release's chunks.
_PATTERNS = {
    "test": ("test.*", "release_data_0[0-2].jsonl"),
    "valid": ("valid.*", "release_data_0[3-5].jsonl"),
    "train": ("train.*", "release_data_0[6-9].jsonl", "release_data_[1-9][0-9].jsonl"),
}


def _front_matter(files: Sequence[Path]) -> str:
    """What Hugging Face's datasets reads to find the splits."""
    lines = ["---", "license: other", "configs:", "- config_name: default", "  data_files:"]
    for split in SPLITS:
        there = [one for one in _PATTERNS[split] if any(path.match(one) for path in files)]
        if there:
            lines += [f"  - split: {'validation' if split == 'valid' else split}", "    path:"]
            lines += [f'    - "{pattern}"' for pattern in there]
    return "\n".join([*lines, "---"])


def _what(format: str, view: View | None, split: str | None) -> str:
    holds = _HOLDS[format]
    if view is not None and format != "trl":
        holds = f"The examples of the view `{view.name}`, as {format}."
    elif format == "trl":
        holds = f"The rated labels of the view `{view.name if view else 'bot'}`: {holds}"
    return f"{holds} Made by bb3x-ray{f', of the split {split} only' if split else ''}."


def _split_table(counts: CardCounts) -> str:
    names = ("conversations", "human", "bot", "up", "down", "safety", "mturk")
    heads = ["split", "conversations", "human messages", "bot messages", "thumbs up", "thumbs down"]
    heads += ["with safety annotations", "with crowd annotations"]
    return _table(heads, ([split, *(counts.splits[split][name] for name in names)] for split in SPLITS))


def _people(counts: CardCounts) -> str:
    bots = ", ".join(f"{name} ({count})" for name, count in counts.bots.most_common(20))
    when = "at times that the sources do not tell"
    if counts.first_at:
        when = f"from {_day(counts.first_at)} to {_day(counts.last_at)} (UTC)"
    simulated = f" {counts.simulated} conversations are with simulated people." if counts.simulated else ""
    return (
        f"{len(counts.people)} people talked {when}.{simulated} Bots, with their messages: {bots or 'none'}."
    )


def _source_table(counts: CardCounts) -> str:
    rows = ([source, basis, count] for (source, basis), count in sorted(counts.sources.items()))
    return _table(("source", "consent", "conversations"), rows)


def _left_out(left_out: Mapping[str, int]) -> str:
    if not left_out:
        return "Nothing."
    return _table(
        ("reason", "how many", "which"), ([r, n, WHY.get(r, "")] for r, n in sorted(left_out.items()))
    )


def _cleaned(cleaned: int | None) -> str:
    if cleaned is None:
        return "**None.** The texts are as they were written."
    return f"Every text went through it before it was written; {cleaned} were changed."


def _about(path: Path) -> list[object]:
    return [path.name, path.stat().st_size, sha256_file(path)]


def _day(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, UTC).date().isoformat()


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(str(value).replace("|", "\\|") for value in row) + " |" for row in rows]
    return "\n".join(lines)
