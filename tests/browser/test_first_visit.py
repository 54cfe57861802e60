"""Consent before the first word, sharing apart, and "Your data": seen, downloaded, deleted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.app import create_app
from tests.browser.site import Site, Visitor, one_version, serving, visiting
from tests.serve.room import KEY, ListLog

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tiny_model: Path) -> Iterator[Site]:
    engine = one_version(tiny_model)
    log = ListLog()
    app = create_app(engine, log.append, KEY, ChatConfig(max_new_tokens=12), ServeConfig())
    with serving(app, log) as site:
        yield site
    engine.close()


@pytest.fixture
def newcomer(browser: Browser, site: Site) -> Iterator[Visitor]:
    site.log.events.clear()
    site.log.broken = False
    with visiting(browser, site.url, agreed=False) as visitor:
        yield visitor


@pytest.fixture
def visitor(browser: Browser, site: Site) -> Iterator[Visitor]:
    site.log.events.clear()
    site.log.broken = False
    with visiting(browser, site.url, share=True) as visitor:
        yield visitor


def focus_stays_inside(page: Page, presses: int = 12) -> bool:
    """Whether Tab never leads to anything of the page behind an open dialog."""
    inside = True
    for _ in range(presses):
        page.keyboard.press("Tab")
        inside &= bool(
            page.evaluate(
                "document.activeElement === document.body || !!document.activeElement.closest('dialog[open]')"
            )
        )
    return inside


def test_nothing_is_said_before_somebody_agreed(newcomer: Visitor, site: Site) -> None:
    page = newcomer.page
    dialog = page.get_by_role("dialog", name="Before you talk")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_label("Share my conversations")).not_to_be_checked()
    assert focus_stays_inside(page)
    page.keyboard.press("Escape")  # no agreement
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Your message")).to_be_focused()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Your message")).to_have_value("Hello")  # not lost, and not sent
    expect(page.locator("#notice")).to_have_text("Please agree first; nothing was sent.")
    assert site.log.events == []


def test_one_can_chat_without_sharing_and_share_later(newcomer: Visitor, site: Site) -> None:
    page = newcomer.page
    page.get_by_role("button", name="Agree and start").click()
    expect(page.locator("#sharing")).to_have_text("off")
    newcomer.say("Hello")
    assert {e.text for e in site.log.events} == {None}
    page.get_by_role("button", name="Change").click()
    share = page.get_by_role("switch", name="Share my conversations")
    share.check()
    expect(page.locator(".told")).to_contain_text("with your next conversation")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Change")).to_be_focused()
    newcomer.say("This is not shared yet")
    page.get_by_role("button", name="New conversation").click()
    newcomer.say("This is")
    assert [e.text for e in site.log.events][-2] == "This is"
    assert {e.text for e in site.log.events[:-2]} == {None}
    page.reload()
    expect(page.get_by_role("dialog")).to_have_count(0)  # asked once
    expect(page.locator("#sharing")).to_have_text("on")


def test_sharing_that_ends_takes_back_the_conversation(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    visitor.say("Hello")
    page.get_by_role("button", name="Your data").click()
    page.get_by_role("switch", name="Share my conversations").uncheck()
    expect(page.locator(".told")).to_contain_text("no longer teaches")
    page.keyboard.press("Escape")
    taken_back = site.log.events[-1]
    assert (taken_back.kind, taken_back.consent_basis) == ("consent", "none")
    assert taken_back.conversation_id == site.log.events[0].conversation_id
    visitor.say("And this is not kept")
    assert [e.text for e in site.log.events[-2:]] == [None, None]


def test_sharing_that_could_not_be_taken_back_stays_on(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    visitor.say("Hello")
    site.log.broken = True
    page.get_by_role("button", name="Your data").click()
    share = page.get_by_role("switch", name="Share my conversations")
    share.click()
    expect(page.locator(".told")).to_contain_text("please try again")
    expect(share).to_be_checked()
    site.log.broken = False
    visitor.complaints.clear()


def test_everything_can_be_deleted(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    visitor.say("Hello")
    person = page.evaluate("localStorage.getItem('bb3x-person')")
    page.get_by_role("button", name="Your data").click()
    page.get_by_role("button", name="Delete everything").click()
    question = page.get_by_role("dialog", name="Delete everything you said here?")
    question.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Delete everything")).to_be_focused()
    assert len(site.log.events) == 2
    page.get_by_role("button", name="Delete everything").click()
    question.get_by_role("button", name="Delete everything").click()
    expect(page.locator(".told")).to_contain_text("is being deleted")
    assert site.log.events[-1].kind == "erasure"
    assert page.evaluate("localStorage.getItem('bb3x-person')") != person
    page.keyboard.press("Escape")
    expect(page.locator("#log li")).to_have_count(0)


def test_a_conversation_can_be_downloaded(visitor: Visitor) -> None:
    page = visitor.page
    visitor.say("Hello <b>you</b>")
    page.get_by_role("button", name="Your data").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download this conversation").click()
    held = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [message["role"] for message in held["messages"]] == ["user", "assistant"]
    assert held["messages"][0]["content"] == "Hello <b>you</b>"


# What a server with a memory and a list of conversations answers, as docs/DESIGN.md has it.
MEMORIES = [
    {"id": "m1", "text": "I have a dog <b>called</b> Rex.", "about": "person", "created": 1_760_000_000},
    {"id": "m2", "text": "I like the sea.", "about": "bot", "created": 1_760_000_000},
]
SAID = [{"id": "x", "role": "user", "content": "Hello", "created": 1_760_000_000, "model_version": None}]
HELD = [
    {"id": "c1.0a", "created": 1_760_000_000, "messages": SAID},
    {"id": "c2.0a", "created": 1_750_000_000, "messages": [{**SAID[0], "content": None}] * 2},
]


def answering(
    page: Page, path: str, entries: list[dict[str, Any]], asked: list[tuple[str, str, str]]
) -> None:
    """Lists `entries` at `path` and takes their deletion; notes (method, path, person) of each request."""

    def answer(route: Route) -> None:
        request = route.request
        asked.append((request.method, request.url.split("/v1/")[1], request.headers["bb3x-user"]))
        assert request.headers["bb3x-proof"].startswith("chatcmpl-")
        deleted = request.method == "DELETE"
        route.fulfill(status=202 if deleted else 200, json={"object": "list", "data": entries})

    page.route(f"**/v1/{path}", answer)
    page.route(f"**/v1/{path}/*", answer)


def test_memories_are_seen_and_forgotten_one_by_one(visitor: Visitor) -> None:
    page, asked = visitor.page, list[tuple[str, str, str]]()
    visitor.say("Hello")
    answering(page, "memories", MEMORIES, asked)
    page.get_by_role("button", name="Your data").click()
    entries = page.locator(".data section", has_text="What it remembers").get_by_role("listitem")
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("I have a dog <b>called</b> Rex.")
    entries.first.get_by_role("button", name="Forget this").click()
    expect(entries).to_have_count(1)
    expect(entries.first.get_by_role("button")).to_be_focused()
    person = page.evaluate("localStorage.getItem('bb3x-person')")
    assert asked == [("GET", "memories", person), ("DELETE", "memories/m1", person)]


def test_conversations_are_seen_downloaded_and_deleted(visitor: Visitor) -> None:
    page, asked = visitor.page, list[tuple[str, str, str]]()
    visitor.say("Hello")
    answering(page, "conversations", HELD, asked)
    page.get_by_role("button", name="Your data").click()
    section = page.locator(".data section", has_text="Your conversations")
    entries = section.get_by_role("listitem")
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("1 message")
    expect(entries.last).to_contain_text("Words that were not kept")
    with page.expect_download() as download:
        section.get_by_role("button", name="Download all").click()
    assert json.loads(Path(download.value.path()).read_text())["conversations"] == HELD
    entries.first.get_by_role("button", name="Delete this conversation").click()
    page.get_by_role("dialog", name="Delete this conversation?").get_by_role("button", name="Delete").click()
    expect(entries).to_have_count(1)
    assert [(method, path) for method, path, _ in asked][-1] == ("DELETE", "conversations/c1.0a")


def test_panels_that_the_server_does_not_know_are_hidden(visitor: Visitor) -> None:
    page = visitor.page
    for path in ("memories", "conversations"):
        page.route(f"**/v1/{path}", lambda route: route.fulfill(status=404, json={}))
    visitor.say("Hello")
    page.get_by_role("button", name="Your data").click()
    expect(page.get_by_role("heading", name="Sharing")).to_be_visible()
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("heading", name="What it remembers")).to_be_hidden()
    expect(page.get_by_role("heading", name="Your conversations")).to_be_hidden()
    assert all("404" in words for words in visitor.complaints)
    visitor.complaints.clear()
