"""An analysis printed, drawn, and as a page that needs no other file."""

import base64
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bb3x_ray.data.analysis import KINDS_OF_TALK, Analysis, Share
from bb3x_ray.data.analysis_plots import plots
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import write_atomic, write_json

PAGE, COUNTS = "index.html", "analysis.json"
_MOST_VERSIONS = 20


@dataclass(frozen=True, slots=True)
class Section:
    """A table: `heads` name the columns; the first column is words, the others are numbers."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def print_report(found: Analysis, console: Console) -> None:
    """Tables; without lines and colours where the console is no terminal."""
    for section in sections(found):
        table = Table(
            title=section.title,
            title_justify="left",
            caption=section.note or None,
            caption_justify="left",
            box=box.ROUNDED if console.is_terminal else None,
            title_style="bold",
            caption_style="dim",
        )
        for number, head in enumerate(section.heads):
            table.add_column(head, justify="right" if number and head else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*(Text(value) for value in row))
        console.print(table)
        console.print()


def write_report(found: Analysis, out: str | Path) -> Path:
    """Plots as PNG, counts as JSON, and `index.html` with all of it, into `out`. Returns the page.

    Raises UserError where `out` is a file.
    """
    out = Path(out).expanduser()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder for the plots.")
    out.mkdir(parents=True, exist_ok=True)
    drawn = plots(found)
    for name, png in drawn.items():
        (out / f"{name}.png").write_bytes(png)
    write_json(out / COUNTS, found.to_dict())
    write_atomic(out / PAGE, page(found, drawn))
    return out / PAGE


def page(found: Analysis, drawn: dict[str, bytes]) -> str:
    """HTML with the plots inside."""
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>Interaction log</title>", _STYLE]
    parts.append("<h1>Interaction log</h1>")
    parts += [_html_table(section) for section in sections(found)]
    for name, png in drawn.items():
        data = base64.b64encode(png).decode()
        parts.append(f'<img alt="{html.escape(name.replace("_", " "))}" src="data:image/png;base64,{data}">')
    return "\n".join(parts) + "\n</html>\n"


_STYLE = (
    "<meta name=viewport content='width=device-width'><style>body{font:16px/1.4 system-ui,sans-serif;"
    "max-width:60rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;margin:1.5rem 0}"
    "caption{text-align:left;font-weight:600;padding:.3rem 0}td,th{padding:.15rem .8rem .15rem 0;"
    "border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}"
    "p{color:#555;margin-top:-1rem}img{max-width:100%;display:block;margin:2rem 0}</style>"
)


def _html_table(section: Section) -> str:
    def row(values: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

    lines = [f"<table><caption>{html.escape(section.title)}</caption>", row(section.heads, "th")]
    lines += [row(values, "td") for values in section.rows]
    note = f"<p>{html.escape(section.note)}</p>" if section.note else ""
    return "\n".join(lines) + "</table>" + note


# What stands in the tables


def sections(found: Analysis) -> list[Section]:
    """Tables of what there is; what a log lacks (annotations, times) gets none."""
    made = [_overview(found), _safety(found), _reasons(found), _versions(found), _quality(found)]
    made += [_agreement(found), _lengths(found)]
    return [section for section in made if section is not None]


def _overview(found: Analysis) -> Section:
    replies = found.messages["bot"]
    rows = [
        ("conversations", f"{found.conversations:,}", ""),
        ("people", f"{len(found.people):,}", ""),
        ("utterances", f"{found.utterances:,}", ""),
        ("  of people", f"{found.messages['human']:,}", ""),
        ("  of bots", f"{replies:,}", ""),
        (
            "thumbs up",
            f"{found.thumbs['up']:,}",
            _of(Share(found.thumbs["up"], replies), "of bots' messages"),
        ),
        (
            "thumbs down",
            f"{found.thumbs['down']:,}",
            _of(Share(found.thumbs["down"], replies), "of bots' messages"),
        ),
        ("comments", f"{found.thumbs['with_comment']:,}", "feedback in words"),
    ]
    if found.days:
        days = sorted(found.days)
        rows.append(("days with talk", f"{len(days):,}", f"{days[0]} to {days[-1]}, UTC"))
    if found.ratings:
        total = sum(found.ratings.values())
        mean = sum(rating * count for rating, count in found.ratings.items()) / total
        rows.append(("rated conversations", f"{total:,}", f"mean {mean:.2f} of 5"))
    if found.simulated:
        rows.append(("simulated", f"{found.simulated:,}", "conversations with simulated people"))
    if found.without_text:
        rows.append(("without text", f"{found.without_text:,}", "messages that nobody agreed to keep"))
    rows += [
        (f"from {source}", f"{count:,}", "conversations") for source, count in found.sources.most_common()
    ]
    return Section("Interaction log", ("", "count", ""), rows)


def _safety(found: Analysis) -> Section | None:
    if not any(count["annotated"] for count in found.unsafe.values()):
        return None
    talk = [(f"{kind} conversations", _of(found.share_of_talk(kind))) for kind in KINDS_OF_TALK[:2]]
    rows = [*talk, ("adversarial people", _of(found.share_of_people))]
    for side, name in (("human", "unsafe messages of people"), ("bot", "unsafe messages of bots")):
        count = found.unsafe[side]
        rows.append((name, _of(Share(count["unsafe"], count["annotated"]))))
    note = "Adversarial: some message of the person tripped a safety annotation."
    if found.talk["unknown"]:
        note += f" {found.talk['unknown']:,} conversations without annotations are left out."
    return Section("Standard and adversarial talk", ("", "share [95 %]"), rows, note)


def _reasons(found: Analysis) -> Section | None:
    if not found.reasons:
        return None
    down = found.thumbs["down"]
    rows = [(reason, f"{n:,}", _of(Share(n, down))) for reason, n in found.reasons.most_common()]
    return Section("Why thumbs went down", ("reason", "count", "share of thumbs down"), rows)


def _versions(found: Analysis) -> Section:
    replies = sorted(found.versions.items(), key=lambda item: (-item[1]["replies"], item[0]))
    rows = []
    for name, count in replies[:_MOST_VERSIONS]:
        shares = (_of(Share(count[side], count["replies"])) for side in ("up", "down"))
        rows.append((name, f"{count['replies']:,}", *shares))
    note = "Thumbs of one person are not independent: these intervals are narrow."
    if len(replies) > _MOST_VERSIONS:
        note += f" {len(replies) - _MOST_VERSIONS} more are not shown."
    return Section("Thumbs by version", ("version", "replies", "up [95 %]", "down [95 %]"), rows, note)


def _quality(found: Analysis) -> Section | None:
    talks = [talk for talk in ("all", *KINDS_OF_TALK) if any(key[0] == talk for key in found.quality)]
    sides = [(talk, side) for talk in talks for side in ("human", "bot") if (talk, side) in found.quality]
    if not sides:
        return None
    rows = [
        (name, *(_of(found.quality_of(talk, side, name)) for talk, side in sides))
        for name in found.annotations()
    ]
    rows.append(("messages", *(f"{found.quality[key]['messages']:,}" for key in sides)))
    heads = ["crowdworkers say", *(f"{side}, {talk}" for talk, side in sides)]
    return Section("Quality of messages", heads, rows, "Where annotators differ, a message counts in parts.")


def _agreement(found: Analysis) -> Section | None:
    if not found.agreement:
        return None
    rows = [
        (name, f"{count['total']:,}", _of(Share(count["agrees"], count["total"])))
        for name, count in sorted(found.agreement.items())
    ]
    note = "With the crowd: up and good, down and not good. With ratings: up and 4 or 5, down and 1 or 2."
    return Section("Do thumbs agree with annotations", ("", "both there", "agree [95 %]"), rows, note)


def _lengths(found: Analysis) -> Section:
    measured: list[tuple[str, Counter[int]]] = [
        ("messages of a conversation", found.turns),
        ("words of a person's message", found.words["human"]),
        ("words of a bot's message", found.words["bot"]),
        ("minutes of a conversation", found.minutes),
    ]
    rows = [(name, *(f"{q:,}" for q in _quantiles(counts))) for name, counts in measured if counts]
    return Section("Lengths", ("", "median", "90 %", "99 %", "longest"), rows)


def _quantiles(counts: Counter[int]) -> list[int]:
    total, found, passed = sum(counts.values()), [], 0
    wanted = [0.5, 0.9, 0.99, 1.0]
    for value in sorted(counts):
        passed += counts[value]
        while wanted and passed >= wanted[0] * total:
            found.append(value)
            wanted.pop(0)
    return found


def _of(share: Share, words: str = "") -> str:
    """12.3 % [11.0, 13.7] of 1,234."""
    if not share.total:
        return "–"
    low, high = share.interval
    percent = f"{100 * share.value:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"
    return f"{percent} {words}" if words else percent
