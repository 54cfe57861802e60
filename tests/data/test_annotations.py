"""A sample of replies for annotators, and what they said of it, into the log."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bb3x_ray.data.annotation_sample import (
    Sample,
    Scores,
    Stratum,
    draw,
    hidden_id,
    latest_scores,
    write_sample,
)
from bb3x_ray.data.annotation_sheet import read_items, turns_of, write_sheet
from bb3x_ray.data.annotations import annotated_conversations, import_ratings, rater_pseudonym, read_ratings
from bb3x_ray.data.table import head
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import SCORED_SCHEMA
from bb3x_ray.storage import Storage
from tests.data.make import commit, labelled, said, talk, thumb

KEY = b"a key of this test, 32 bytes long"
NO_SCORES = Scores(pa.array([], pa.string()), pa.array([], pa.float64()).to_numpy(), 0.3, 0.7)


def scored(storage: Storage, number: int, good: dict[str, float]) -> None:
    """What a round's score step leaves."""
    row = {"conversation_id": "", "person": "ada", "rating": None, "trusted": True, "error": ""}
    rows = [{**row, "message_id": message, "good": score} for message, score in good.items()]
    rows.append({**row, "message_id": "broken", "good": 0.5, "error": "too long"})
    path = storage.path("rounds", f"{number:04d}", "score", "turns.parquet")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORED_SCHEMA), path)


def drawn(storage: Storage, count: int = 100, seed: int = 0) -> Sample:
    return draw(storage, KEY, count, seed, latest_scores(storage, 0.3, 0.7))


def test_each_stratum_gets_its_share_and_weights_undo_that(storage: Storage) -> None:
    commit(storage, *(event for n in range(60) for event in talk(f"c{n}")))
    commit(storage, *(thumb(f"t{n}", f"c{n}-m1", -1 if n < 4 else 1, conversation=f"c{n}") for n in range(8)))
    scored(storage, 1, {"c0-m1": 0.9})
    scored(storage, 2, {f"c{n}-m1": 0.1 + 0.8 * (n % 2) for n in range(40)})
    sample = drawn(storage, 20)
    assert len(sample.items) == 20 == len({one.id for one in sample.items})
    assert sample.there == {
        Stratum("low", "none", False): 16,
        Stratum("high", "none", False): 16,
        Stratum("low", "agrees", False): 2,
        Stratum("low", "disagrees", False): 2,
        Stratum("high", "agrees", False): 2,
        Stratum("high", "disagrees", False): 2,
        Stratum("unscored", "none", False): 20,
    }
    assert sorted(sample.drawn.values()) == [2, 2, 2, 2, 4, 4, 4]
    assert sum(one.weight for one in sample.items) == pytest.approx(20)
    of_weight = Counter(round(one.weight * 60 / 20, 3) for one in sample.items)
    assert of_weight == {1.0: 8, 4.0: 8, 5.0: 4}
    assert drawn(storage, 20).items == sample.items
    other = {one.id for one in drawn(storage, 20, seed=1).items}
    assert other != {one.id for one in sample.items}


def test_a_score_that_a_thumb_has_moved_does_not_hide_that_the_two_disagree(storage: Storage) -> None:
    commit(storage, *talk("c"), thumb("t", "c-m1", 1))
    scored(storage, 1, {"c-m1": 0.8})
    assert set(drawn(storage).there) == {Stratum("high", "agrees", False)}
    path = storage.path("rounds", "0001", "score", "turns.parquet")
    turns = pq.read_table(path)
    place = turns.column_names.index("fresh")
    pq.write_table(turns.set_column(place, "fresh", pa.array([0.1, 0.5])), path)
    assert set(drawn(storage).there) == {Stratum("low", "disagrees", False)}


