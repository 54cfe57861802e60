"""Why people of a round are distrusted, as a table; their words only where somebody asks for them."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bb3x_ray.data import slices
from bb3x_ray.reward.signals import context_text
from bb3x_ray.reward.trust.report import JudgedThumb, PersonReport, load_report
from bb3x_ray.rounds.ledger import Ledger
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage

MOST_PEOPLE, MOST_THUMBS = 30, 5


@dataclass(frozen=True, slots=True)
class RoundTrust:
    """Everybody of a round, the least trusted first, and those of them who are shown."""

    storage: Storage
    number: int
    everybody: list[PersonReport]
    shown: list[PersonReport]


def find_report(
    storage: Storage, number: int | None = None, person: str | None = None, everybody: bool = False
) -> RoundTrust:
    """Trust of round `number`, else of the last that has a score.

    person      show only this person
    everybody   show those too who are trusted

    Raises UserError where there is no such round or person.
    """
    ledger = Ledger(storage)
    done = [n for n in _rounds(storage) if ledger.is_done(f"rounds/{n:04d}", "score")]
    if not done or (number is not None and number not in done):
        what = "no round has" if number is None else f"round {number} does not have"
        raise UserError(
            f"{storage.root}: {what} a score step that is done; `bb3x run` makes rounds, and storage.root= "
            "names another store."
        )
    number = number or done[-1]
    people = load_report(ledger.folder(f"rounds/{number:04d}", "score"))
    shown = [p for p in people if p.person == person] if person else people
    if person and not shown:
        raise UserError(
            f"round {number} knows nobody called {person}: leave --person out to see who there is."
        )
    if not person and not everybody:
        shown = [p for p in people if p.distrusted or p.group is not None]
    return RoundTrust(storage, number, people, shown)


def _rounds(storage: Storage) -> list[int]:
    folder = storage.path("rounds")
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def show_report(
    found: RoundTrust, console: Console, with_thumbs: bool = False, show_text: bool = False
) -> None:
    """The table; then, for each person where asked for, thumbs with what the models said.

    show_text   also what was said. Raises UserError where the console is no terminal: people's words do not
                belong into files and pipes
    """
    if show_text and not console.is_terminal:
        raise UserError("--show-text is for a terminal: run it without a pipe or a file behind it.")
    distrusted = sum(p.distrusted for p in found.everybody)
    groups = len({p.group for p in found.everybody if p.group is not None})
    console.print(
        f"Round {found.number}: {len(found.everybody)} people, {distrusted} distrusted, {groups} groups."
    )
    shown = found.shown[:MOST_PEOPLE]
    if shown:
        wide = console if console.is_terminal else Console(file=console.file, highlight=False, width=170)
        wide.print(_table(shown))
    if len(found.shown) > len(shown):
        console.print(f"{len(found.shown) - len(shown)} more: --json has them all.")
    if with_thumbs or show_text:
        words = _words(found, shown) if show_text else {}
        for person in shown:
            _print_thumbs(console, person, words, None if with_thumbs else MOST_THUMBS)


def _table(people: list[PersonReport]) -> Table:
    table = Table()
    for column in ("person", "trust", "thumbs", "against", "why"):
        table.add_column(column, justify="right" if column in ("trust", "thumbs", "against") else "left")
    for p in people:
        trust = Text(f"{p.trust:.2f}", style="red" if p.distrusted else "")
        against = f"{len(p.against)} of {len(p.judged)}" if p.judged else ""
        table.add_row(Text(p.person), trust, str(p.thumbs), against, Text(p.why))
    return table


def _print_thumbs(
    console: Console, person: PersonReport, words: dict[str, tuple[str, str]], most: int | None
) -> None:
    console.print(Text(f"\n{person.person}: thumbs of this round, the most off first", style="bold"))
    for thumb in person.judged[:most]:
        console.print(Text(f"  {_told(thumb)}  {thumb.message_id}"), soft_wrap=True)
        for who, text in zip(("said to the bot", "the bot"), words.get(thumb.message_id, ()), strict=False):
            plain = "".join(c if c.isprintable() else " " for c in text)
            console.print(Text(f"      {who}: {plain}", style="dim"))


def _told(thumb: JudgedThumb) -> str:
    return f"{'up  ' if thumb.label else 'down'}  models: {thumb.said:4.0%} up, off by {thumb.off:.2f}"


def _words(found: RoundTrust, people: list[PersonReport]) -> dict[str, tuple[str, str]]:
    """message_id -> (the message that was answered, the reply), of the slices up to this round."""
    wanted = {thumb.message_id for person in people for thumb in person.judged}
    names = {person.person for person in people}
    words: dict[str, tuple[str, str]] = {}
    for number in range(1, found.number + 1):
        for conversation in slices.open_slice(found.storage, f"rounds/{number:04d}/collect").conversations():
            if conversation.person not in names:
                continue
            for index, message in enumerate(conversation.messages):
                if message.message_id in wanted:
                    heard = context_text(conversation.context_of(index)).partition("\n")[0]
                    words[message.message_id] = (heard, message.text)
    return words


def report_as_json(found: RoundTrust) -> dict[str, Any]:
    """For programs; without anybody's words."""
    return {
        "round": found.number,
        "people": len(found.everybody),
        "distrusted": sum(p.distrusted for p in found.everybody),
        "shown": [
            {
                "person": p.person,
                "trust": p.trust,
                "distrusted": p.distrusted,
                "thumbs": p.thumbs,
                "right_about_good": p.right[0],
                "right_about_bad": p.right[1],
                "group": p.group,
                "why": p.why,
                "judged": [
                    {"message_id": t.message_id, "thumb": t.label, "models": t.said, "off": t.off}
                    for t in p.judged
                ],
            }
            for p in found.shown
        ],
    }
