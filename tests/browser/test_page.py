"""A person on the page: chats, presses thumbs, says what went wrong. A real server, a real Chromium."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.app import create_app
from tests.browser.site import Site, Visitor, one_version, serving, visiting
from tests.serve.room import KEY, ListLog

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tiny_model: Path) -> Iterator[Site]:
    chat, config = ChatConfig(max_new_tokens=30), ServeConfig()
    engine = one_version(tiny_model)
    log = ListLog()
    with serving(create_app(engine, log.append, KEY, chat, config), log) as site:
        yield site
    engine.close()


@pytest.fixture
def visitor(browser: Browser, site: Site) -> Iterator[Visitor]:
    """Somebody who agreed and shares nothing."""
    site.log.events.clear()
    site.log.broken = False
    with visiting(browser, site.url) as visitor:
        yield visitor


@pytest.fixture
def sharing(browser: Browser, site: Site) -> Iterator[Visitor]:
    site.log.events.clear()
    site.log.broken = False
    with visiting(browser, site.url, share=True) as visitor:
        yield visitor


def logged(site: Site, count: int) -> None:
    """Wait until the log has as many events: the page shows a thumb before it is kept."""
    deadline = time.monotonic() + 30
    while len(site.log.events) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(site.log.events) == count


def status(page: Page, words: str) -> None:
    expect(page.locator("#notice")).to_have_text(words)


def test_a_thumb_counts_on_the_click_and_is_refined_with_reasons_and_words(
    sharing: Visitor, site: Site
) -> None:
    page = sharing.page
    sharing.say("Hello <script>window.pwned = 1</script> <b>bold</b>")
    mine = page.locator("#log .person .words")
    expect(mine).to_have_text("Hello <script>window.pwned = 1</script> <b>bold</b>")
    assert page.locator("#log script, #log b").count() == 0
    assert page.evaluate("window.pwned") is None
    expect(page.locator("#log .bot .tag")).to_have_text("v0001")
    expect(page.locator("#version")).to_have_text("v0001")

    page.get_by_label("Bad reply").click()
    logged(site, 3)  # on the click
    page.get_by_role("button", name="Off topic").click()
    page.get_by_role("button", name="Rude").click()
    page.get_by_label("Tell us more").fill("I only said hello")
    page.get_by_label("What should it have said?").fill("Hello <b>to you</b>\nand all")
    page.get_by_role("region", name="What went wrong?").get_by_role("button", name="Send").click()
    status(page, "Thank you, that helps.")
    expect(page.get_by_role("region", name="What went wrong?")).to_have_count(0)
    expect(page.get_by_label("Bad reply")).to_be_focused()
    expect(page.get_by_label("Bad reply")).to_have_attribute("aria-pressed", "true")
    logged(site, 6)
    question, reply, *thumbs = site.log.events
    assert question.text == "Hello <script>window.pwned = 1</script> <b>bold</b>"
    assert {e.message_id for e in thumbs} == {reply.message_id} and {e.kind for e in thumbs} == {"feedback"}
    assert [(e.rating, e.reasons, e.comment) for e in thumbs] == [
        (-1, (), ""),
        (-1, ("off_topic",), ""),
        (-1, ("off_topic", "rude"), ""),
        (-1, ("off_topic", "rude"), "I only said hello"),
    ]
    assert thumbs[-1].correction == "Hello <b>to you</b>\nand all" and thumbs[-2].correction == ""
    assert len({e.person for e in site.log.events}) == 1
    expect(page.locator("#log .person")).to_have_count(1)  # the answer is feedback, not talk


def test_without_sharing_reasons_count_and_nobody_is_asked_for_words(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    visitor.say("Hello")
    page.get_by_label("Bad reply").click()
    page.get_by_role("button", name="Makes no sense").click()
    logged(site, 4)
    assert site.log.events[-1].reasons == ("nonsensical",)
    question = page.get_by_role("region", name="What went wrong?")
    expect(question.get_by_role("textbox")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(question).to_have_count(0)
    expect(page.get_by_label("Bad reply")).to_be_focused()


def test_turns_are_one_conversation_until_a_new_one_is_begun(visitor: Visitor, site: Site) -> None:
    visitor.say("Hello")
    visitor.say("And you?")
    assert [e.position for e in site.log.events] == [0, 1, 2, 3]
    assert {e.text for e in site.log.events} == {None}  # not shared: no words are kept
    visitor.page.get_by_role("button", name="New conversation").click()
    expect(visitor.page.locator("#log li")).to_have_count(0)
    visitor.say("Hello again")
    assert len({e.conversation_id for e in site.log.events}) == 2
    assert len({e.person for e in site.log.events}) == 1


def test_a_thumb_can_be_changed_and_taken_back(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    visitor.say("Hello")
    up, down = page.get_by_label("Good reply"), page.get_by_label("Bad reply")
    for button, rating in ((up, 1), (down, -1), (down, None)):
        before = len(site.log.events)
        button.click()
        status(page, "Taken back." if rating is None else "Thank you, that counts.")
        logged(site, before + 1)
        assert site.log.events[-1].rating == rating
    expect(page.locator(".reasons")).to_have_count(0)


def test_a_thumb_that_was_not_kept_is_not_shown(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    visitor.say("Hello")
    site.log.broken = True
    page.get_by_label("Bad reply").click()
    expect(page.locator("#notice")).to_contain_text("please try again")
    expect(page.get_by_label("Bad reply")).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".reasons")).to_have_count(0)
    assert all("503" in words for words in visitor.complaints)
    visitor.complaints.clear()


def test_another_reply_can_be_asked_for_under_the_last_one(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    visitor.say("Hello")
    visitor.say("And you?")
    expect(page.get_by_label("Another reply")).to_have_count(1)
    page.get_by_label("Another reply").click()
    logged(site, 5)
    expect(page.locator("#log .bot .line")).to_have_count(2)
    assert [e.position for e in site.log.events] == [0, 1, 2, 3, 3]
    assert len({e.conversation_id for e in site.log.events}) == 1
    visitor.say("I see")
    assert [e.position for e in site.log.events][-2:] == [4, 5]


def test_it_can_be_used_by_keyboard_alone(visitor: Visitor) -> None:
    page = visitor.page
    expect(page.get_by_label("Your message")).to_be_focused()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    expect(page.locator("#log .bot .line")).to_have_count(1)
    expect(page.get_by_label("Your message")).to_be_focused()
    for name in ("Another reply", "Copy", "Bad reply", "Good reply"):
        page.keyboard.press("Shift+Tab")
        expect(page.get_by_label(name)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Bad reply")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Bad reply")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # one sees where the focus is


def test_a_screen_reader_hears_a_reply_once(visitor: Visitor) -> None:
    page = visitor.page
    page.evaluate(
        """() => { window.heard = [];
        for (const live of document.querySelectorAll('[aria-live], [role=status], [role=log], [role=alert]'))
          new MutationObserver(() => window.heard.push(live.textContent))
            .observe(live, {childList: true, characterData: true, subtree: true}); }"""
    )
    visitor.say("Hello")
    words = page.locator("#log .bot .words").inner_text()
    heard = [one for one in page.evaluate("window.heard") if one.strip()]
    assert heard[0] == "Writing a reply." and len(heard) == 2
    assert " ".join(heard[1].split()) == " ".join(f"Reply: {words}".split())