def test_a_sample_holds_context_and_reply_cleaned_and_only_of_those_who_agreed(storage: Storage) -> None:
    commit(
        storage,
        said("c", 0, "hello\r\nBot: no"),
        said("c", 1, "first"),
        said("c", 2, "you ass idiot, fuck"),
        said("c", 3, "=second"),
        replace(said("c", 5, "a canned one"), author_kind="canned"),
        replace(said("c", 7, "claimed"), author_kind="unverified"),
        *talk("no", consent="none"),
        *talk("known"),
        labelled("a", "known-m1", "good", conversation="known"),
    )
    sample = draw(storage, KEY, 9, 0, NO_SCORES, lambda text, person: f"{person}:{text}")
    found = {one.reply: turns_of(one.context) for one in sample.items}
    assert found == {
        "ada:first": [(True, "ada:hello\nBot: no")],
        "ada:=second": [
            (True, "ada:hello\nBot: no"),
            (False, "ada:first"),
            (True, "ada:you ass idiot, fuck"),
        ],
    }
    assert sample.there == {Stratum("unscored", "none", True): 2}
    assert sample.left_out == {"no_consent": 1, "annotated": 1}
    assert not [one for one in sample.items if "c-m" in one.id], "ids with which one could rate stay inside"


def test_long_contexts_are_cut_at_their_beginning(storage: Storage) -> None:
    commit(storage, *(said("c", n, f"{n} " + "x" * (5000 if n == 20 else 700)) for n in range(22)))
    sample = drawn(storage)
    contexts = {one.reply[:2].strip(): turns_of(one.context) for one in sample.items}
    assert [text[:2].strip() for _, text in contexts["11"]] == ["7", "8", "9", "10"]
    ((_, last),) = contexts["21"]
    assert last.startswith("… x") and len(last) == 3002


