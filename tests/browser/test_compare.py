"""A person compares two versions blindly: by button, by key, and when something goes wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.serve.app import create_app
from tests.browser.site import DESK, PHONE, Site, Visitor, assert_nothing_sticks_out, serving, visiting
from tests.serve.room import KEY, ListLog, two_versions
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    engine = two_versions(tiny_model, make_tiny_model(tmp_path_factory.mktemp("other"), seed=1))
    log = ListLog()
    app = create_app(engine, log.append, KEY, ChatConfig(max_new_tokens=12), ServeConfig(), events_of=log.of)
    with serving(app, log) as site:
        yield site
    engine.close()


@pytest.fixture
def visitor(browser: Browser, site: Site) -> Iterator[Visitor]:
    site.log.events.clear()
    site.log.broken = False
    with visiting(browser, f"{site.url}/compare", share=True) as visitor:
        yield visitor


def ask(page: Page, words: str) -> None:
    page.get_by_label("Your message").fill(words)
    page.keyboard.press("Enter")
    expect(page.locator(".vote")).to_have_count(4)


def words_of(card: Locator) -> list[str]:
    return (card.text_content() or "").split()


def versions(page: Page) -> list[str]:
    return page.locator(".card .tag").all_inner_texts()


@pytest.mark.parametrize(
    ("button", "choice", "said"),
    [
        ("A is better", "a", "You prefer"),
        ("B is better", "b", "You prefer"),
        ("Both are good", "both", "You liked both"),
        ("Neither is", "neither", "You liked neither"),
    ],
)
def test_a_choice_by_button_tells_which_was_which(
    visitor: Visitor, site: Site, button: str, choice: str, said: str
) -> None:
    page = visitor.page
    ask(page, "Hello <b>there</b>")
    assert versions(page) == [] and "v000" not in page.locator("#pair").inner_text()
    page.get_by_role("button", name=button).click()
    expect(page.locator(".outcome")).to_contain_text(said)
    expect(page.locator(".outcome")).to_be_focused()
    shown = versions(page)
    assert sorted(shown) == ["v0001", "v0002"]
    replies, chosen = (json.loads(event.details or "")["comparison"] for event in site.log.events)
    assert [chosen[side]["version"] for side in "ab"] == shown and chosen["choice"] == choice
    texts = [words_of(card) for card in page.locator(".card .words").all()]
    assert [replies[side]["text"].split() for side in "ab"] == texts
    if choice in ("a", "b"):
        better = shown["ab".index(choice)]
        expect(page.locator(".outcome")).to_contain_text(f"You prefer {better} to")


def test_keys_choose_where_the_choice_has_the_focus_and_nowhere_else(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    for number, (key, choice) in enumerate((("a", "a"), ("B", "b"), ("o", "both"), ("n", "neither"))):
        ask(page, f"Question {number}")
        page.get_by_label("Your message").focus()
        page.keyboard.type("banana no")  # words, not choices
        expect(page.locator(".vote")).to_have_count(4)
        page.get_by_label("Your message").fill("")
        page.get_by_role("group", name="Which reply is better?").focus()
        page.keyboard.press(key)
        expect(page.locator(".outcome")).to_be_visible()
        assert json.loads(site.log.events[-1].details or "")["comparison"]["choice"] == choice
    assert len(site.log.events) == 8


def test_the_talk_goes_on_with_the_reply_that_was_liked(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    ask(page, "Hello")
    liked = words_of(page.locator(".card .words").last)
    page.keyboard.press("b")  # the choice has the focus
    expect(page.locator(".outcome")).to_be_visible()
    ask(page, "And you?")
    told = json.loads(site.log.events[-1].details or "")["comparison"]
    assert [one["role"] for one in told["messages"]] == ["user", "assistant", "user"]
    assert told["messages"][1]["content"].split() == liked
    page.get_by_role("button", name="Start over").click()
    expect(page.locator("#log li")).to_have_count(0)
    expect(page.locator("#pair")).to_be_hidden()


def test_without_sharing_only_the_choice_is_kept(browser: Browser, site: Site) -> None:
    site.log.events.clear()
    with visiting(browser, f"{site.url}/compare") as visitor:
        expect(visitor.page.locator(".fine")).to_contain_text("only your choice is kept")
        ask(visitor.page, "my secret")
        visitor.page.get_by_role("button", name="Both are good").click()
        expect(visitor.page.locator(".outcome")).to_be_visible()
    assert len(site.log.events) == 2 and "secret" not in str(site.log.events)


def test_who_only_compares_sees_downloads_and_deletes_what_they_said(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    ask(page, "my first words")
    page.keyboard.press("a")
    expect(page.locator(".outcome")).to_be_visible()  # until it is told, the page takes no other message
    ask(page, "my second words")
    page.get_by_role("button", name="Your data").click()
    section = page.locator(".data section", has_text="Your conversations")
    entries = section.get_by_role("listitem")
    expect(entries).to_have_count(2)
    expect(entries.last).to_contain_text("my first words")
    expect(entries.last).to_contain_text("a comparison")
    with page.expect_download() as download:
        section.get_by_role("button", name="Download all").click()
    held = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["conversations"]
    assert [one["choice"] for one in held] == [None, "a"] and "my second words" in str(held)
    entries.last.get_by_role("button", name="Delete this conversation").click()
    page.get_by_role("dialog", name="Delete this conversation?").get_by_role("button", name="Delete").click()
    expect(entries).to_have_count(1)
    expect(page.locator("#log li")).to_have_count(0)  # the talk was about it
    assert site.log.events[-1].kind == "erasure"
    person = page.evaluate("localStorage.getItem('bb3x-person')")
    page.get_by_role("button", name="Delete everything").click()
    question = page.get_by_role("dialog", name="Delete everything you said here?")
    question.get_by_role("button", name="Delete everything").click()
    expect(page.locator(".told")).to_contain_text("You have a new random name.")
    assert page.evaluate("localStorage.getItem('bb3x-person')") != person
    assert site.log.of(site.log.events[0].person) == []


def test_sharing_that_ends_takes_back_the_comparisons_of_this_talk(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    ask(page, "Hello")
    page.keyboard.press("b")
    page.get_by_role("button", name="Change").click()
    share = page.get_by_role("switch", name="Share my conversations")
    share.uncheck()
    expect(page.locator(".told")).to_contain_text("no longer teaches")
    share.check()  # from the next talk on
    page.keyboard.press("Escape")
    expect(page.locator("#sharing")).to_have_text("off")
    taken_back = site.log.events[-1]
    assert (taken_back.kind, taken_back.consent_basis) == ("consent", "none")
    assert taken_back.conversation_id == site.log.events[0].conversation_id
    ask(page, "my secret")
    assert "secret" not in str(site.log.events)
    page.get_by_role("button", name="Start over").click()
    expect(page.locator("#sharing")).to_have_text("on")


def test_one_version_in_memory_is_said(visitor: Visitor) -> None:
    page = visitor.page
    body = {"error": {"message": "Only one version is in memory now.", "code": "one_version"}}
    page.route("**/v1/compare", lambda route: route.fulfill(status=409, json=body))
    page.get_by_label("Your message").fill("Hello")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("Only one version is in memory now.")
    expect(page.get_by_role("heading", name="Nothing to compare just now")).to_be_visible()
    expect(page.get_by_label("Your message")).to_have_value("Hello")
    page.route("**/v1/models", lambda route: route.fulfill(json={"champion": "v1", "data": [{"id": "v1"}]}))
    page.reload()
    expect(page.get_by_role("heading", name="Nothing to compare just now")).to_be_visible()
    visitor.complaints.clear()


def test_trouble_is_said_and_can_be_tried_again(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    site.log.broken = True
    page.get_by_label("Your message").fill("Hello")
    page.keyboard.press("Enter")
    expect(page.locator(".failed")).to_contain_text("please try again")
    site.log.broken = False
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".vote")).to_have_count(4)
    site.log.broken = True
    page.get_by_role("button", name="A is better").click()
    expect(page.locator("#notice")).to_contain_text("please try again")
    assert versions(page) == []
    site.log.broken = False
    page.get_by_role("button", name="A is better").click()  # it was not counted
    expect(page.locator(".outcome")).to_be_visible()
    visitor.complaints.clear()


@pytest.mark.parametrize(
    "text", ["<img src=x onerror='window.pwned=1'>", "\u202e\u2066 gnirts" * 30, "w" * 3000, "😀" * 1500]
)
def test_hostile_replies_stay_in_their_cards(visitor: Visitor, text: str) -> None:
    page = visitor.page
    replies = [{"slot": slot, "content": text} for slot in "ab"]
    page.route("**/v1/compare", lambda route: route.fulfill(json={"id": "cmp-1", "replies": replies}))
    named = {"versions": {"a": text, "b": text}}
    page.route("**/v1/compare/*", lambda route: route.fulfill(json=named))
    ask(page, text)
    page.get_by_role("button", name="A is better").click()
    expect(page.locator(".outcome")).to_be_visible()
    for size in (PHONE, DESK):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert_nothing_sticks_out(page)
    assert page.evaluate("window.pwned") is None
