"""Every state of the pages, in both widths and both colour schemes: axe finds nothing, nothing sticks out."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.app import create_app
from tests.browser.site import (
    DESK,
    PHONE,
    Site,
    Visitor,
    assert_accessible,
    assert_nothing_sticks_out,
    picture,
    serving,
    visiting,
)
from tests.serve.room import KEY, ListLog, two_versions
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.browser

LOOKS = [(PHONE, "light"), (PHONE, "dark"), (DESK, "light"), (DESK, "dark")]
REMEMBERED = {"data": [{"id": "m1", "text": "I have a dog.", "about": "person", "created": 1_760_000_000}]}
SAID = [{"id": "x", "role": "user", "content": "Hello", "created": 1_760_000_000, "model_version": None}]


@pytest.fixture(scope="module")
def site(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    engine = two_versions(tiny_model, make_tiny_model(tmp_path_factory.mktemp("other"), seed=1))
    log = ListLog()
    app = create_app(engine, log.append, KEY, ChatConfig(max_new_tokens=16), ServeConfig())
    with serving(app, log) as site:
        yield site
    engine.close()


def look(visitor: Visitor, name: str) -> None:
    """Check the state that the page is in, as it looks on a phone and at a desk, by day and by night."""
    page = visitor.page
    for size, scheme in LOOKS:
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        where = f"{name}-{size['width']}-{scheme}"
        picture(page, where)
        assert_accessible(page, where)
        assert_nothing_sticks_out(page)
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]


def reply(text: str, **about: object) -> str:
    head = {"id": "chatcmpl-1", "model_version": "v0001"}
    said = {**head, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    last = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **about}
    return f"data: {json.dumps(said)}\n\ndata: {json.dumps(last)}\n\ndata: [DONE]\n\n"


def ask(page: Page, words: str) -> None:
    page.get_by_label("Your message").fill(words)
    page.keyboard.press("Enter")


def test_the_first_visit(browser: Browser, site: Site) -> None:
    with visiting(browser, site.url, agreed=False) as visitor:
        expect(visitor.page.get_by_role("dialog", name="Before you talk")).to_be_visible()
        look(visitor, "consent")
        visitor.page.get_by_role("button", name="Agree and start").click()
        look(visitor, "empty")


def test_the_conversation(browser: Browser, site: Site) -> None:
    with visiting(browser, site.url, share=True) as visitor:
        page = visitor.page
        visitor.say("Do you like tea or coffee?")
        look(visitor, "chat")
        page.get_by_label("Bad reply").click()
        page.get_by_role("button", name="Off topic").click()
        look(visitor, "what-went-wrong")
        body = reply("Shall we talk about music instead?", canned="insult")
        page.route(
            "**/v1/chat/completions",
            lambda route: route.fulfill(body=body, content_type="text/event-stream"),
        )
        ask(page, "Something touchy")
        expect(page.get_by_role("group", name="Was this topic sensitive?")).to_be_visible()
        look(visitor, "safety-reply")
        page.unroute("**/v1/chat/completions")
        page.route(
            "**/v1/chat/completions",
            lambda route: route.fulfill(status=429, headers={"Retry-After": "99"}, json={}),
        )
        ask(page, "One more")
        expect(page.locator(".failed")).to_be_visible()
        look(visitor, "trouble")
        visitor.complaints.clear()


def test_what_is_being_written(browser: Browser, site: Site) -> None:
    with visiting(browser, site.url) as visitor:
        page = visitor.page
        page.route("**/v1/chat/completions", lambda route: None)  # never answered
        ask(page, "Hello")
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        look(visitor, "writing")
        page.get_by_role("button", name="Stop").click()
        look(visitor, "stopped")


def test_ones_data(browser: Browser, site: Site) -> None:
    with visiting(browser, site.url) as visitor:
        page = visitor.page
        held = {"data": [{"id": "c1.0", "created": 1_760_000_000, "messages": SAID}]}
        page.route("**/v1/memories", lambda route: route.fulfill(json=REMEMBERED))
        page.route("**/v1/conversations", lambda route: route.fulfill(json=held))
        visitor.say("Hello")
        page.get_by_role("button", name="Your data").click()
        expect(page.locator(".entries li")).to_have_count(2)
        look(visitor, "data")
        page.get_by_role("button", name="Delete everything").click()
        expect(page.get_by_role("dialog", name="Delete everything you said here?")).to_be_visible()
        look(visitor, "confirm")


def test_the_comparison(browser: Browser, site: Site) -> None:
    with visiting(browser, f"{site.url}/compare", share=True) as visitor:
        page = visitor.page
        look(visitor, "compare-empty")
        ask(page, "Do you like tea or coffee?")
        expect(page.locator(".vote")).to_have_count(4)
        look(visitor, "compare-choice")
        page.keyboard.press("b")
        expect(page.locator(".outcome")).to_be_visible()
        look(visitor, "compare-told")


def test_nothing_moves_for_whoever_wants_no_motion(browser: Browser, site: Site) -> None:
    with visiting(browser, site.url) as visitor:
        visitor.say("Hello")
        moving = "document.getAnimations().filter((it) => it.playState === 'running').length"
        assert visitor.page.evaluate(moving) == 0
