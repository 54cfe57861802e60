"""What goes wrong is said and can be tried again; replies can be stopped; hostile text stays text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.app import create_app
from tests.browser.conftest import PLAIN
from tests.browser.site import (
    DESK,
    PHONE,
    Site,
    Visitor,
    assert_nothing_sticks_out,
    one_version,
    picture,
    serving,
    visiting,
)
from tests.serve.room import KEY, ListLog

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tiny_model: Path) -> Iterator[Site]:
    engine = one_version(tiny_model)
    log = ListLog()
    # a message may be long enough to break a layout
    config = ServeConfig(max_message_chars=60_000)
    app = create_app(engine, log.append, KEY, ChatConfig(max_new_tokens=30), config)
    with serving(app, log) as site:
        yield site
    engine.close()


@pytest.fixture
def visitor(browser: Browser, site: Site) -> Iterator[Visitor]:
    site.log.events.clear()
    site.log.broken = False
    with visiting(browser, site.url, share=True) as visitor:
        yield visitor


CHAT = "**/v1/chat/completions"


def reply(*texts: str, done: bool = True, **about: Any) -> str:
    """Server-sent events of a reply, as our server sends them."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model_version": "v0001"}
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
        for text in texts
    ]
    if done:
        chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **about})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n" * done


def answer_with(page: Page, *bodies: str) -> None:
    """The next replies are these."""
    left = list(bodies)
    page.route(CHAT, lambda route: route.fulfill(body=left.pop(0), content_type="text/event-stream"))


def ask(page: Page, words: str) -> None:
    # what comes in through no keyboard is not cut to the length of the field
    page.evaluate("document.getElementById('text').removeAttribute('maxlength')")
    page.get_by_label("Your message").fill(words)
    page.keyboard.press("Enter")


def test_a_reply_can_be_stopped_and_asked_for_again(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    page.route(CHAT, lambda route: None)  # writes for ever
    ask(page, "Tell me everything")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".stopped")).to_contain_text("You stopped this reply.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".stopped")).to_have_count(0)
    page.keyboard.press("Escape")  # stops as well
    expect(page.locator(".stopped")).to_have_count(1)
    page.unroute(CHAT)
    visitor.say("Are you there?")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    # what was stopped is no part of the conversation; what the person said is
    assert [(e.position, e.author_kind) for e in site.log.events] == [
        (0, "person"),
        (1, "person"),
        (2, "model"),
    ]


def test_what_could_not_be_saved_can_be_tried_again(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    site.log.broken = True
    ask(page, "Please keep this")
    expect(page.locator(".failed")).to_contain_text("please try again")
    site.log.broken = False
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".bot .line")).to_have_count(1)
    assert site.log.events[0].text == "Please keep this"
    visitor.complaints.clear()


def test_a_busy_server_says_how_long_to_wait(visitor: Visitor) -> None:
    page = visitor.page
    page.route(CHAT, lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json={}))
    ask(page, "Hello")
    expect(page.locator(".failed")).to_contain_text("Many people are talking just now.")
    again = page.get_by_role("button", name="Try again", exact=True)
    expect(again).to_be_enabled(timeout=30_000)
    page.unroute(CHAT)
    answer_with(page, reply("Hello to you."))
    again.click()
    expect(page.locator(".bot .words")).to_have_text("Hello to you.")
    expect(page.locator(".person")).to_have_count(1)
    visitor.complaints.clear()


def test_a_lost_connection_and_a_reply_that_breaks_off(visitor: Visitor) -> None:
    page = visitor.page
    page.route(CHAT, lambda route: route.abort())
    ask(page, "Hello")
    expect(page.locator(".failed")).to_contain_text("The connection was lost.")
    page.unroute(CHAT)
    error = {"error": {"message": "The server failed to answer; please try again.", "code": "model_failed"}}
    answer_with(
        page,
        reply("Half a", done=False),
        reply("Half a", done=False) + f"data: {json.dumps(error)}\n\n",
        reply("A whole one."),
    )
    again = page.get_by_role("button", name="Try again")
    again.click()
    expect(page.locator(".failed")).to_contain_text("The reply broke off.")
    again.click()
    expect(page.locator(".failed")).to_contain_text("The server failed to answer")
    again.click()
    expect(page.locator(".bot .words")).to_have_text("A whole one.")
    visitor.complaints.clear()


def test_a_message_that_is_refused_comes_back_to_be_changed(visitor: Visitor) -> None:
    page = visitor.page
    ask(page, "x" * 60_001)
    expect(page.locator("#notice")).to_contain_text("at most 60000 characters")
    expect(page.locator("#log li")).to_have_count(0)
    assert len(page.get_by_label("Your message").input_value()) == 60_001
    visitor.complaints.clear()


