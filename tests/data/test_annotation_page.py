"""The rating page's server: what is acknowledged is on disk, and nobody without the address gets in."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from bb3x_ray.data.annotation_page import RUBRIC, Opened, Ratings, open_page
from bb3x_ray.data.annotation_sheet import COLUMNS, read_items, to_context, write_sheet
from bb3x_ray.data.annotations import read_ratings
from bb3x_ray.schemas.conversation import LABELS
from bb3x_ray.schemas.errors import UserError


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "sample.csv"
    context = to_context([(True, "hello\nBot: no"), (False, "hi")])
    write_sheet(path, COLUMNS, [[f"r-{n}", context if n else "", f"=reply {n}", "", "0.5"] for n in range(3)])
    return path


def client_of(page: Opened) -> TestClient:
    return TestClient(page.app, base_url=page.url, raise_server_exceptions=False)


def closed(page: Opened) -> None:
    page.listening.close()
    page.ratings.close()


def test_each_rating_is_in_the_file_when_it_is_acknowledged(sheet: Path) -> None:
    page = open_page(sheet, " Ann  B ")
    client = client_of(page)
    assert page.out == sheet.with_name("sample-ann-b.csv") and not page.out.exists()
    shown = client.get("sheet").json()
    assert shown["rater"] == "Ann B" and [one["label"] for one in shown["rubric"]] == list(LABELS)
    assert shown["items"][1] == {
        "id": "r-1",
        "turns": [{"who": "person", "text": "hello\nBot: no"}, {"who": "bot", "text": "hi"}],
        "reply": "=reply 1",
    }
    for number, (id, label, done) in enumerate(
        [
            ("r-1", "good", 1),
            ("r-0", "ignoring", 2),
            ("r-1", "other", 2),
            ("r-0", None, 1),
            ("r-2", "good", 2),
        ]
    ):
        assert client.post("ratings", json={"id": id, "label": label}).json() == {"done": done}, number
        assert len(read_ratings([page.out]).ratings) == done
    rated = read_ratings([page.out])
    assert [(r.id, r.rater, r.label, r.weight) for r in rated.ratings] == [
        ("r-1", "Ann B", "other", 0.5),
        ("r-2", "Ann B", "good", 0.5),
    ]
    closed(page)
    again = open_page(sheet, "Ann B")
    assert client_of(again).get("sheet").json()["labels"] == {"r-1": "other", "r-2": "good"}
    closed(again)


def test_what_cannot_be_saved_is_not_acknowledged(sheet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = open_page(sheet, "ann")
    client = client_of(page)
    assert client.post("ratings", json={"id": "r-0", "label": "good"}).status_code == 200
    page.out.unlink()
    page.out.mkdir()  # nothing can be put in its place
    answer = client.post("ratings", json={"id": "r-1", "label": "good"})
    assert answer.status_code == 503 and "saved" in answer.json()["error"]
    assert page.ratings.labels == {"r-0": "good"}
    page.out.rmdir()
    assert client.post("ratings", json={"id": "r-1", "label": "good"}).json() == {"done": 2}
    closed(page)


def test_only_who_has_the_address_gets_in(sheet: Path) -> None:
    page = open_page(sheet, "ann")
    root = page.url.rsplit("/", 2)[0]
    outside = TestClient(page.app, base_url=root)
    for path in ("/", "/sheet", "/wrong/sheet", "/docs", "/openapi.json", "/page/annotate.js", "//sheet"):
        assert outside.get(path).status_code == 404, path
    assert outside.post("/wrong/ratings", json={"id": "r-0", "label": "good"}).status_code == 404
    client = client_of(page)
    foreign = client.get("sheet", headers={"Host": "evil.example"})
    assert foreign.status_code == 400 and "reply" not in foreign.text
    assert client.get("").headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert not page.out.exists()
    second = open_page(sheet, "bob")
    assert (
        second.url.split("/")[3] != page.url.split("/")[3] and page.listening.getsockname()[0] == "127.0.0.1"
    )
    closed(page)
    closed(second)


@pytest.mark.parametrize(
    "body, status",
    [
        ({"id": "r-9", "label": "good"}, 404),
        ({"id": "r-0", "label": "text {"}, 400),
        ({"id": "r-0"}, 400),
        ({"id": ["text {"], "label": "good"}, 400),
        ({"id": "r-0", "label": "good", "more": "text {"}, 400),
        ("text {", 400),
    ],
)
def test_bad_ratings_are_refused_and_not_repeated(sheet: Path, body: object, status: int) -> None:
    page = open_page(sheet, "ann")
    answer = client_of(page).post("ratings", json=body)
    assert answer.status_code == status and "text {" not in answer.text and answer.json()["error"]
    assert not page.out.exists()
    closed(page)


def test_what_hinders_the_page_is_told(sheet: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a name"):
        open_page(sheet, " /.. ")
    with pytest.raises(UserError, match="the sheet itself"):
        open_page(sheet, "ann", sheet)
    page = open_page(sheet, "ann")
    with pytest.raises(UserError, match="another page writes to"):
        open_page(sheet, "ann")
    with pytest.raises(UserError, match=r"port \d+ of 127.0.0.1 is taken"):
        open_page(sheet, "bob", port=page.listening.getsockname()[1])
    closed(page)
    for columns, row, said in (
        (["id", "label"], ["r-0", "good"], "line 2, rater: somebody else's"),
        (["id", "rater", "label"], ["r-9", "ann", "good"], "line 2, id or label: not a rating of this sheet"),
        (["id", "rater"], ["r-0", "ann"], "not a rating|no column label"),
    ):
        write_sheet(tmp_path / "x.csv", columns, [row])
        for _ in range(2):  # nothing is left locked
            with pytest.raises(UserError, match=said):
                open_page(sheet, "ann", tmp_path / "x.csv")
    other = open_page(sheet, "../Bob")
    assert other.out.parent == sheet.parent and other.out.name == "sample-bob.csv"
    closed(other)


def test_the_rubric_has_words_for_every_label() -> None:
    assert list(RUBRIC) == list(LABELS)


def test_a_page_that_is_killed_has_lost_nothing(sheet: Path) -> None:
    command = [sys.executable, "-m", "bb3x_ray.cli", "annotate", "page", str(sheet), "--rater", "ann"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout
        url = next(line.split()[1] for line in process.stdout if line.startswith("open "))
        for _ in range(100):
            try:
                answer = httpx.post(f"{url}ratings", json={"id": "r-1", "label": "repeating"})
                break
            except httpx.TransportError:
                time.sleep(0.1)
        assert answer.json() == {"done": 1}
        process.send_signal(signal.SIGKILL)
    ratings = Ratings(sheet.with_name("sample-ann.csv"), "ann", read_items(sheet))
    assert ratings.labels == {"r-1": "repeating"}
    ratings.close()
