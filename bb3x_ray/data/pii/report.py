"""Precision and recall of the finders on labelled texts: `python -m bb3x_ray.data.pii.report FILE.jsonl …`.

A labelled file has one JSON object a line; "text" holds what is to be found between tags named by its kind:

    {"text": "write to <mail>ann@post.at</mail>, I am 25"}
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bb3x_ray.data.pii.found import KINDS, Found
from bb3x_ray.schemas.errors import UserError

_TAG = re.compile(rf"<({'|'.join(KINDS)})>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Case:
    """A text without tags, and the places in it that a finder should find."""

    text: str
    labels: tuple[Found, ...]


@dataclass(slots=True)
class Score:
    """right: found whole, as this kind. missed: not. wrong: found where there is nothing of the kind."""

    right: int = 0
    missed: int = 0
    wrong: int = 0

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


@dataclass(slots=True)
class Report:
    """cases: texts. clean: texts without labels. touched: those of them in which something was found.
    hidden: labelled places that were covered whole, by whatever kind."""

    kinds: dict[str, Score] = field(default_factory=lambda: {kind: Score() for kind in KINDS})
    cases: int = 0
    clean: int = 0
    touched: int = 0
    labels: int = 0
    hidden: int = 0
    failures: list[tuple[Case, list[Found]]] = field(default_factory=list)


def read_cases(file: Path) -> list[Case]:
    """The cases of a labelled file. UserError for a line that is none."""
    cases = []
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8: convert it first.") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            cases.append(parse_case(json.loads(line)["text"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{file}, line {number}: not a labelled text; write {{"text": "…"}} '
                f"with tags from {', '.join(KINDS)}."
            ) from error
    return cases


def parse_case(marked: str) -> Case:
    """Take the tags out of a text."""
    text, labels, end = "", [], 0
    for match in _TAG.finditer(marked):
        text += marked[end : match.start()]
        kind = next(kind for kind in KINDS if kind == match[1])
        labels.append(Found(kind, len(text), len(text) + len(match[2]), match[2]))
        text += match[2]
        end = match.end()
    return Case(text + marked[end:], tuple(labels))


def measure(cases: Iterable[Case], find: Callable[[str], list[Found]]) -> Report:
    """Compare what is found with what should be."""
    report = Report()
    for case in cases:
        found = find(case.text)
        report.cases += 1
        report.clean += not case.labels
        report.touched += not case.labels and bool(found)
        report.labels += len(case.labels)
        report.hidden += sum(any(_covers(one, label) for one in found) for label in case.labels)
        if not _count(report, case, found):
            report.failures.append((case, found))
    return report


def _count(report: Report, case: Case, found: list[Found]) -> bool:
    """Add one case; whether nothing was missed or wrong in it."""
    faultless = True
    for label in case.labels:
        right = any(one.kind == label.kind and _covers(one, label) for one in found)
        report.kinds[label.kind].right += right
        report.kinds[label.kind].missed += not right
        faultless &= right
    for one in found:
        meant = any(one.kind == label.kind and _overlap(one, label) for label in case.labels)
        report.kinds[one.kind].wrong += not meant
        faultless &= meant
    return faultless


def _covers(found: Found, label: Found) -> bool:
    return found.start <= label.start and label.end <= found.end


def _overlap(one: Found, other: Found) -> bool:
    return one.start < other.end and other.start < one.end


def table(report: Report) -> str:
    """The report as lines of text; it quotes no case."""
    lines = [
        f"{'kind':15} {'labels':>6} {'right':>6} {'missed':>6} {'wrong':>6} {'precision':>9} {'recall':>7}"
    ]
    for kind, score in report.kinds.items():
        if score.right + score.missed + score.wrong:
            lines.append(
                f"{kind:15} {score.right + score.missed:6} {score.right:6} {score.missed:6} {score.wrong:6} "
                f"{score.precision:9.3f} {score.recall:7.3f}"
            )
    lines.append(
        f"{report.cases} texts; {report.clean} hold nothing, {report.touched} of them were touched; "
        f"{report.hidden} of {report.labels} places hidden, whatever the kind"
    )
    return "\n".join(lines)


def main(files: list[str]) -> None:
    """Print the report of each file."""
    from bb3x_ray.data.deidentify import Deidentifier

    find = Deidentifier(b"a key for the report").find
    for file in files:
        sys.stdout.write(f"{file}\n{table(measure(read_cases(Path(file)), find))}\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