def test_where_no_page_may_copy_there_is_no_button_for_it(browser: Browser, site: Site) -> None:
    for host, buttons in (("127.0.0.1", 1), (PLAIN, 0)):
        with visiting(browser, site.url.replace("127.0.0.1", host)) as visitor:
            visitor.say("Hello")
            assert visitor.page.evaluate("isSecureContext") == bool(buttons)
            expect(visitor.page.get_by_role("button", name="Copy")).to_have_count(buttons)
            expect(visitor.page.get_by_label("Good reply")).to_be_visible()
            # Browsers say of a header that it counts over https alone.
            opener = "Cross-Origin-Opener-Policy"
            visitor.complaints[:] = [words for words in visitor.complaints if opener not in words]


def test_a_safety_reply_is_agreed_or_disagreed_with(visitor: Visitor) -> None:
    page = visitor.page
    said: list[dict[str, Any]] = []

    def take(route: Route) -> None:
        said.append(route.request.post_data_json)
        route.fulfill(json={})

    page.route("**/v1/feedback", take)
    answer_with(page, reply("Let us talk of music.", canned="insult", feedback_token="t-1"))
    ask(page, "Something touchy")
    question = page.get_by_role("group", name="Was this topic sensitive?")
    expect(page.get_by_role("group", name="Rate this reply")).to_have_count(0)
    question.get_by_role("button", name="No, a false alarm").click()
    expect(page.locator("#notice")).to_have_text("Thank you, that counts.")
    question.get_by_role("button", name="Yes, it was").click()
    expect(question.get_by_role("button", name="Yes, it was")).to_have_attribute("aria-pressed", "true")
    expect(question.get_by_role("button", name="No, a false alarm")).to_have_attribute(
        "aria-pressed", "false"
    )
    assert [(one["sensitive"], one["rating"], one["token"]) for one in said] == [
        (False, None, "t-1"),
        (True, None, "t-1"),
    ]
    assert all("user" not in one for one in said)


def test_an_apology_is_not_rated(visitor: Visitor) -> None:
    page = visitor.page
    answer_with(page, reply("Sorry, I am not well.", canned="failure", failed=True))
    ask(page, "Hello")
    expect(page.get_by_label("Another reply")).to_be_visible()
    expect(page.get_by_label("Good reply")).to_have_count(0)
    expect(page.get_by_role("group", name="Was this topic sensitive?")).to_have_count(0)


HOSTILE = {
    "script": "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>",
    "bidi": "\u202e\u2066 gnirts live \u202d" * 20,
    "long": "w" * 3000,
    "emoji": "😀" * 10_000,
    "lines": "a\n" * 500,
    "marks": "Z\u0351\u0346\u0359\u0317" * 300,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_neither_runs_nor_breaks_the_layout(visitor: Visitor, kind: str) -> None:
    page, text = visitor.page, HOSTILE[kind]
    entry = [{"id": text, "text": text, "about": "person", "created": 1_760_000_000}]
    message = {"id": "x", "role": "user", "content": text, "created": 0, "model_version": text}
    held = [{"id": text, "created": 1_760_000_000, "messages": [message]}]
    page.route("**/v1/memories", lambda route: route.fulfill(json={"data": entry}))
    page.route("**/v1/conversations", lambda route: route.fulfill(json={"data": held}))
    version = reply(text, text).replace('"v0001"', json.dumps(text[:300]))
    answer_with(page, version)
    page.route("**/v1/feedback", lambda route: route.fulfill(json={}))
    ask(page, text)
    expect(page.locator(".bot .line")).to_have_count(1)
    expect(page.locator(".person .words")).to_have_text(text.strip())
    page.get_by_label("Bad reply").click()
    page.get_by_label("Tell us more").fill(text)
    for size in (PHONE, DESK):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert_nothing_sticks_out(page)
    picture(page, f"hostile-{kind}")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.get_by_role("button", name="Your data").click()
    expect(page.locator(".entries li")).to_have_count(2)
    assert_nothing_sticks_out(page)
    assert page.evaluate("window.pwned") is None


def test_pages_make_no_html_of_strings() -> None:
    folder = Path(__file__).parents[2] / "bb3x_ray" / "serve" / "page"
    scripts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.js")}
    assert scripts
    for name, script in scripts.items():
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "style=",
        ):
            assert forbidden not in script, name
    for page in folder.glob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert " style=" not in html and " on" not in html.replace(" on ", "").replace(" one", "")
