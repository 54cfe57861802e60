"""What the analysis counts, against a log small enough to count by hand."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bb3x_ray.data.analysis import Analysis, Share, analyze
from bb3x_ray.data.analysis_report import print_report, sections, write_report
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import Event
from bb3x_ray.storage import Storage
from tests.data.make import commit, said, talk, thumb
from tests.data.release import OK, UNSAFE

DAY = 1_700_000_000_000_000  # 14 November 2023, 22:13:20 UTC


def annotated(event: Event, safety: dict[str, str] | None = None, **mturk: float) -> Event:
    details = {**({"safety": safety} if safety else {}), **({"mturk": mturk} if mturk else {})}
    return replace(event, details=json.dumps(details))


@pytest.fixture
def log(storage: Storage) -> Storage:
    standard = [replace(event, at=DAY + 60_000_000 * event.position) for event in talk("s", 6)]  # type: ignore[operator]
    standard[0] = annotated(standard[0], OK, good=1)
    standard[1] = annotated(standard[1], OK, good=2, nonsensical=2)
    standard[3] = annotated(standard[3], OK, nonsensical=1)
    adversarial = [replace(event, person="bob", at=0) for event in talk("a", 2)]
    adversarial[0] = annotated(adversarial[0], UNSAFE, inappropriate=1)
    adversarial[1] = annotated(adversarial[1], None, good=1)
    commit(
        storage,
        *standard,
        *adversarial,
        *talk("u", 2, person="eve"),
        said("silent", 0, None, consent="none", person="eve"),
        thumb("t1", "s-m1", 1),
        thumb("t2", "s-m3", -1),
        replace(thumb("t3", "s-m5", -1), reasons=(), comment="bad"),
        thumb("t4", "a-m1", -1, person="bob"),
        thumb("back", "u-m1", 1, person="eve", at=1),
        thumb("taken", "u-m1", None, person="eve", at=2),
        Event("r", "annotation", 1, "s", "ada", "served", "store", False, rating=5),
    )
    return storage


def test_everything_is_counted_once(log: Storage) -> None:
    found = analyze(log)
    assert (found.conversations, found.utterances, len(found.people)) == (4, 11, 3)
    assert found.messages == {"human": 6, "bot": 5} and found.without_text == 1
    assert found.talk == {"standard": 1, "adversarial": 1, "unknown": 2}
    assert found.share_of_talk("adversarial") == Share(1, 2) == found.share_of_people
    assert found.thumbs == {"up": 1, "down": 3, "with_comment": 1}
    assert found.reasons == {"rude": 2, "no reason given": 1}
    assert found.versions == {"v0001": {"replies": 5, "up": 1, "down": 3}}
    assert found.turns == {6: 1, 2: 2, 1: 1}
    assert found.words["human"] == {2: 5} and found.words["bot"] == {2: 5}
    assert found.days == {"2023-11-14": 1} and found.hours == {22: 1} and found.minutes == {5: 1}


def test_quality_and_agreement_follow_the_annotations(log: Storage) -> None:
    found = analyze(log)
    assert found.quality_of("standard", "human", "good") == Share(1, 1)
    assert found.quality_of("standard", "bot", "good") == Share(0.5, 2)
    assert found.quality_of("standard", "bot", "nonsensical") == Share(1.5, 2)
    assert found.quality_of("adversarial", "human", "inappropriate") == Share(1, 1)
    assert found.quality_of("all", "bot", "good") == Share(1.5, 3)
    # Up where half found it good, down where nobody did, down where everybody did.
    assert found.agreement["thumbs up / crowd"] == {"agrees": 1, "total": 1}
    assert found.agreement["thumbs down / crowd"] == {"agrees": 1, "total": 2}
    assert found.agreement["thumbs up / ratings of the conversation"] == {"agrees": 1, "total": 1}
    assert found.agreement["thumbs down / ratings of the conversation"] == {"agrees": 0, "total": 2}
    assert found.unsafe == {"human": {"unsafe": 1, "annotated": 2}, "bot": {"unsafe": 0, "annotated": 2}}


def test_intervals_are_wilsons() -> None:
    low, high = Share(8, 10).interval
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert Share(0, 10).interval[0] == 0 and Share(10, 10).interval[1] == pytest.approx(1)
    assert Share(0, 0).interval == (0.0, 1.0)


def test_the_report_is_printed_drawn_and_one_page(log: Storage, tmp_path: Path) -> None:
    found = analyze(log)
    plain = io.StringIO()
    print_report(found, Console(file=plain, width=120))
    said_so = plain.getvalue()
    assert "adversarial conversations  50.00 % [9.45, 90.55]" in said_so
    assert "v0001" in said_so and "\x1b" not in said_so and "│" not in said_so
    path = write_report(found, tmp_path / "out")
    html = path.read_text(encoding="utf-8")
    pngs = sorted(path.parent.glob("*.png"))
    assert [png.stem for png in pngs] == ["lengths", "quality", "reasons", "thumbs_by_version", "times"]
    assert html.count("data:image/png;base64,") == 5 and "http" not in html
    assert all(section.title in html for section in sections(found))
    assert json.loads((path.parent / "analysis.json").read_text())["conversations"] == 4
    assert "words 0" not in html and "words 0" not in said_so, "no text of people"


def test_names_are_no_markup(storage: Storage, tmp_path: Path) -> None:
    odd = "<script>$x$ [bold]"
    commit(storage, said("c", 0), replace(said("c", 1), author_name=odd))
    found = analyze(storage)
    plain = io.StringIO()
    print_report(found, Console(file=plain, width=120))
    assert odd in plain.getvalue()
    assert "<script>" not in write_report(found, tmp_path / "out").read_text()


def test_an_empty_log_is_said_in_a_sentence(storage: Storage) -> None:
    with pytest.raises(UserError, match="is empty"):
        analyze(storage)


def test_the_counts_are_json(log: Storage) -> None:
    assert json.loads(json.dumps(analyze(log).to_dict()))["quality"]["all/bot"]["good"]["total"] == 3
    assert Analysis().to_dict()["adversarial"]["share"] is None
