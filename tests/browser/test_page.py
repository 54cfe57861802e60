"""A person on the page: chats, presses thumbs, gives a reason. A real server, a real Chromium."""

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.app import create_app
from bb3x_ray.serve.engines.protocol import Engine
from tests.serve.room import KEY, ListLog, lanes

pytestmark = pytest.mark.browser


@dataclass
class Site:
    url: str
    log: ListLog
    engine: Engine


@pytest.fixture(scope="module")
def site(tiny_model: Path) -> Iterator[Site]:
    chat, config = ChatConfig(max_new_tokens=30), ServeConfig()
    engine = lanes(tiny_model, max_queued=8)
    log = ListLog()
    app = create_app(engine, log.append, KEY, chat, config)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Site(f"http://127.0.0.1:{port}", log, engine)
    server.should_exit = True
    thread.join()
    engine.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """The page as somebody new sees it; what the console complains of fails the test."""
    site.log.events.clear()
    site.log.broken = False
    context = browser.new_context(viewport={"width": 390, "height": 780})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(site.url)
    yield page
    context.close()
    assert [words for words in complaints if "503" not in words] == []  # one test breaks the log on purpose


def say(page: Page, words: str) -> None:
    replies = page.locator("#log li.bot .thumbs").count()
    page.get_by_label("Your message").fill(words)
    page.keyboard.press("Enter")
    expect(page.locator("#log li.bot .thumbs")).to_have_count(replies + 1, timeout=20_000)


def test_a_person_chats_and_thumbs_down_with_a_reason(page: Page, site: Site) -> None:
    page.get_by_label(re.compile("Share this conversation")).check()
    say(page, "Hello <script>window.pwned = 1</script> <b>bold</b>")
    mine = page.locator("#log li.person .bubble")
    expect(mine).to_have_text("Hello <script>window.pwned = 1</script> <b>bold</b>")
    assert page.locator("#log script, #log b").count() == 0
    assert page.evaluate("window.pwned") is None
    expect(page.locator("#log li.bot .tag")).to_have_text("v0001")
    expect(page.locator("header .tag")).to_have_text("v0001")

    page.get_by_label("Bad reply").click()
    expect(page.get_by_role("status")).to_have_text("Thank you, that counts.")  # on the click
    page.get_by_role("button", name="Off topic").click()
    page.get_by_label("Comment").fill("I only said hello")
    page.get_by_label("What should it have said?").fill("Hello <b>to you</b>\nand all")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_label("Bad reply")).to_have_attribute("aria-pressed", "true")
    deadline = time.monotonic() + 10
    while len(site.log.events) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    question, reply, thumb, reason, comment = site.log.events
    assert question.text == "Hello <script>window.pwned = 1</script> <b>bold</b>"
    assert {e.message_id for e in (thumb, reason, comment)} == {reply.message_id}
    assert [(e.rating, e.reasons, e.comment) for e in (thumb, reason, comment)] == [
        (-1, (), ""),
        (-1, ("off_topic",), ""),
        (-1, ("off_topic",), "I only said hello"),
    ]
    assert comment.correction == "Hello <b>to you</b>\nand all" and reason.correction == ""
    assert len({e.person for e in site.log.events}) == 1


def test_turns_are_one_conversation_until_a_new_one_is_begun(page: Page, site: Site) -> None:
    say(page, "Hello")
    say(page, "And you?")
    assert [e.position for e in site.log.events] == [0, 1, 2, 3]
    assert {e.text for e in site.log.events} == {None}  # not shared: no words are kept
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#log li")).to_have_count(0)
    say(page, "Hello again")
    assert len({e.conversation_id for e in site.log.events}) == 2
    assert len({e.person for e in site.log.events}) == 1


def test_a_thumb_can_be_changed_and_taken_back(page: Page, site: Site) -> None:
    say(page, "Hello")
    up, down = page.get_by_label("Good reply"), page.get_by_label("Bad reply")
    for button, rating in ((up, 1), (down, -1), (down, None)):
        before = len(site.log.events)
        button.click()
        expect(page.get_by_role("status")).to_have_text(
            "Taken back." if rating is None else "Thank you, that counts."
        )
        while len(site.log.events) == before:
            time.sleep(0.02)
        assert site.log.events[-1].rating == rating
    expect(page.locator(".reasons")).to_have_count(0)


def test_what_could_not_be_saved_is_said_and_can_be_sent_again(page: Page, site: Site) -> None:
    site.log.broken = True
    page.get_by_label("Your message").fill("Please keep this")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status")).to_have_text("The server could not save this; please try again.")
    expect(page.locator("#log li")).to_have_count(0)
    expect(page.get_by_label("Your message")).to_have_value("Please keep this")
    site.log.broken = False
    page.get_by_label("Your message").press("Enter")
    expect(page.locator("#log li.bot .thumbs")).to_have_count(1)


def test_it_can_be_used_by_keyboard_alone_and_fits_a_phone(page: Page) -> None:
    expect(page.get_by_label("Your message")).to_be_focused()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    expect(page.locator("#log li.bot .thumbs")).to_have_count(1, timeout=20_000)
    expect(page.get_by_label("Your message")).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("Good reply")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Bad reply")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Bad reply")).to_be_focused()
    page.get_by_role("button", name="Off topic").click()
    for box in page.locator("#log li, .reasons, #log button, footer button").all():
        bounds = box.bounding_box()
        assert bounds and bounds["x"] >= 0 and bounds["x"] + bounds["width"] <= 390
    picture = os.environ.get("BB3X_SCREENSHOTS")
    if picture:
        page.screenshot(path=f"{picture}/phone.png")
        page.set_viewport_size({"width": 1100, "height": 720})
        page.screenshot(path=f"{picture}/desk.png")
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=f"{picture}/dark.png")
