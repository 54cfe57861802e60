"""Pseudonyms are consistent for a person, unlinkable between persons, and stay when looked at again."""

import importlib.util
import ipaddress
import json
import pickle
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bb3x_ray.data.deidentify import _HINTS, Deidentifier, find_written
from bb3x_ray.data.pii.found import Found, without_overlaps
from bb3x_ray.data.pii.pseudonym import Pseudonyms
from bb3x_ray.data.pii.report import Case, read_cases
from bb3x_ray.schemas.errors import UserError

KEY = b"sixteen bytes or more"
CASES: list[Case] = [
    case for file in sorted((Path(__file__).parent / "pii").glob("*.jsonl")) for case in read_cases(file)
]


@pytest.fixture(scope="module")
def deidentifier() -> Deidentifier:
    return Deidentifier(KEY)


def clean(text: str, person: str = "ada", key: bytes = KEY) -> str:
    return Deidentifier(key).clean(text, person).text


def test_a_person_keeps_a_pseudonym_however_the_address_is_written() -> None:
    written = ["john.doe@gmail.com", "John dot Doe at Gmail dot com", "JOHN.DOE (at) GMAIL (dot) COM"]
    assert len({clean(f"my mail is {one} ok") for one in written}) == 1
    assert re.fullmatch(
        r"my mail is person-[a-z2-7]{10}@example\.org ok", clean(f"my mail is {written[0]} ok")
    )


def test_other_persons_and_keys_have_other_pseudonyms() -> None:
    text = "my mail is john.doe@gmail.com and my number is 201-557-7065"
    said = {clean(text), clean(text, person="bob"), clean(text, key=b"another key of 24 bytes.")}
    assert len(said) == 3
    assert clean(text) == clean(text)


def test_the_join_of_person_and_value_is_unambiguous() -> None:
    pseudonyms = Pseudonyms(KEY)
    one = next(pseudonyms.tries(Found("mail", 0, 1, "bc"), "x", "a"))
    assert one != next(pseudonyms.tries(Found("mail", 0, 1, "c"), "x", "ab"))


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("call (201) 557-7065", r"call \(000\) \d{3}-\d{4}"),
        ("my number is +44 7400 152601", r"my number is \+00 0\d{3} \d{6}"),
        ("card 4832 0114 5322 4225", r"card 000\d \d{4} \d{4} \d{4}"),
        ("my ssn is 320-38-7355", r"my ssn is 000-\d{2}-\d{4}"),
        ("dni 53290433P", r"dni \d{8}[A-Z]"),
        ("IBAN DE72 5741 8352 3769 7993 12", r"IBAN XX00 \d{4} \d{4} \d{4} \d{4} \d{2}"),
        ("I live at 12a Baker Street", r"I live at 0\d[a-z] Baker Street"),
        ("I live at 5 Baker Street", r"I live at 0\d Baker Street"),
        ("https://bob:pw@host.example/x?id=7", r"https://redacted-[a-z2-7]{10}@host\.example/x\?id=7"),
        (
            "my phone number is five five five two three four nine",
            r"my phone number is zero zero zero( \w+){4}",
        ),
    ],
)
def test_the_shape_is_kept_and_nothing_else_is_changed(text: str, shape: str) -> None:
    assert re.fullmatch(shape, clean(text)), clean(text)


def test_the_same_phone_with_and_without_its_country_ends_alike() -> None:
    abroad, at_home = clean("call +1 (201) 557-7065"), clean("call 201-557-7065")
    assert abroad[-8:] == at_home[-8:] != "557-7065"[-8:]


def test_other_scripts_keep_their_digits() -> None:
    cleaned = clean("call me at ٢٠١-٥٥٧-٧٠٦٥")
    assert cleaned != "call me at ٢٠١-٥٥٧-٧٠٦٥" and re.search(r"[٠-٩]{3}-[٠-٩]{3}-[٠-٩]{4}", cleaned)


def test_addresses_become_those_for_documents() -> None:
    for text in ("my ip is 84.112.39.201", "my ip is 2a02:8109:9440:2f3c::1a"):
        address = ipaddress.ip_address(clean(text).removeprefix("my ip is "))
        assert not address.is_global


