"""Consent before the first word, sharing apart, and "Your data": seen, downloaded, deleted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.app import create_app
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.serve.memory import Memories
from bb3x_ray.serve.reply import Parts
from bb3x_ray.serve.turn import now_us
from tests.browser.site import Site, Visitor, one_version, serving, visiting
from tests.serve.room import KEY, ListLog

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def memories(tmp_path_factory: pytest.TempPathFactory) -> Memories:
    return Memories(tmp_path_factory.mktemp("memories"))


@pytest.fixture(scope="module")
def site(tiny_model: Path, memories: Memories) -> Iterator[Site]:
    engine = one_version(tiny_model)
    log = ListLog()
    chat, parts = ChatConfig(max_new_tokens=12), Parts(memories=memories)
    app = create_app(engine, log.append, KEY, chat, ServeConfig(), parts, events_of=log.of)
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


def test_memories_are_seen_and_forgotten_one_by_one(visitor: Visitor, memories: Memories) -> None:
    page = visitor.page
    visitor.say("Hello")
    person = Signer(KEY).pseudonym(page.evaluate("localStorage.getItem('bb3x-person')"))
    for text, about in (("I have a dog <b>called</b> Rex.", "person"), ("I like the sea.", "bot")):
        assert memories.add(person, text, about, said_at=now_us())  # type: ignore[arg-type]
    page.get_by_role("button", name="Your data").click()
    entries = page.locator(".data section", has_text="What it remembers").get_by_role("listitem")
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("I have a dog <b>called</b> Rex.")
    entries.first.get_by_role("button", name="Forget this").click()
    expect(entries).to_have_count(1)
    expect(entries.first.get_by_role("button")).to_be_focused()
    assert [memory.text for memory in memories.of(person)] == ["I like the sea."]


def test_conversations_are_seen_downloaded_and_deleted(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    visitor.say("Hello")
    page.evaluate("localStorage.setItem('bb3x-share', 'no')")
    page.get_by_role("button", name="New conversation").click()
    visitor.say("Quietly")
    page.get_by_role("button", name="Your data").click()
    section = page.locator(".data section", has_text="Your conversations")
    entries = section.get_by_role("listitem")
    expect(entries).to_have_count(2)
    shared = entries.filter(has_text="Hello")
    expect(shared).to_contain_text("2 messages")
    expect(entries.filter(has_text="Words that were not kept")).to_have_count(1)
    with page.expect_download() as download:
        section.get_by_role("button", name="Download all").click()
    held = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["conversations"]
    words = {message["content"] for one in held for message in one["messages"]}
    assert len(held) == 2 and {"Hello", site.log.events[1].text, None} == words
    shared.get_by_role("button", name="Delete this conversation").click()
    page.get_by_role("dialog", name="Delete this conversation?").get_by_role("button", name="Delete").click()
    expect(entries).to_have_count(1)
    gone, hello = site.log.events[-1], site.log.events[0]
    assert (gone.kind, gone.conversation_id) == ("erasure", hello.conversation_id)


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