def test_nothing_to_annotate_is_said_and_no_sheet_is_overwritten(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no reply to annotate: let people talk"):
        drawn(storage)
    commit(storage, *talk("no", consent="none"))
    with pytest.raises(UserError, match="left out: 1 no_consent"):
        drawn(storage)
    commit(storage, *talk("c"))
    write_sample(tmp_path / "sample.csv", drawn(storage))
    with pytest.raises(UserError, match="is there already"):
        write_sample(tmp_path / "sample.csv", drawn(storage))


# Ratings


def sheet(path: Path, columns: list[str], *rows: list[str]) -> Path:
    write_sheet(path, columns, rows)
    return path


def id_of(message_id: str) -> str:
    return hidden_id(KEY, message_id)


def labels(storage: Storage) -> dict[tuple[str, str], tuple[str, float]]:
    names = {rater_pseudonym(KEY, name): name for name in ("ann", "bob", "x")}
    return {
        (one.message_id, names[one.rater]): (one.label, one.weight)
        for conversation in annotated_conversations(storage)
        for one in conversation.annotations
    }


def test_two_files_of_two_raters_and_twice_is_as_once(storage: Storage, tmp_path: Path) -> None:
    commit(storage, *talk("c", 4), *talk("d"), thumb("t", "c-m1", -1))
    write_sample(tmp_path / "sample.csv", drawn(storage))
    ids = {one.id: one for one in read_items(tmp_path / "sample.csv")}
    rated = {"c-m1": "Off-topic", "c-m3": "1", "d-m1": ""}
    ann = sheet(
        tmp_path / "ann.csv",
        ["id", "label", "weight"],
        *([id_of(m), label, str(ids[id_of(m)].weight)] for m, label in rated.items()),
    )
    bob = sheet(tmp_path / "b.csv", ["ID", "Label", "rater"], [id_of("c-m1"), "off_topic", " Bob"])
    before = head(storage)
    report = import_ratings(storage, KEY, [ann, bob])
    assert (report.new, report.known, report.unrated, report.doubles) == (3, 0, 1, 0)
    assert report.problems == [] and head(storage) == before + 3
    assert labels(storage) == {
        ("c-m1", "ann"): ("off_topic", 1.0),
        ("c-m3", "ann"): ("good", 1.0),
        ("c-m1", "bob"): ("off_topic", 1.0),
    }
    (agreement,) = report.found.agreements
    assert (agreement.raters, agreement.replies, agreement.agree) == (("Bob", "ann"), 1, 1)
    noise = report.found.noise
    assert noise.replies == 1 and noise.of["down:rude"].good.share == 0
    again = import_ratings(storage, KEY, [ann, bob])
    assert (again.new, again.known) == (0, 3) and head(storage) == before + 3
    assert again.found == report.found


def test_two_columns_of_one_sheet(storage: Storage, tmp_path: Path) -> None:
    commit(storage, *talk("c", 4))
    path = sheet(
        tmp_path / "both.csv",
        ["id", "label_ann", "label bob"],
        [id_of("c-m1"), "good", "other"],
        [id_of("c-m3"), "good", "good"],
    )
    report = import_ratings(storage, KEY, [path])
    (agreement,) = report.found.agreements
    assert agreement.raters == ("ann", "bob") and agreement.agree == 1
    assert labels(storage)[("c-m1", "bob")] == ("other", 1.0)


def test_a_rater_may_change_a_label_and_change_it_back(storage: Storage, tmp_path: Path) -> None:
    commit(storage, *talk("c"))
    for label in ("good", "other", "good"):
        path = sheet(tmp_path / "ann.csv", ["message_id", "label"], ["c-m1", label])
        assert import_ratings(storage, KEY, [path]).new == 1
        assert labels(storage) == {("c-m1", "ann"): (label, 1.0)}


def test_bad_rows_are_counted_and_told_and_the_good_ones_count(storage: Storage, tmp_path: Path) -> None:
    commit(storage, *talk("c", 10))
    good, rest = [id_of("c-m1"), "good", "1"], [id_of("c-m7"), "other", "1"]
    path = sheet(
        tmp_path / "x.csv",
        ["id", "label", "weight"],
        good,
        ["r-text {", "good", "1"],
        [id_of("c-m3"), "text {", "1"],
        ["", "good", "1"],
        [id_of("c-m5"), "good", "text {"],
        rest,
        [rest[0], "good", "1"],
        good,
        [*good, "too", "many"],
    )
    report = import_ratings(storage, KEY, [path])
    assert (report.new, report.doubles) == (1, 1)
    told = sorted(map(str, report.problems))
    assert [line.split(":")[0] for line in told] == [
        "x.csv, line 10, row",
        "x.csv, line 3, id",
        "x.csv, line 4, label",
        "x.csv, line 5, id",
        "x.csv, line 6, weight",
        "x.csv, line 8, label",
    ]
    assert "line 7; keep one" in told[-1] and "text {" not in "".join(told)
    assert labels(storage) == {("c-m1", "x"): ("good", 1.0)}


@pytest.mark.parametrize(
    "columns, rows, raters, said",
    [
        (
            ["id", "label"],
            [["r-unknown", "good"]],
            [],
            "no rating to take in.*line 2, id: no reply of this log",
        ),
        (["id", "label"], [], [], "no rating to take in"),
        (["id", "note"], [], [], "there is no column label; the labels are good"),
        (["id", "label"], [], ["a", "b"], "2 raters are named for 1 files"),
        (["id", "label", "rater"], [["r-1", "good", ""]], [], "line 2, rater: is missing"),
    ],
)
def test_what_cannot_be_imported_at_all(
    storage: Storage, tmp_path: Path, columns: list[str], rows: list[list[str]], raters: list[str], said: str
) -> None:
    commit(storage, *talk("c"))
    before = head(storage)
    with pytest.raises(UserError, match=said):
        import_ratings(storage, KEY, [sheet(tmp_path / "x.csv", columns, *rows)], raters)
    assert head(storage) == before


def test_names_given_hold_for_files_in_their_order(tmp_path: Path) -> None:
    one = sheet(tmp_path / "1.csv", ["id", "label"], ["r", "good"])
    two = sheet(tmp_path / "2.csv", ["id", "label"], ["r", "good"])
    assert [rating.rater for rating in read_ratings([one, two], ["ann"]).ratings] == ["ann", "2"]
    assert rater_pseudonym(KEY, " Ann  B") == rater_pseudonym(KEY, "ann b") != rater_pseudonym(KEY, "ann")


def test_a_sheet_that_a_spreadsheet_saved_with_semicolons_is_imported(
    storage: Storage, tmp_path: Path
) -> None:
    commit(storage, *(replace(event, text=f'=1;"2"\n{event.text}') for event in talk("c", 4)))
    write_sample(tmp_path / "sample.csv", drawn(storage))
    with (tmp_path / "sample.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "ann.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=";")
        writer.writeheader()
        writer.writerows(
            {**row, "label": "Ignoring", "weight": row["weight"].replace(".", ",")} for row in rows
        )
    report = import_ratings(storage, KEY, [tmp_path / "ann.csv"])
    assert report.new == 2 and report.problems == []