def test_what_was_found_is_counted() -> None:
    cleaned = Deidentifier(KEY).clean("ann@post.at, bob@post.at or +1 201-557-7065; I am 25", "ada")
    assert cleaned.found == {"mail": 2, "phone": 1}
    assert cleaned.text.endswith("; I am 25")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_a_second_look_changes_nothing_and_no_original_is_left(
    case: Case, deidentifier: Deidentifier
) -> None:
    once = deidentifier.clean(case.text, "ada")
    assert deidentifier.clean(once.text, "ada") == type(once)(once.text, {})
    assert deidentifier.clean(once.text, "somebody else").text == once.text
    for found in deidentifier.find(case.text):
        # a house number may stand elsewhere, as the day of a date does
        if found.kind != "street_number":
            assert case.text[found.start : found.end] not in once.text


def test_the_quick_look_passes_over_nothing(deidentifier: Deidentifier) -> None:
    """The hints of a text, and those of a column, against the finders themselves."""
    texts = pa.array([case.text for case in CASES])
    by_column = pc.match_substring_regex(texts, _HINTS).to_pylist()
    for case, hinted in zip(CASES, by_column, strict=True):
        found = without_overlaps(find_written(case.text))
        assert deidentifier.find(case.text) == found
        assert hinted or not found


def test_a_column_is_cleaned_like_its_rows(deidentifier: Deidentifier) -> None:
    texts = [*(case.text for case in CASES), None, ""]
    persons = [f"person {row % 7}" for row in range(len(texts))]
    column, counts = deidentifier.clean_column(pa.array(texts), pa.array(persons))
    rows = [deidentifier.clean(t, p) if t is not None else None for t, p in zip(texts, persons, strict=True)]
    assert column.to_pylist() == [row.text if row else None for row in rows]
    assert sum(counts.values()) == sum(sum(row.found.values()) for row in rows if row)
    untouched, nothing = deidentifier.clean_column(pa.array(["hello", None]), pa.array(["a", "b"]))
    assert untouched.to_pylist() == ["hello", None] and not nothing


def test_json_is_cleaned_where_it_holds_text(deidentifier: Deidentifier) -> None:
    details = {"is_liked": True, "memories": ["my mail is ann@post.at"], "id": 4832011453224225, "n": None}
    cleaned = deidentifier.clean_json(json.dumps(details), "ada")
    after = json.loads(cleaned.text)
    assert cleaned.found == {"mail": 1}
    assert after["id"] == details["id"] and after["is_liked"] is True and after["n"] is None
    assert after["memories"] == [clean("my mail is ann@post.at")]
    same = '{"is_liked":   true}'
    assert deidentifier.clean_json(same, "ada").text == same


def test_it_travels_to_other_processes(deidentifier: Deidentifier) -> None:
    there = pickle.loads(pickle.dumps(deidentifier))
    assert there.clean("ann@post.at", "ada") == deidentifier.clean("ann@post.at", "ada")


def test_a_short_key_is_refused() -> None:
    with pytest.raises(UserError, match="at least 16"):
        Deidentifier(b"secret")


def test_long_and_strange_texts_end_soon(deidentifier: Deidentifier) -> None:
    """Patterns that backtrack without end would hang here, and the test's time limit would say so."""
    for unit in ("1 ", "a.", "a@", "12-", "at dot ", "A", "1.1.", "::", "five ", "((((", "x at y dot ", "0 "):
        deidentifier.clean(unit * 4000, "ada")
    deidentifier.clean("\ud800 call 201-557-7065", "\ud800")


@pytest.mark.skipif(importlib.util.find_spec("presidio_analyzer") is not None, reason="Presidio is installed")
def test_names_without_presidio_say_what_to_install() -> None:
    with pytest.raises(UserError, match=r"bb3x-ray\[pii\]"):
        Deidentifier(KEY, names=True)


def test_names_with_presidio() -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra [pii] is not installed")
    spacy = pytest.importorskip("spacy")
    model = next((m for m in ("en_core_web_lg", "en_core_web_sm") if spacy.util.is_package(m)), None)
    if model is None:
        with pytest.raises(UserError, match="spacy download"):
            Deidentifier(KEY, names=True)
        pytest.skip("no spaCy model is installed")
    deidentifier = Deidentifier(KEY, names=True, model=model)
    once = deidentifier.clean("My name is Jonathan Smith and I love tea.", "ada")
    assert once.found["name"] == 1 and "Smith" not in once.text
    assert deidentifier.clean(once.text, "ada").text == once.text
