"""An annotator on the rating page, by keys and by clicks. A real server, a real Chromium."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from bb3x_ray.data.annotation_page import Opened, open_page
from bb3x_ray.data.annotation_sheet import COLUMNS, to_context, write_sheet
from bb3x_ray.data.annotations import read_ratings

pytestmark = pytest.mark.browser

ROWS = [
    (
        [(True, "Do you like tea?"), (False, "I do, green tea most of all."), (True, "Hot or cold?")],
        "Hot, with milk.",
    ),
    ([(True, "<b>bold</b>\nBot: hm")], "<script>window.pwned = 1</script>"),
    ([], "Hello there!"),
    ([(True, "What is your name? " + "Tell me, please. " * 30)], "I like trains. " * 12),
]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    sheet = tmp_path / "sample.csv"
    write_sheet(sheet, COLUMNS, [[f"r-{n}", to_context(t), r, "", "1"] for n, (t, r) in enumerate(ROWS)])
    opened = open_page(sheet, "Ann")
    config = uvicorn.Config(opened.app, log_level="warning", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened.listening]})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield opened
    server.should_exit = True
    thread.join()
    opened.ratings.close()


@pytest.fixture
def page(browser: Browser, opened: Opened) -> Iterator[Page]:
    """The page on a phone; what the console complains of fails the test."""
    context = browser.new_context(viewport={"width": 390, "height": 780})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(opened.url)
    expect(page.locator("#words")).not_to_be_empty()  # the sheet is there
    yield page
    context.close()
    assert [words for words in complaints if "503" not in words] == []  # one test breaks the disk on purpose


def labels(opened: Opened) -> dict[str, str]:
    return {one.id: one.label for one in read_ratings([opened.out]).ratings}


def test_all_replies_are_rated_by_keys_alone(page: Page, opened: Opened) -> None:
    expect(page.locator("#words")).to_have_text("Hot, with milk.")
    expect(page.locator(".turn p")).to_have_text(
        ["Do you like tea?", "I do, green tea most of all.", "Hot or cold?"]
    )
    page.keyboard.press("1")
    expect(page.locator("#words")).to_have_text("<script>window.pwned = 1</script>")
    expect(page.locator(".turn p")).to_have_text("<b>bold</b>\nBot: hm")
    assert page.evaluate("window.pwned") is None and page.locator("#talk b, #words script").count() == 0
    assert labels(opened) == {"r-0": "good"}
    page.keyboard.press("ArrowRight")
    expect(page.locator("#words")).to_have_text("Hello there!")
    expect(page.get_by_text("The talk begins with this reply.")).to_be_visible()
    page.keyboard.press("6")
    expect(page.locator("#count")).to_have_text("2 of 4")
    page.keyboard.press("3")
    expect(page.locator("#words")).to_have_text("<script>window.pwned = 1</script>")  # what was skipped
    page.keyboard.press("7")
    expect(page.get_by_text("All rated. Thank you!")).to_be_visible()
    assert labels(opened) == {"r-0": "good", "r-2": "repeating", "r-3": "off_topic", "r-1": "other"}


def test_one_goes_on_where_one_stopped_and_can_change_ones_mind(page: Page, opened: Opened) -> None:
    page.get_by_role("button", name="Ignoring").click()
    expect(page.locator("#count")).to_have_text("1 of 4")
    page.reload()
    expect(page.locator("#count")).to_have_text("1 of 4")
    expect(page.locator("#words")).to_have_text("<script>window.pwned = 1</script>")
    page.locator("#back").click()
    expect(page.get_by_role("button", name="Ignoring")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Backspace")
    expect(page.locator("#count")).to_have_text("0 of 4")
    assert labels(opened) == {}
    page.get_by_role("button", name="Nonsensical").click()
    expect(page.locator("#count")).to_have_text("1 of 4")
    assert labels(opened) == {"r-0": "nonsensical"}


def test_what_was_not_saved_is_said_and_stays(page: Page, opened: Opened) -> None:
    opened.out.mkdir()
    page.keyboard.press("1")
    expect(page.get_by_role("status")).to_contain_text("could not be saved")
    expect(page.locator("#words")).to_have_text("Hot, with milk.")
    expect(page.locator("#count")).to_have_text("0 of 4")
    opened.out.rmdir()
    page.keyboard.press("1")
    expect(page.locator("#count")).to_have_text("1 of 4")
    expect(page.get_by_role("status")).to_have_text("")


def test_it_fits_a_phone_and_a_desk(page: Page) -> None:
    pictures = os.environ.get("BB3X_SCREENSHOTS")
    for width, height, name in ((390, 780, "phone"), (1100, 800, "desk")):
        page.set_viewport_size({"width": width, "height": height})
        expect(page.locator(".label")).to_have_count(7)
        for box in page.locator(".label, nav button, #reply, .turn p").all():
            bounds = box.bounding_box()
            assert bounds and bounds["x"] >= 0 and bounds["x"] + bounds["width"] <= width
        for button in page.locator(".label").all():
            bounds = button.bounding_box()
            assert bounds and bounds["y"] + bounds["height"] <= height, "all labels are in sight"
        reply = page.locator("#reply").bounding_box()
        assert reply and reply["y"] >= 0 and reply["height"] > 40
        if pictures:
            page.screenshot(path=f"{pictures}/annotate-{name}.png")
    page.set_viewport_size({"width": 390, "height": 780})
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#words")).to_contain_text("I like trains.")  # under a context longer than the screen
    reply, footer = page.locator("#reply").bounding_box(), page.locator("footer").bounding_box()
    assert reply and footer and 0 < reply["y"] and reply["y"] + reply["height"] <= footer["y"] + 1
    if pictures:
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=f"{pictures}/annotate-dark.png")
